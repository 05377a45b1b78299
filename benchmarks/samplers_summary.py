"""What the rows of a study of samplers say: regret, area under its curve, ranks, probability of improvement, time.

Regret is the noise-free value of the incumbent minus the optimum, divided by the same difference for the median of
random draws on the same instance: 0 is the optimum, 1 is what a single random draw is as likely to beat as not. So
objectives compare. The area is its mean over all evaluations, the shared startup trials included. Both are taken
together over objectives and seeds as an interquartile mean, with a bootstrap interval stratified by objective: seeds
are drawn anew, objectives are fixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfimprove.loop.aggregation import interquartile_mean, probability_of_improvement, stratified_interval

Array = NDArray[np.float64]
Row = Mapping[str, Any]
OURS = "controller"
SEED = 0  # of the bootstrap


@dataclass(frozen=True)
class Table:
    """Normalized regret of what every sampler in it has done.

    Attributes:
        samplers: names, first axis.
        seeds: second axis.
        objectives: third axis.
        regret: of the incumbent after each evaluation, shape (samplers, seeds, objectives, evaluations).
        seconds: of a proposal, medians, one a sampler.
    """

    samplers: tuple[str, ...]
    seeds: tuple[int, ...]
    objectives: tuple[str, ...]
    regret: Array
    seconds: tuple[float, ...]


def curve(row: Row) -> Array:
    """Normalized regret after each evaluation of a row."""
    found = np.empty(row["evaluations"])
    for evaluation, value in row["incumbent"]:
        found[evaluation - 1 :] = value
    scale = row["random_median"] - row["optimum"]
    return np.asarray(np.maximum(found - row["optimum"], 0.0) / scale)  # rounding may pass the optimum


def table(rows: Sequence[Row], samplers: Sequence[str]) -> Table | None:
    """The largest number of evaluations, and the seeds on which each of these samplers has met every objective."""
    most = max(row["evaluations"] for row in rows)
    objectives = tuple(dict.fromkeys(row["objective"] for row in rows))
    held = {(row["sampler"], row["seed"], row["objective"]): row for row in rows if row["evaluations"] == most}
    every = sorted({row["seed"] for row in rows})
    seeds = tuple(s for s in every if all((name, s, o) in held for name in samplers for o in objectives))
    if not seeds:
        return None
    regret = np.array([[[curve(held[name, s, o]) for o in objectives] for s in seeds] for name in samplers])
    spent = [median(row["seconds"] for key, row in held.items() if key[0] == name) for name in samplers]
    return Table(tuple(samplers), seeds, objectives, regret, tuple(spent))


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """All samplers on the seeds that those with the most of them share; those with fewer, on theirs, beside them."""
    counts = {name: _complete_seeds(rows, name) for name in dict.fromkeys(row["sampler"] for row in rows)}
    levels = sorted({len(seeds) for seeds in counts.values()} - {0}, reverse=True)
    comparisons = [[name for name, seeds in counts.items() if len(seeds) >= level] for level in levels]
    tables = [found for names in comparisons if (found := table(rows, names)) is not None]
    return {
        "comparisons": [_compared(one) for one in tables],
        "incomplete": sorted(name for name, seeds in counts.items() if not seeds),
        "commits": sorted({row["commit"] for row in rows}),
        "freeze": sorted({row["freeze"] for row in rows if "freeze" in row}),
    }


def write_summary(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """Write ``summary.json``, ``report.md`` and ``samplers.svg`` of the rows into their folder."""
    found = summary_of(rows)
    (folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(report(found), encoding="utf-8")
    if found["comparisons"]:
        first = table(rows, [one["sampler"] for one in found["comparisons"][0]["samplers"]])
        assert first is not None
        draw(first, folder / "samplers.svg")
    return found


def report(found: Mapping[str, Any]) -> str:
    """The summary for people, in Markdown."""
    lines = ["# Samplers on black-box objectives", "", " ".join((__doc__ or "").split("\n\n", 1)[1].split()), ""]
    for one in found["comparisons"]:
        head = f"{len(one['objectives'])} objectives, {len(one['seeds'])} seeds, {one['evaluations']} evaluations"
        lines += [
            f"## {head}",
            "",
            "| sampler | regret at the end | area | median rank | ms a proposal | beats it | on one instance |",
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        for row in sorted(one["samplers"], key=lambda row: float(row["area"]["iqm"])):
            cells = [_interval(row["regret"], "iqm"), _interval(row["area"], "iqm"), f"{row['median_rank']:g}"]
            both = (row["improvement"], row["same_instance"])
            better = " | ".join(_interval(one, "probability") if one else "" for one in both)
            lines.append(f"| {row['sampler']} | {' | '.join(cells)} | {1000 * row['seconds']:.2f} | {better} |")
        lines.append("")
    lines += [
        f"`beats it`: probability that {OURS} ends below it, ties half, between any two seeds of an objective "
        "(rliable's probability of improvement); on one instance: between runs of one seed. Intervals hold 95%."
    ]
    if found["incomplete"]:
        lines += ["", f"Without one complete seed, and left out: {', '.join(found['incomplete'])}."]
    return "\n".join(lines) + "\n"


def draw(one: Table, path: Path) -> None:
    """Interquartile mean of the regret against evaluations, as an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "samplers"  # the same figures, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    evaluations = np.arange(1, one.regret.shape[-1] + 1)
    for name, regret in zip(one.samplers, one.regret, strict=True):
        at_each = interquartile_mean(np.moveaxis(regret, -1, 0))
        axes.plot(evaluations, at_each, label=name, linewidth=2.5 if name == OURS else 1.3)
    axes.set(
        title=f"Regret of samplers: {len(one.objectives)} objectives, {len(one.seeds)} seeds",
        xlabel="evaluations",
        ylabel="normalized regret of the incumbent (interquartile mean)",
    )
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _compared(one: Table) -> dict[str, Any]:
    last, area = one.regret[..., -1], one.regret.mean(axis=-1)
    ranks = _ranks(last)
    ours = one.samplers.index(OURS) if OURS in one.samplers else None
    return {
        "evaluations": one.regret.shape[-1],
        "seeds": list(one.seeds),
        "objectives": list(one.objectives),
        "samplers": [
            {
                "sampler": name,
                "regret": _iqm(last[i]),
                "area": _iqm(area[i]),
                "median_rank": float(np.median(ranks[i])),
                "seconds": one.seconds[i],
                "improvement": None if ours is None or ours == i else _improvement(last[ours], last[i]),
                "same_instance": None if ours is None or ours == i else _same_instance(last[ours], last[i]),
                "median_regrets": {o: _short(np.median(last[i, :, j])) for j, o in enumerate(one.objectives)},
            }
            for i, name in enumerate(one.samplers)
        ],
    }


