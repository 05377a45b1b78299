"""From rows of the search study to its comparison: the charged compute at which a controller reaches what random did.

The target of a root seed is the skill that random search ended with, less ``NEAR``: two runs that found the same do not
measure it alike. What a controller took to reach it is divided by what random search took to come that near itself. A
controller that did not reach it within its run took infinitely long: so medians, and intervals of them, may be
infinite. A root seed on which random search found nothing says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

from selfimprove.loop.anytime import Steps, area_under, best_so_far, threshold
from selfimprove.loop.statistics import MOST_PAIRS, exact_interval, holm, two_sided_p_value

RANDOM = "random"
NEAR = 0.02  # skill: the gain below which the loop does not look at a leader either
RESAMPLES = 10_000

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
    tested = [one for one in arms.values() if one["difference"] is not None]
    for one, adjusted in zip(tested, holm([one["p_value"] for one in tested]), strict=True):
        one["p_holm"] = adjusted
    return {
        "near": NEAR,
        "commits": sorted({str(row.get("commit", "")) for row in rows}),
        "overrides": sorted({" ".join(row.get("overrides", ())) for row in rows}),
        "arms": arms,
    }


def _arm(mine: Mapping[int, Row], random: Mapping[int, Row]) -> dict[str, Any]:
    """What a controller took, reached and cost, beside random search on the same root seeds."""
    shared = sorted(mine.keys() & random.keys())
    ratios = [ratio for seed in shared if (ratio := _ratio(curve(mine[seed]), curve(random[seed]))) is not None]
    last = {seed: row["generations"][-1] for seed, row in mine.items()}
    found: dict[str, Any] = {
        "n": len(mine),
        "skill": fmean(one["skill"] for one in last.values()),
        "area": fmean(_area(row, random.get(seed, row)) for seed, row in mine.items()),
        "charged_flops": fmean(one["charged_flops"] for one in last.values()),
        "controller_flops": fmean(row["paid"]["controller"] for row in mine.values()),
        "promotions": fmean(sum(one["promoted"] for one in row["generations"]) for row in mine.values()),
        "seconds": fmean(row["seconds"] for row in mine.values()),
        "compared": len(ratios),
        "reached": sum(math.isfinite(ratio) for ratio in ratios),
        "ratio": None,
        "ratio_interval": None,
        "difference": None,
    }
    if ratios:
        found |= {"ratio": _finite(median(ratios)), "ratio_interval": [*map(_finite, _median_interval(ratios))]}
    if shared and mine is not random:
        differences = [last[seed]["skill"] - random[seed]["generations"][-1]["skill"] for seed in shared[:MOST_PAIRS]]
        found |= {"difference": fmean(differences), "interval": exact_interval(differences)}
        found |= {"p_value": two_sided_p_value(differences)}
    return found


def _ratio(ours: Steps, theirs: Steps) -> float | None:
    """FLOPs until we are near what they ended with, over theirs; None where they found nothing."""
    target = theirs.values[-1] - NEAR
    base = threshold(theirs, target)
    if not base:
        return None
    reached = threshold(ours, target)
    return math.inf if reached is None else reached / base


def _area(row: Row, random: Row) -> float:
    """Area under the curve up to what both runs spent."""
    budget = min(float(one["generations"][-1]["charged_flops"]) for one in (row, random))
    return area_under(curve(row), budget)


def _median_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """95% percentile interval of the median over root seeds, each bound a value that occurred."""
    rng = np.random.Generator(np.random.PCG64(0))
    values = np.sort(np.array(ratios))
    drawn = np.sort(rng.integers(0, len(values), (RESAMPLES, len(values))), axis=1)
    middles = np.sort(drawn[:, (len(values) - 1) // 2])
    low, high = middles[int(0.025 * RESAMPLES)], middles[int(0.975 * RESAMPLES)]
    return float(values[low]), float(values[high])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
