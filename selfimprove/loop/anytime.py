"""Anytime performance: how good the best so far is, at every amount of compute that was charged.

The axis is charged FLOPs of everything: candidates that were denied, failed, stopped or killed, trainings again,
confirmations, and the controller's own. So two searches are compared at what they cost, not at how often they tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Steps:
    """A step function: from ``charged[i]`` on, the value is ``values[i]``.

    Attributes:
        charged: FLOPs, rising.
        values: as many.
    """

    charged: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, charged: float) -> float | None:
        """The value after so many FLOPs; None before the first."""
        place = int(np.searchsorted(self.charged, charged, side="right")) - 1
        return self.values[place] if place >= 0 else None


def best_so_far(charged: Sequence[float], values: Sequence[float]) -> Steps:
    """The highest value reached, as steps; what does not improve it makes none.

    Args:
        charged: FLOPs that were charged when each value was known; never falling.
        values: as many.

    Raises:
        ValueError: the charged FLOPs fall, or there are not as many as values.
    """
    if len(charged) != len(values) or any(b < a for a, b in pairwise(charged)):
        raise ValueError(f"charged: got {len(charged)} for {len(values)} values; allowed: as many, never falling")
    steps: dict[float, float] = {}
    best = float("-inf")
    for place, value in zip(charged, values, strict=True):
        if value > best:
            best = steps[place] = value
    return Steps(tuple(steps), tuple(steps.values()))


def simple_regret(best: Steps, charged: float, optimum: float = 1.0) -> float | None:
    """What the best so far misses of the optimum (Bubeck, Munos and Stoltz 2009); None before the first value.

    Args:
        best: of a search.
        charged: FLOPs.
        optimum: the highest value there is; 1 is a skill's.
    """
    value = best.at(charged)
    return None if value is None else optimum - value


def area_under(best: Steps, budget: float, *, low: float = 0.0, high: float = 1.0) -> float:
    """Area under a best-so-far curve up to a budget, as a share of what the highest value from the start would give.

    The mean value over the budget, with ``low`` as 0 and ``high`` as 1. Until the first value is known it is ``low``.

    Args:
        best: of a search.
        budget: FLOPs.
        low: what counts as nothing.
        high: what counts as everything.

    Raises:
        ValueError: no budget, or nothing between low and high.
    """
    if not budget > 0 or not high > low:
        raise ValueError(f"budget {budget:g} from {low:g} to {high:g}: allowed: above 0, and high above low")
    kept = [(x, y) for x, y in zip(best.charged, best.values, strict=True) if x < budget]
    ends = [x for x, _ in kept[1:]] + [budget]
    area = sum((end - x) * (y - low) for (x, y), end in zip(kept, ends, strict=bool(kept)))
    return area / (budget * (high - low))


def threshold(best: Steps, target: float) -> float | None:
    """The charged FLOPs at which a curve first reaches the target; None: not reached."""
    return next((x for x, y in zip(best.charged, best.values, strict=True) if y >= target), None)
