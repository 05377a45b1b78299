"""Three baselines as Optuna samplers: regularized evolution, hill climbing with restarts, and REINFORCE.

Each handles categorical, integer and float parameters and conditional spaces, one trial at a time, one objective. A
parameter that the parent of a proposal does not have is drawn at random.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

STEP = 0.2  # standard deviation of a mutated number, in units of its range


def uniform(distribution: BaseDistribution, rng: random.Random) -> Any:
    """A value drawn uniformly, or uniformly in the logarithm where the distribution says so."""
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    return placed(rng.random(), distribution)


def placed(unit: float, distribution: BaseDistribution) -> float | int:
    """The number at a place between 0 and 1 of its range; each integer holds an equal share of a linear range."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    whole = isinstance(distribution, IntDistribution)
    low, high = (distribution.low - 0.5, distribution.high + 0.5) if whole else (distribution.low, distribution.high)
    if distribution.log:
        low, high = math.log(low), math.log(high)
    found = low + unit * (high - low)
    found = math.exp(found) if distribution.log else found
    if distribution.step:
        found = distribution.low + round((found - distribution.low) / distribution.step) * distribution.step
    found = min(max(found, distribution.low), distribution.high)
    return int(found) if whole else float(found)


def place(value: float, distribution: BaseDistribution) -> float:
    """Where a number lies in its range, between 0 and 1: what ``placed`` undoes."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    whole = isinstance(distribution, IntDistribution)
    low, high = (distribution.low - 0.5, distribution.high + 0.5) if whole else (distribution.low, distribution.high)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


def mutated(value: Any, distribution: BaseDistribution, rng: random.Random) -> Any:
    """Another category, or a number nearby that differs; the same value only where there is no other."""
    if distribution.single():
        return value
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice([choice for choice in distribution.choices if choice != value])
    while True:
        unit = place(value, distribution) + rng.gauss(0, STEP)
        found = placed(min(max(unit, 0.0), 1.0), distribution)
        if found != value:
            return found


def losses(study: Study, trials: Sequence[FrozenTrial]) -> list[float]:
    """Values of the trials, smaller is better."""
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    return [sign * float(trial.value) for trial in trials if trial.value is not None]


class _Independent(BaseSampler, ABC):
    """A sampler that draws each parameter when it is asked for."""

    def __init__(self, *, seed: int | None = None, n_startup_trials: int = 10) -> None:
        self._rng = random.Random(seed)
        self._startup = n_startup_trials

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def reseed_rng(self) -> None:
        self._rng.seed()


class _Mutating(_Independent):
    """A sampler that mutates one parameter of an earlier trial."""

    _parent: FrozenTrial | None = None
    _name = ""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._parent = self.parent(study, done) if len(done) >= self._startup else None
        if self._parent is not None:
            names = [name for name, known in self._parent.distributions.items() if not known.single()]
            self._name = self._rng.choice(names or [""])

    @abstractmethod
    def parent(self, study: Study, done: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """The trial to mutate; None for a random one."""

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._parent is None or param_name not in self._parent.params:
            return uniform(param_distribution, self._rng)
        value = self._parent.params[param_name]
        return mutated(value, param_distribution, self._rng) if param_name == self._name else value


class RegularizedEvolution(_Mutating):
    """Aging evolution: the best of a random tournament among the youngest trials is mutated.

    After Real et al. 2019, Regularized Evolution for Image Classifier Architecture Search (arXiv 1802.01548), with
    one mutated parameter a child.

    Args:
        seed: of its draws.
        n_startup_trials: random trials that come first.
        population: the youngest trials, which alone may be parents.
        tournament: how many of them compete.
    """

    def __init__(
        self, *, seed: int | None = None, n_startup_trials: int = 10, population: int = 20, tournament: int = 5
    ) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials)
        self._population, self._tournament = population, tournament

    def parent(self, study: Study, done: Sequence[FrozenTrial]) -> FrozenTrial | None:
        alive = done[-self._population :]
        values = losses(study, alive)
        drawn = self._rng.sample(range(len(alive)), min(self._tournament, len(alive)))
        return alive[min(drawn, key=lambda i: (values[i], -i))] if drawn else None


class HillClimbing(_Mutating):
    """Mutates the best trial since the last restart; restarts at random where nothing got better for a while.

    Args:
        seed: of its draws.
        n_startup_trials: random trials that come first, the best of which is climbed from.
        patience: trials in a row without a better one before a restart.
    """

    def __init__(self, *, seed: int | None = None, n_startup_trials: int = 10, patience: int = 30) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials)
        self._patience, self._first = patience, 0

    def parent(self, study: Study, done: Sequence[FrozenTrial]) -> FrozenTrial | None:
        climb = losses(study, done[self._first :])
        if not climb:
            return None
        best = min(range(len(climb)), key=climb.__getitem__)
        begun = best + 1 if self._first else max(best + 1, self._startup)
        if len(climb) - begun >= self._patience:
            self._first = len(done)
            return None
        return done[self._first + best]


class Reinforce(_Independent):
    """Policy gradient on independent categorical policies, one a parameter, with a moving baseline.

    After Williams 1992, Machine Learning 8:229. Numbers are cut into bins, within which they are drawn uniformly. The
    advantage is divided by a moving deviation, so that the learning rate has no unit.

    Args:
        seed: of its draws.
        n_startup_trials: random trials that come first; the policy learns from them as well.
        rate: learning rate of the logits.
        bins: for numbers that have more values.
        memory: decay of the moving mean and deviation.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        n_startup_trials: int = 10,
        rate: float = 0.2,
        bins: int = 10,
        memory: float = 0.9,
    ) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials)
        self._rate, self._bins, self._memory = rate, bins, memory
        self._logits: dict[str, NDArray[np.float64]] = {}
        self._mean: float | None = None
        self._variance, self._seen = 0.0, 0

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self._seen < self._startup:
            return uniform(param_distribution, self._rng)
        policy = self._policy(param_name, param_distribution)
        bin_ = self._rng.choices(range(policy.size), policy.tolist())[0]
        if isinstance(param_distribution, CategoricalDistribution):
            return param_distribution.choices[bin_]
        return placed((bin_ + self._rng.random()) / policy.size, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if state != TrialState.COMPLETE or values is None:
            return
        loss = -values[0] if study.direction == StudyDirection.MAXIMIZE else values[0]
        self._seen += 1
        if self._mean is None:
            self._mean = loss
            return
        surprise = loss - self._mean
        keep = min(self._memory, 1 - 1 / self._seen)  # a plain mean at first
        self._variance = keep * self._variance + (1 - keep) * surprise**2
        self._mean += (1 - keep) * surprise
        if self._variance > 0:
            self._learn(trial, -surprise / math.sqrt(self._variance))

    def _learn(self, trial: FrozenTrial, advantage: float) -> None:
        for name, value in trial.params.items():
            policy = self._policy(name, trial.distributions[name])
            gradient = -policy
            gradient[self._bin(value, trial.distributions[name], policy.size)] += 1
            self._logits[name] += self._rate * advantage * gradient

    def _policy(self, name: str, distribution: BaseDistribution) -> NDArray[np.float64]:
        if name not in self._logits:
            if isinstance(distribution, CategoricalDistribution):
                size = len(distribution.choices)
            elif isinstance(distribution, IntDistribution):
                size = min(self._bins, (distribution.high - distribution.low) // distribution.step + 1)
            else:
                size = self._bins
            self._logits[name] = np.zeros(size)
        weights = np.exp(self._logits[name] - self._logits[name].max())
        found: NDArray[np.float64] = weights / weights.sum()
        return found

    def _bin(self, value: Any, distribution: BaseDistribution, size: int) -> int:
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices.index(value)
        return min(int(place(value, distribution) * size), size - 1)
