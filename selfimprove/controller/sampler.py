"""The forecaster, a controller, as a sampler for any Optuna study.

    import optuna
    from selfimprove.controller import ControllerSampler

    study = optuna.create_study(sampler=ControllerSampler(seed=0))
    study.optimize(objective, n_trials=150)

Each proposal is the point, of several hundred, from which the forecaster expects the largest improvement over the best
trial (Jones et al. 1998). It knows nothing of an objective but its trials: what was learned before is how trials of
synthetic objectives foretell each other. See ``selfimprove.controller.forecaster``.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from threadpoolctl import threadpool_limits

from selfimprove.controller.encoding import Encoding
from selfimprove.controller.experts import ranks
from selfimprove.controller.forecaster import Forecaster, load
from selfimprove.controller.search import believing, consider
from selfimprove.controller.trials import announce, finished, places, without_outcome
from selfimprove.errors import ConfigError

SEEDS = 2**32  # that numpy's random states take
MOST = 200  # trials that are read: the best half of them and the newest, where there are more
WAITING = 64  # points without an outcome that are read beside them: the newest
_ONE_AT_A_TIME = Lock()  # of a study's threads: the limit on BLAS is the process's, and two would undo each other's

Array = NDArray[np.float64]


class ControllerSampler(BaseSampler):
    """Proposes what a meta-trained transformer expects the largest improvement from.

    Works on floats, integers and categories, on a log scale and in steps, and on conditional parameters: a point is
    expected to have those that the trial most like it had. Of a parameter whose range changes, the newest range counts,
    and older trials keep their place beside it. Outcomes are read in their order alone: a pruned trial comes after all
    that were completed, one that broke a constraint (``Trial.set_constraint``) after those. Points that run or failed
    are read as if they had come out as expected, so that trials side by side spread (Ginsbourger, Le Riche and Carraro
    2010), and are not asked for again; with some of them a proposal takes about 1.6 times as long. To say that what
    fails is bad, return infinity or raise ``TrialPruned``.

    Args:
        seed: of the random draws, below 2**32; None: another one each time.
        n_startup_trials: completed or pruned trials before the first proposal; until then points are drawn at random.
        forecaster: a model other than the one that comes with the package.

    Raises:
        ConfigError: a seed out of its range.
    """

    def __init__(
        self, *, seed: int | None = None, n_startup_trials: int = 10, forecaster: Forecaster | None = None
    ) -> None:
        if n_startup_trials < 0:
            raise ValueError(f"n_startup_trials: got {n_startup_trials}; at least 0")
        if seed is not None and not 0 <= seed < SEEDS:
            raise ConfigError("ControllerSampler seed", seed, f"0 to {SEEDS - 1}, or None", "choose another one")
        self._rng = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._startup = n_startup_trials
        self._forecaster = forecaster or load()

    def reseed_rng(self) -> None:
        """Another random state, for a copy of this sampler that runs beside it."""
        self._rng = np.random.default_rng()
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters of the finished trials, as the newest of them had each, without those of only one value."""
        space = {name: distribution for one in finished(study) for name, distribution in one.distributions.items()}
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the parameters that the trial is expected to have; none where there are too few trials yet.

        Raises:
            ValueError: the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        encoding = Encoding(search_space)
        with _ONE_AT_A_TIME, threadpool_limits(1):  # products this small are slower on several threads
            waiting = encoding.encode(list(without_outcome(study, trial, search_space)))
            trials = finished(study)  # read last: a trial that ends in between is in both, and in neither otherwise
            if len(trials) < max(self._startup, 1):
                return {}
            order, points = places(trials, study.direction), encoding.encode([one.params for one in trials])
            seen, read = np.concatenate([points, waiting]), _read(order)
            points, z = points[read], ranks(order[read])
            forecast = believing(self._forecaster, points, z, waiting[-WAITING:], encoding.ordered)
            asked, worth = consider(encoding, forecast, points, seen, self._rng)
            values = encoding.decode(asked[int(np.argmax(worth))])
            announce(study, trial, values, search_space)
        return values

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        self._raise_error_if_multi_objective(study)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Nothing, but for the random draws."""
        self._independent.before_trial(study, trial)


def _read(order: Array) -> NDArray[np.int64]:
    """Which trials are read, the oldest first: at most ``MOST``, the best ones and the newest."""
    best = np.argsort(order, kind="stable")[: MOST // 2]
    others = np.setdiff1d(np.arange(len(order)), best)[-(MOST - len(best)) :]
    return np.sort(np.concatenate([best, others]))
