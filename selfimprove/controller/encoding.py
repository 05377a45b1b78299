"""Points of any Optuna search space as arrays of numbers, and back. Imports no torch.

A parameter with an order (a float, an integer) is its place in its range, from 0 to 1, on a log scale where the
distribution has one; a value from outside of it, as of a trial before its range changed, is at most a range's length
beside it. A categorical one is the index of its choice. A parameter that a trial did not have is NaN: a conditional
space is the union of its branches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

MOST_LEVELS = 2**53  # whole numbers that a float tells apart


@dataclass(frozen=True)
class Encoding:
    """The parameters of a search space, in the order of their names.

    Args:
        distributions: by name; each float, integer or categorical.
    """

    distributions: Mapping[str, BaseDistribution]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.distributions))

    @cached_property
    def ordered(self) -> Bool[NDArray[np.bool_], " parameter"]:
        """Which parameters have an order."""
        return np.array([not isinstance(self.distributions[name], CategoricalDistribution) for name in self.names])

    @cached_property
    def logarithmic(self) -> Bool[NDArray[np.bool_], " parameter"]:
        """Which parameters have a log scale."""
        return np.array([getattr(self.distributions[name], "log", False) for name in self.names], dtype=np.bool_)

    @cached_property
    def levels(self) -> Int[NDArray[np.int64], " parameter"]:
        """Values that each parameter can take; 0: a continuum."""
        return np.array([levels(self.distributions[name]) for name in self.names], dtype=np.int64)

    def encode(self, points: Sequence[Mapping[str, Any]]) -> Float[NDArray[np.float64], "point parameter"]:
        """One row a point; what it lacks, or a choice that there is not, is NaN."""
        rows = [
            [_encode(self.distributions[name], point[name]) if name in point else math.nan for name in self.names]
            for point in points
        ]
        return np.array(rows, dtype=np.float64).reshape(len(points), len(self.names))

    def decode(self, row: Float[NDArray[np.float64], " parameter"]) -> dict[str, Any]:
        """The values of one point, but of what is NaN; of a number the nearest one that its distribution has."""
        found = ((name, value) for name, value in zip(self.names, row, strict=True) if not math.isnan(value))
        return {name: _decode(self.distributions[name], value) for name, value in found}

    def uniform(self, count: int, rng: np.random.Generator) -> Float[NDArray[np.float64], "point parameter"]:
        """Points drawn evenly: over a continuum or a log scale, and over the values of whatever else has some."""
        drawn = rng.random((count, len(self.names)))
        index = np.floor(drawn * np.maximum(self.levels, 1))
        stepped = self.ordered & (self.levels > 0) & ~self.logarithmic
        places = np.where(stepped, index / np.maximum(self.levels - 1, 1), drawn)
        return self.snap(np.where(self.ordered, places, index))

    def snap(
        self, rows: Float[NDArray[np.float64], "point parameter"]
    ) -> Float[NDArray[np.float64], "point parameter"]:
        """The nearest points that the space has: each as it would be read again after a trial."""
        snapped = rows.copy()
        for column, (name, count) in enumerate(zip(self.names, self.levels, strict=True)):
            distribution = self.distributions[name]
            if isinstance(distribution, CategoricalDistribution):
                snapped[:, column] = np.clip(rows[:, column], 0, count - 1)
            elif count == 0 or not self.logarithmic[column]:
                places = np.clip(rows[:, column], 0.0, 1.0)
                snapped[:, column] = places if count == 0 else np.rint(places * (count - 1)) / max(count - 1, 1)
            else:
                snapped[:, column] = [_encode(distribution, _decode(distribution, value)) for value in rows[:, column]]
        return snapped


def levels(distribution: BaseDistribution) -> int:
    """Values that a distribution has; 0: a continuum, or more than a float can tell apart.

    Raises:
        TypeError: it is neither float, nor integer, nor categorical.
    """
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        kind = type(distribution).__name__
        raise TypeError(f"a distribution of type {kind}; allowed: float, integer, categorical")
    if distribution.low == distribution.high:
        return 1
    count = round((distribution.high - distribution.low) / distribution.step) + 1 if distribution.step else 0
    return count if count <= MOST_LEVELS else 0


def _encode(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        try:
            return float(distribution.to_internal_repr(value))
        except ValueError:
            return math.nan
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _scale(distribution, distribution.low), _scale(distribution, distribution.high)
    place = 0.0 if low == high else (_scale(distribution, value) - low) / (high - low)
    return min(max(place, -1.0), 2.0)


def _decode(distribution: BaseDistribution, place: float) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(place)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _scale(distribution, distribution.low), _scale(distribution, distribution.high)
    value = low + min(max(place, 0.0), 1.0) * (high - low)
    value = math.exp(value) if distribution.log else value
    if distribution.step:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def _scale(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    if not distribution.log:
        return float(value)
    return math.log(value) if value > 0 else -math.inf
