"""Is each level of each task family learnable, and is it beyond the seed genome?

Every level is trained alone and as a part of the default mixture, at the default allowance, by the seed genome, by the
seed genome at ten times the allowance, and by the seed genome with one or two human discoveries, each with several
training seeds. A first difficulty is sound where something here masters it; a later one shows a climb where the seed
genome does not. Each training is a line of ``trials.jsonl``: an interrupted study goes on where it stopped, and a level
whose knobs have changed is measured anew.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.setting import RESULTS, commit, default_config, machine, origin
from benchmarks.sittings import TIME_UP, lines, measure_all
from benchmarks.trainings import outcome
from selfimprove.canonical import canonical
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, apply_all
from selfimprove.loop.config import RunConfig
from selfimprove.seeds import derive
from selfimprove.tasks.family import knobs
from selfimprove.tasks.ladder import MASTERED
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.score import NO_MODEL
from selfimprove.tasks.suite import TasksConfig, least_context, least_vocabulary

FOLDER = RESULTS / "calibration"
TRIALS, SUMMARY = "trials.jsonl", "summary.json"
MIXTURES = ("alone", "mixed")
_CONV = ("architecture.blocks.0.conv_qkv=true", "architecture.blocks.1.conv_qkv=true")


@dataclass(frozen=True)
class Variant:
    """The seed genome, edited, at a multiple of the default allowance."""

    edits: tuple[str, ...] = ()
    factor: int = 1


VARIANTS: dict[str, Variant] = {
    "seed": Variant(),
    "seed at 10x": Variant(factor=10),
    "conv": Variant(_CONV[:1]),
    "token_shift": Variant(("architecture.blocks.0.token_shift=true",)),
    "conv, conv": Variant(_CONV),
    "qk_norm": Variant(("architecture.blocks.0.qk_norm=true", "architecture.blocks.1.qk_norm=true")),
    "muon": Variant(("recipe.optimizer=muon",)),
    "zero_init": Variant(("architecture.zero_init=true",)),
    "conv, muon": Variant((_CONV[0], "recipe.optimizer=muon")),
    "conv, zero_init": Variant((_CONV[0], "architecture.zero_init=true")),
}


@dataclass(frozen=True)
class Trial:
    """One training."""

    family: str
    level: int
    mixture: str
    """``alone``, or ``mixed`` with the families of the default experiment at their first level."""
    variant: str
    seed: int
    """Of all trials with this number, weights and instances are drawn alike."""


def main(arguments: Sequence[str]) -> int:
    """Run or resume the study and write ``summary.json``; returns 0, or 3 where the time was up first."""
    parser = argparse.ArgumentParser(prog="selfimprove study calibration", description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="NAME")
    parser.add_argument("--levels", type=int, nargs="+", help="levels of each family (default: its whole ladder)")
    parser.add_argument("--mixtures", nargs="+", choices=MIXTURES, default=list(MIXTURES), help="(default: both)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=8, help="training seeds of each (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once (default %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=55.0, help="start no training after this (default %(default)s)"
    )
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of {TRIALS} and {SUMMARY}")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    levels = {name: _levels(name, chosen.levels) for name in chosen.families}
    wanted = [
        Trial(name, level, mixture, variant, seed)
        for name in chosen.families
        for level, mixture, variant in product(levels[name], chosen.mixtures, chosen.variants)
        for seed in range(chosen.seeds)
    ]

    def missing() -> list[Trial]:
        known = known_trials(chosen.results)
        return [trial for trial in wanted if identity(trial) not in known]

    measure_all(chosen.results / TRIALS, measure, missing, chosen, _in_a_word)
    known = known_trials(chosen.results)
    summary = summarize(known.values())
    (chosen.results / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    for row in summary["levels"]:
        print(f"{row['family']} {row['level']} {row['mixture']}: mastered by {', '.join(row['mastered']) or 'none'}")
    return 0 if all(identity(trial) in known for trial in wanted) else TIME_UP


def _levels(name: str, asked: Sequence[int] | None) -> list[int]:
    return [level for level in range(len(FAMILIES[name].ladder)) if asked is None or level in asked]


@cache
def setting() -> RunConfig:
    """The default experiment."""
    return default_config()


def tasks_of(trial: Trial, config: RunConfig) -> TasksConfig:
    """The default experiment's tasks with this family at this level, and sizes raised to what the level needs."""
    tasks, level = config.tasks, FAMILIES[trial.family].ladder[trial.level]
    mixed = tuple(dict.fromkeys((*tasks.families, trial.family)))
    return replace(
        tasks,
        families=mixed if trial.mixture == "mixed" else (trial.family,),
        held_out=(),
        levels={trial.family: trial.level},
        vocab_size=max(tasks.vocab_size, least_vocabulary(level)),
        context=max(tasks.context, least_context(level)),
    )


