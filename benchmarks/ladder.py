"""What human discoveries are worth at toy scale, each one edit away; and what a fixed allowance buys, split otherwise.

The seed genome and each edited genome are trained on the default tasks with the same training seeds, the same instances
and equal FLOPs. Nothing is tuned anew for an edit: that is what the loop, too, sees of it. Differences are paired by
seed and tested on both sides by the exact sign-flip test; p-values are Holm's over all discoveries. What the seed
genome has already (RoPE, the untied head) is taken from it first and then measured as the edit that brings it back.

The best and the worst split of the allowance are chosen on the seeds with even numbers and compared on the others,
so that the choice does not flatter the difference. An interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from benchmarks.calibration import Variant, genome_of
from benchmarks.paired import correct
from benchmarks.setting import RESULTS, commit, default_config, machine, origin, tasks_described
from benchmarks.sittings import TIME_UP, lines, measure_all
from benchmarks.trainings import outcome
from selfimprove.canonical import canonical
from selfimprove.loop.config import RunConfig
from selfimprove.loop.statistics import MOST_PAIRS, two_sided_p_value
from selfimprove.seeds import derive
from selfimprove.tasks.score import NO_MODEL

FOLDER = RESULTS / "ladder"
TRIALS, SUMMARY, TABLE, PLOT = "trials.jsonl", "summary.json", "summary.md", "ladder.svg"
ALPHA = 0.01
LEVEL = 0.95  # of intervals
_MTP = "objective.expression=add(_, mul(0.1, mul(-1, dot(onehot(2), log_softmax(logits(1))))))"


@dataclass(frozen=True)
class Discovery:
    """One edit and where it comes from."""

    edit: str
    source: str
    base: tuple[str, ...] = ()
    """Edits of the seed genome that take the discovery from it."""


DISCOVERIES: dict[str, Discovery] = {
    "RoPE": Discovery(
        "architecture.positions=rope", "Su et al. 2021, arXiv 2104.09864", ("architecture.positions=learned",)
    ),
    "ReLU²": Discovery("architecture.blocks.0.channel=relu2", "So et al. 2021 (Primer), arXiv 2109.08668"),
    "QK-norm": Discovery("architecture.blocks.0.qk_norm=true", "Henry et al. 2020, arXiv 2010.04245"),
    "zero-init projections": Discovery("architecture.zero_init=true", "Zhang et al. 2019 (Fixup), arXiv 1901.09321"),
    "untied head": Discovery(
        "architecture.tie_embeddings=false",
        "tying: Press and Wolf 2017, arXiv 1608.05859",
        ("architecture.tie_embeddings=true",),
    ),
    "value residual": Discovery("architecture.blocks.1.value_residual=true", "Zhou et al. 2024, arXiv 2410.17897"),
    "logit softcap": Discovery("architecture.logit_softcap=15", "Gemma 2, 2024, arXiv 2408.00118"),
    "U-net skip": Discovery("architecture.unet_skips=true", "Ronneberger et al. 2015, arXiv 1505.04597"),
    "short convolution": Discovery("architecture.blocks.0.conv_qkv=true", "So et al. 2021 (Primer), arXiv 2109.08668"),
    "Muon": Discovery("recipe.optimizer=muon", "Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982"),
    "multi-token prediction": Discovery(_MTP, "Gloeckle et al. 2024, arXiv 2404.19737"),
}
SPLITS: dict[str, tuple[str, ...]] = {
    "the seed genome's": (),
    **{f"width {width}": (f"architecture.width={width}",) for width in (32, 48, 96, 128)},
    **{f"batch {batch}": (f"recipe.batch={batch}",) for batch in (16, 32, 64)},
    **{f"context {part}": (f"recipe.context={part}",) for part in (0.5, 0.75)},
    "1 block": ("~architecture.blocks.1",),
    "3 blocks": ("+architecture.blocks.2=copy(1)",),
}


@dataclass(frozen=True)
class Trial:
    """One training: the seed genome with these edits."""

    edits: tuple[str, ...]
    seed: int
    """Of all trials with this number, weights and instances are drawn alike."""


def main(arguments: Sequence[str]) -> int:
    """Run or resume the benchmark and write its results; returns 0, or 3 where the time was up first."""
    parser = argparse.ArgumentParser(
        prog="selfimprove benchmark ladder", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help=f"training seeds of each, 2 to {MOST_PAIRS}")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=55.0, help="start no training after this")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of {TRIALS}, {SUMMARY} and {PLOT}")
    chosen = parser.parse_args(arguments)
    if not 2 <= chosen.seeds <= MOST_PAIRS:
        parser.error(f"--seeds: got {chosen.seeds}; allowed: 2 to {MOST_PAIRS}, what the exact test can enumerate")
    chosen.results.mkdir(parents=True, exist_ok=True)
    wanted = [Trial(edits, seed) for seed in range(chosen.seeds) for edits in genomes()]

    def missing() -> list[Trial]:
        known = known_trials(chosen.results / TRIALS)
        return [trial for trial in wanted if identity(trial) not in known]

    measure_all(chosen.results / TRIALS, measure, missing, chosen)
    known = known_trials(chosen.results / TRIALS)
    summary = summarize([known[identity(trial)] for trial in wanted if identity(trial) in known])
    (chosen.results / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (chosen.results / TABLE).write_text(table(summary) + "\n", encoding="utf-8")
    draw(summary, chosen.results / PLOT)
    print(json.dumps(summary, indent=1) if chosen.json else table(summary))
    return 0 if all(identity(trial) in known for trial in wanted) else TIME_UP


def genomes() -> list[tuple[str, ...]]:
    """The edits of every genome that is trained, each once."""
    found = [edits for one in DISCOVERIES.values() for edits in (one.base, _after(one))]
    return list(dict.fromkeys([*found, *SPLITS.values()]))


def _after(discovery: Discovery) -> tuple[str, ...]:
    """What brings back what the seed genome has is the seed genome itself."""
    return () if discovery.base else (discovery.edit,)


@cache
def setting() -> RunConfig:
    """The default experiment."""
    return default_config()


def description(trial: Trial) -> dict[str, Any]:
    """A trial and all that its outcome depends on but the code."""
    config = setting()
    return {
        "edits": list(trial.edits),
        "seed": trial.seed,
        "genome": genome_of(Variant(trial.edits), config).sha256,
        "allowance_flops": config.allowance_flops,
        **tasks_described(config.tasks),
    }


def identity(trial: Trial) -> bytes:
    """What a line must agree with to count as this trial's."""
    return canonical(description(trial))


