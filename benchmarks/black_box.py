"""Closed-form black-box objectives with known optima, from published families: what samplers are compared on.

Every objective is minimized, has 4 to 30 parameters and is evaluated in microseconds. Where the family is random, each
seed draws an instance of its own (tables, couplings, weights); where it is not, the seed draws what must not matter: a
shift, a reflection, a mask or the order of the categories. Optima are in closed form, or found by enumeration, dynamic
programming or, where said, the best known of the literature, so that simple regret is defined.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from selfimprove.seeds import derive

Params = Mapping[str, Any]
Function = Callable[[Sequence[Any]], float]
DRAWS = 512  # of random search, for the range and the median of its values


@dataclass(frozen=True)
class Parameter:
    """One parameter; ``active_if`` names an earlier parameter and the value with which alone this one exists."""

    name: str
    distribution: BaseDistribution
    active_if: tuple[str, Any] | None = None


@dataclass(frozen=True)
class Instance:
    """One instance of an objective.

    Attributes:
        space: its parameters, in the order in which they are suggested.
        function: of the parameters' values in this order, None for one that is not active.
        optimum: the smallest value.
    """

    space: tuple[Parameter, ...]
    function: Function
    optimum: float

    def value(self, params: Params) -> float:
        """Noise-free value of an assignment of the active parameters."""
        return self.function([params.get(parameter.name) for parameter in self.space])

    def draw(self, rng: random.Random) -> dict[str, Any]:
        """Uniform random assignment of the active parameters, uniform in the logarithm where a parameter is so."""
        params: dict[str, Any] = {}
        for parameter in self.space:
            if active(parameter, params):
                params[parameter.name] = _uniform(parameter.distribution, rng)
        return params


@dataclass(frozen=True)
class Objective:
    """A black-box objective.

    Attributes:
        name: unique.
        family: related objectives share it.
        kind: ``binary``, ``categorical`` or ``mixed``.
        citation: where the family was published.
        noise: standard deviation of the Gaussian noise, in units of the range of values under random search.
        build: from a seed, the instance.
    """

    name: str
    family: str
    kind: str
    citation: str
    noise: float
    build: Callable[[int], Instance]

    def instance(self, seed: int) -> Instance:
        """The instance of a study seed; kept, since some optima take a tenth of a second."""
        return _built(self, seed)

    def noise_deviation(self, seed: int) -> float:
        """Standard deviation of the noise of an instance, in units of its values."""
        return self.noise * random_search(self, seed).range if self.noise else 0.0


@dataclass(frozen=True)
class RandomSearch:
    """Values of an instance under random search: their 5% to 95% range, and their median."""

    range: float
    median: float


@lru_cache(maxsize=512)
def random_search(objective: Objective, seed: int) -> RandomSearch:
    """What random search meets on an instance, from 512 draws."""
    instance, rng = objective.instance(seed), random.Random(derive(seed, "random search", objective.name))
    values = [instance.value(instance.draw(rng)) for _ in range(DRAWS)]
    low, median, high = (float(found) for found in np.quantile(values, [0.05, 0.5, 0.95]))
    return RandomSearch(high - low, median)


def active(parameter: Parameter, params: Params) -> bool:
    """Whether a parameter exists beside those assigned before it."""
    if parameter.active_if is None:
        return True
    parent, value = parameter.active_if
    return parent in params and bool(params[parent] == value)


def rng_of(seed: int, family: str) -> np.random.Generator:
    """The generator that draws an instance."""
    return np.random.Generator(np.random.PCG64(derive(seed, "black box", family)))


def categorical(n: int, choices: int = 2, prefix: str = "x") -> tuple[Parameter, ...]:
    """``n`` parameters with choices 0, 1, ..."""
    return tuple(Parameter(f"{prefix}{i}", CategoricalDistribution(tuple(range(choices)))) for i in range(n))


def integers(n: int, low: int, high: int, prefix: str = "n") -> tuple[Parameter, ...]:
    """``n`` integer parameters, bounds included."""
    return tuple(Parameter(f"{prefix}{i}", IntDistribution(low, high)) for i in range(n))


def floats(n: int, low: float, high: float, *, log: bool = False, prefix: str = "r") -> tuple[Parameter, ...]:
    """``n`` float parameters."""
    return tuple(Parameter(f"{prefix}{i}", FloatDistribution(low, high, log=log)) for i in range(n))


@lru_cache(maxsize=512)
def _built(objective: Objective, seed: int) -> Instance:
    return objective.build(seed)


def _uniform(distribution: BaseDistribution, rng: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return rng.randint(distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    if distribution.log:
        found = float(np.exp(rng.uniform(np.log(distribution.low), np.log(distribution.high))))
        return min(max(found, distribution.low), distribution.high)
    return rng.uniform(distribution.low, distribution.high)