def genome_of(variant: Variant, config: RunConfig) -> Genome:
    """The seed genome with a variant's edits."""
    edits = [parse_edit(text) for text in variant.edits]
    return apply_all(edits, config.seed_genome, Space(config.space)) if edits else config.seed_genome


def description(trial: Trial) -> dict[str, Any]:
    """A trial and all that its outcome depends on but the code."""
    config, variant = setting(), VARIANTS[trial.variant]
    tasks = tasks_of(trial, config)
    return asdict(trial) | {
        "knobs": knobs(FAMILIES[trial.family].ladder[trial.level]),
        "genome": genome_of(variant, config).sha256,
        "allowance_flops": variant.factor * config.allowance_flops,
        "families": list(tasks.families),
        "vocab_size": tasks.vocab_size,
        "context": tasks.context,
        "eval_sequences": tasks.eval_sequences,
    }


def identity(trial: Trial) -> bytes:
    """What a line must agree with to count as this trial's."""
    return canonical(description(trial))


def measure(trial: Trial) -> dict[str, Any]:
    """Train and score; the line of a trial. Called in a process of its own."""
    started, config = time.monotonic(), setting()
    about, tasks = description(trial), tasks_of(trial, config)
    seed, allowance = derive(0, "calibration", trial.seed), about["allowance_flops"]
    genome = genome_of(VARIANTS[trial.variant], config)
    score, steps = outcome(genome, tasks, allowance_flops=allowance, seed=seed)
    return about | {
        "skill": score.tasks[trial.family].skill if score is not None else NO_MODEL,
        "diverged": score is None,
        "score": score.to_json() if score is not None else None,
        "steps": steps,
        "seconds": round(time.monotonic() - started, 1),
        "commit": commit(),
        "machine": machine(),
    }


def known_trials(folder: Path) -> dict[bytes, dict[str, Any]]:
    """Lines of earlier sittings that still describe a trial of today, by identity."""
    found = dict[bytes, dict[str, Any]]()
    for line in lines(folder / TRIALS):
        trial = Trial(**{name: line[name] for name in Trial.__dataclass_fields__})
        if trial.variant in VARIANTS and trial.level in _levels(trial.family, None):
            mine = identity(trial)
            if all(line.get(name) == value for name, value in json.loads(mine).items()):
                found[mine] = line
    return found


def summarize(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Skills by level, mixture and variant; a level is mastered by a variant whose mean skill is above 0.9."""
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["family"], line["level"], line["mixture"]), []).append(line)
    order = [(name, level, how) for name in FAMILIES for level in _levels(name, None) for how in MIXTURES]
    rows = []
    for place in (place for place in order if place in groups):
        mine = sorted(groups[place], key=lambda line: (list(VARIANTS).index(line["variant"]), line["seed"]))
        skills: dict[str, list[float]] = {}
        for line in mine:
            skills.setdefault(line["variant"], []).append(line["skill"])
        means = {variant: mean(values) for variant, values in skills.items()}
        row = {"family": place[0], "level": place[1], "mixture": place[2]}
        row |= {name: mine[0][name] for name in ("knobs", "vocab_size", "context", "families")}
        row |= {"mean_skill": means, "mastered": [v for v in means if means[v] > MASTERED], "skills": skills}
        rows.append(row)
    return {
        "split": "search",
        "mastered_above": MASTERED,
        "allowance_flops": setting().allowance_flops,
        "variants": {name: asdict(variant) for name, variant in VARIANTS.items()},
        **origin(lines),
        "levels": rows,
    }


def _in_a_word(line: Mapping[str, Any]) -> str:
    trial = f"{line['family']} {line['level']} {line['mixture']}, {line['variant']}, seed {line['seed']}"
    return f"{trial}: skill {line['skill']:.4f} in {line['seconds']:.0f} s"
