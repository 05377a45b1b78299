"""From rows of the search study to its comparison: the charged compute at which a controller reaches what random did.

The target of a root seed is the skill that random search ended with, less ``NEAR``: two runs that found the same do not
measure it alike. What a controller took to reach it is divided by what random search took to come that near itself. A
controller that did not reach it within its run took infinitely long: so medians, and intervals of them, may be
infinite. A root seed on which random search found nothing says nothing. Random search reaches its own best by
definition: what a controller that is no better would take is shown by random search on one root seed beside that on
another, which does not come there half of the time. Our controllers are set beside every baseline in the same way,
where the target stays what random search found: a root seed on which neither of two reached it says nothing of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from statistics import fmean, median
from typing import Any

from benchmarks.paired import correct, paired
from selfimprove.loop.anytime import Steps, area_under, best_so_far, threshold
from selfimprove.loop.statistics import MOST_PAIRS, median_interval

RANDOM = "random"
OURS = ("forecaster", "transformer")  # the others are the baselines
NEAR = 0.02  # skill: the gain below which the loop does not look at a leader either

Row = Mapping[str, Any]


def curve(row: Row) -> Steps:
    """The champion's confirmed skill against charged FLOPs, the seed genome's first."""
    steps = row["generations"]
    return best_so_far(
        [0.0, *(float(one["charged_flops"]) for one in steps)], [row["seed_genome"], *(one["skill"] for one in steps)]
    )


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that the report says, JSON-ready; what was not reached is null."""
    by_arm: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["seed"]] = row
    arms = {arm: _arm(mine, by_arm.get(RANDOM, {})) for arm, mine in by_arm.items()}
    correct(_testable(arms))
    return {
        "near": NEAR,
        "commits": sorted({str(row.get("commit", "")) for row in rows}),
        "overrides": sorted({" ".join(row.get("overrides", ())) for row in rows}),
        "arms": arms,
        "chance": _chance(by_arm.get(RANDOM, {})),
        "ours": {arm: _beside_baselines(by_arm, arm) for arm in OURS if arm in by_arm},
    }


def _arm(mine: Mapping[int, Row], random: Mapping[int, Row]) -> dict[str, Any]:
    """What a controller took, reached and cost, beside random search on the same root seeds."""
    last = {seed: row["generations"][-1] for seed, row in mine.items()}
    took = [flops for seed in mine.keys() & random.keys() if (flops := _to_best(mine[seed], random[seed])) is not None]
    found: dict[str, Any] = {
        "n": len(mine),
        "skill": fmean(one["skill"] for one in last.values()),
        "area": _areas(mine, random),
        "charged_flops": fmean(one["charged_flops"] for one in last.values()),
        "controller_flops": fmean(row["paid"]["controller"] for row in mine.values()),
        "promotions": fmean(sum(one["promoted"] for one in row["generations"]) for row in mine.values()),
        "seconds": fmean(row["seconds"] for row in mine.values()),
        "reached": sum(map(math.isfinite, took)),
        "flops_to_best": _finite(median(took)) if took else None,
    }
    return found | _sooner(mine, random, random) | _ahead(mine, {} if mine is random else random)


def _chance(random: Mapping[int, Row]) -> dict[str, Any]:
    """FLOPs to random search's best that random search takes on another root seed, over all pairs of different ones."""
    took, ratios = list[float](), list[float]()
    for seed, other in permutations(sorted(random), 2):
        mine, theirs = _to_best(random[seed], random[other]), _to_best(random[other], random[other])
        if mine is not None and theirs is not None:
            took.append(mine)
            ratios.append(_over(mine, theirs))
    return {
        "compared": len(ratios),
        "reached": sum(map(math.isfinite, took)),
        "flops_to_best": _finite(median(took)) if took else None,
        "ratio": _finite(median(ratios)) if ratios else None,
    }


def _beside_baselines(by_arm: Mapping[str, Mapping[int, Row]], ours: str) -> dict[str, Any]:
    """One of our controllers beside each baseline but random search, on the root seeds that all three have run."""
    random = by_arm.get(RANDOM, {})
    mine = {seed: row for seed, row in by_arm[ours].items() if seed in random}
    found = {
        arm: _sooner(mine, theirs, random) | _ahead(mine, theirs)
        for arm, theirs in by_arm.items()
        if arm not in (*OURS, RANDOM)
    }
    correct(_testable(found))
    return found


def _testable(compared: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with enough root seeds to reject anything: others would only make the correction harder."""
    return [one for one in compared.values() if one["interval"] is not None]


def _sooner(ours: Mapping[int, Row], theirs: Mapping[int, Row], random: Mapping[int, Row]) -> dict[str, Any]:
    """FLOPs to random search's best, as ratios over another's on the same root seeds."""
    ratios, neither = list[float](), 0
    for seed in sorted(ours.keys() & theirs.keys() & random.keys()):
        mine, other = (_to_best(rows[seed], random[seed]) for rows in (ours, theirs))
        if mine is None or other is None:
            continue
        if mine == other == math.inf:
            neither += 1
        else:
            ratios.append(_over(mine, other))
    interval = median_interval(ratios)
    return {
        "compared": len(ratios),
        "neither": neither,
        "sooner": sum(ratio < 1 for ratio in ratios),
        "ratio": _finite(median(ratios)) if ratios else None,
        "ratio_interval": [*map(_finite, interval)] if interval is not None else None,
    }


def _ahead(ours: Mapping[int, Row], theirs: Mapping[int, Row]) -> dict[str, Any]:
    """The champions' skill at the end of the runs, paired by root seed."""
    shared = sorted(ours.keys() & theirs.keys())[:MOST_PAIRS]
    differences = [ours[seed]["generations"][-1]["skill"] - theirs[seed]["generations"][-1]["skill"] for seed in shared]
    found = paired(differences)
    return {"paired": found.pop("n"), "difference": found.pop("mean"), **found}


def _to_best(row: Row, random: Row) -> float | None:
    """FLOPs until a run is near what random search ended with; None where that found nothing."""
    theirs = curve(random)
    target = theirs.values[-1] - NEAR
    if not threshold(theirs, target):
        return None
    reached = threshold(curve(row), target)
    return math.inf if reached is None else reached


def _over(ours: float, theirs: float) -> float:
    """The ratio; whoever starts near what random search ended with has taken nothing."""
    if theirs:
        return ours / theirs
    return math.inf if ours else 1.0


def _areas(mine: Mapping[int, Row], random: Mapping[int, Row]) -> float | None:
    """Area under the curve less random search's, each up to what both spent, mean over root seeds; None without any."""
    differences = []
    for seed in mine.keys() & random.keys():
        both = mine[seed], random[seed]
        budget = min(float(row["generations"][-1]["charged_flops"]) for row in both)
        ours, theirs = (area_under(curve(row), budget) for row in both)
        differences.append(ours - theirs)
    return fmean(differences) if differences else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