def measure(trial: Trial) -> dict[str, Any]:
    """Train and score; the line of a trial. Called in a process of its own."""
    started, config, about = time.monotonic(), setting(), description(trial)
    genome, seed = genome_of(Variant(trial.edits), config), derive(0, "ladder", trial.seed)
    score, steps = outcome(genome, config.tasks, allowance_flops=config.allowance_flops, seed=seed)
    return about | {
        "skill": score.skill if score is not None else NO_MODEL,
        "families_skill": {name: family.skill for name, family in score.tasks.items()} if score is not None else {},
        "diverged": score is None,
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "commit": commit(),
        "device": "cpu",
        "machine": machine(),
    }


def known_trials(path: Path) -> dict[bytes, dict[str, Any]]:
    """Lines of earlier sittings by identity; those of another setting have one that nothing asks for."""
    asked = list(description(Trial((), 0)))
    return {canonical({name: line[name] for name in asked}): line for line in lines(path) if set(asked) <= set(line)}


def summarize(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The discoveries with their differences, intervals and Holm's p-values; the splits of the allowance."""
    by_edits: dict[tuple[str, ...], dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        by_edits.setdefault(tuple(line["edits"]), {})[line["seed"]] = line
    rows: list[dict[str, Any]] = []
    for name, one in DISCOVERIES.items():
        with_it, without = by_edits.get(_after(one), {}), by_edits.get(one.base, {})
        seeds = sorted(with_it.keys() & without.keys())
        if len(seeds) < 2:
            continue
        row: dict[str, Any] = {"discovery": name, "edit": one.edit, "base": list(one.base), "source": one.source}
        families = setting().tasks.families
        row |= compared([with_it[seed]["skill"] for seed in seeds], [without[seed]["skill"] for seed in seeds])
        row["families"] = {
            family: fmean(_of(with_it[seed], family) - _of(without[seed], family) for seed in seeds)
            for family in families
        }
        rows.append(row)
    correct(rows)
    for row in rows:
        row["verdict"] = _verdict(row["difference"], row["p_holm"])
    return {
        "split": "search",
        "test": "sign-flip, exact, two-sided, Holm over the discoveries",
        "alpha": ALPHA,
        "tasks": {name: setting().tasks.levels.get(name, 0) for name in setting().tasks.families},
        "allowance_flops": setting().allowance_flops,
        "device": "cpu",
        **origin(lines),
        "discoveries": sorted(rows, key=lambda row: -row["difference"]),
        "allocation": allocation(by_edits),
    }


def compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Paired differences, their mean with a 95% t interval, and the two-sided p-value."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    low, high = interval(differences)
    return {
        "n": len(differences),
        "skill": fmean(ours),
        "skill_without": fmean(theirs),
        "difference": fmean(differences),
        "interval": [low, high],
        "p_value": two_sided_p_value(differences),
        "differences": differences,
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95% t interval of a mean; a single point where all values are equal."""
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def allocation(by_edits: Mapping[tuple[str, ...], Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Mean skill of each split of the allowance by family, and by how much the best beats the worst on other seeds."""
    splits = {name: by_edits[edits] for name, edits in SPLITS.items() if edits in by_edits}
    seeds = sorted(set.intersection(*(set(mine) for mine in splits.values()))) if splits else []
    choosing, judging = seeds[::2], seeds[1::2]
    if len(judging) < 2:
        return {}
    found = {}
    for family in setting().tasks.families:
        chosen = {name: fmean(_of(mine[seed], family) for seed in choosing) for name, mine in splits.items()}
        best, worst = max(chosen, key=chosen.__getitem__), min(chosen, key=chosen.__getitem__)
        pairs = [(_of(splits[best][seed], family), _of(splits[worst][seed], family)) for seed in judging]
        found[family] = {"best": best, "worst": worst} | compared([a for a, _ in pairs], [b for _, b in pairs])
        found[family]["means"] = {
            name: fmean(_of(mine[seed], family) for seed in seeds) for name, mine in splits.items()
        }
    return found


def _of(line: Mapping[str, Any], family: str) -> float:
    return float(line["families_skill"].get(family, NO_MODEL))


def _verdict(difference: float, p_value: float) -> str:
    if p_value >= ALPHA:
        return "no effect shown"
    return "helps" if difference > 0 else "hurts"


def table(summary: Mapping[str, Any]) -> str:
    """The summary as a Markdown table."""
    lines = [
        "| discovery | skill without | skill with | difference (95%) | p (Holm) | verdict | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['discovery']} | {row['skill_without']:.3f} | {row['skill']:.3f} | {_difference(row)} "
        f"| {row['p_holm']:.2g} | {row['verdict']} | {row['n']} |"
        for row in summary["discoveries"]
    ]
    lines += [
        "",
        "| family | best split | worst split | difference on other seeds (95%) | seeds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {family} | {row['best']} | {row['worst']} | {_difference(row)} | {row['n']} |"
        for family, row in summary["allocation"].items()
    ]
    return "\n".join(lines)


def _difference(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Differences with their intervals, the best on top, as an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ladder"  # the same figures, the same file
    from matplotlib import pyplot

    rows = summary["discoveries"][::-1]
    colors = {"helps": "#1b7f5c", "hurts": "#b3413b", "no effect shown": "#7a7f87"}
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(rows) + 1.4), layout="constrained")
    for height, row in enumerate(rows):
        color, (low, high) = colors[row["verdict"]], row["interval"]
        axes.plot([low, high], [height, height], color=color, linewidth=2)
        axes.plot(row["difference"], height, "o", color=color)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["discovery"] for row in rows])
    axes.set_xlabel("difference in mean skill, with its 95% interval")
    axes.set_title("One edit away from the seed genome, at equal FLOPs")
    for verdict, color in colors.items():
        axes.plot([], [], color=color, label=verdict)
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