def _iqm(scores: Array) -> dict[str, float]:
    low, high = stratified_interval(interquartile_mean, [scores], seed=SEED)
    return {"iqm": _short(interquartile_mean(scores)), "low": _short(low), "high": _short(high)}


def _improvement(ours: Array, theirs: Array) -> dict[str, float]:
    """By seeds and objectives, less regret being better."""
    low, high = stratified_interval(probability_of_improvement, [-ours, -theirs], seed=SEED)
    found = probability_of_improvement(-ours, -theirs)
    return {"probability": _short(found), "low": _short(low), "high": _short(high)}


def _same_instance(ours: Array, theirs: Array) -> dict[str, float]:
    """The same between runs of one seed alone, which share instance, noise and first trials."""
    wins = np.where(ours < theirs, 1.0, np.where(ours == theirs, 0.5, 0.0))
    low, high = stratified_interval(lambda drawn: drawn.mean(axis=(-2, -1)), [wins], seed=SEED)
    return {"probability": _short(wins.mean()), "low": _short(low), "high": _short(high)}


def _ranks(last: Array) -> Array:
    """Rank of each sampler, from 1, on each seed and objective; ties share their mean rank."""
    below = (last[None] < last[:, None]).sum(axis=1)
    equal = (last[None] == last[:, None]).sum(axis=1)
    return np.asarray(below + (equal + 1) / 2)


def _complete_seeds(rows: Sequence[Row], name: str) -> set[int]:
    objectives, most = {row["objective"] for row in rows}, max(row["evaluations"] for row in rows)
    mine = {(row["seed"], row["objective"]) for row in rows if row["sampler"] == name and row["evaluations"] == most}
    return {seed for seed, _ in mine if all((seed, objective) in mine for objective in objectives)}


def _interval(found: Mapping[str, float], key: str) -> str:
    return f"{found[key]:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _short(value: Any) -> float:
    return float(f"{float(value):.5g}")
