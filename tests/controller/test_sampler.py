"""The controller as an Optuna sampler: Optuna's own suite, what it does to a study, and what it must not need."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Semaphore

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState

from selfimprove.controller import ControllerSampler
from selfimprove.controller.forecaster import Forecast, Forecaster, load
from selfimprove.errors import ConfigError

MODEL = load()  # once: the suite makes a sampler for every case


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ControllerSampler(seed=0, forecaster=MODEL)


class TestRelative(RelativeSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ControllerSampler(seed=0, n_startup_trials=0, forecaster=MODEL)


class TestSingleOnly(SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ControllerSampler(seed=0, forecaster=MODEL)


def bowl(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", -1, 1)
    n = trial.suggest_int("n", 0, 20)
    kind = trial.suggest_categorical("kind", ["a", "b", "c", "d"])
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    return (x - 0.3) ** 2 + (n - 7) ** 2 / 100 + "cadb".index(kind) / 2 + (np.log10(rate) + 2) ** 2 / 4


def branches(trial: optuna.Trial) -> float:
    if trial.suggest_categorical("left", [True, False]):
        return 1.0 + (trial.suggest_float("y", 0, 1) - 0.2) ** 2
    return (trial.suggest_float("z", 0, 1) - 0.8) ** 2


def best(sampler: BaseSampler, objective: Callable[[optuna.Trial], float], trials: int) -> float:
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return study.best_value


@pytest.mark.parametrize("objective", [bowl, branches])
def test_it_finds_better_points_than_random_search(objective: Callable[[optuna.Trial], float]) -> None:
    ours = [best(ControllerSampler(seed=seed, forecaster=MODEL), objective, 40) for seed in range(3)]
    random = [best(optuna.samplers.RandomSampler(seed=seed), objective, 40) for seed in range(3)]
    assert max(ours) < min(random)


def test_what_is_maximized_is_minimized_upside_down() -> None:
    down = optuna.create_study(sampler=ControllerSampler(seed=1, forecaster=MODEL))
    down.optimize(bowl, n_trials=15)
    up = optuna.create_study(sampler=ControllerSampler(seed=1, forecaster=MODEL), direction="maximize")
    up.optimize(lambda trial: -bowl(trial), n_trials=15)
    assert [one.params for one in up.trials] == [one.params for one in down.trials]


def test_the_scale_of_an_objective_is_no_matter() -> None:
    found = []
    for scale in (1.0, 1e9):
        study = optuna.create_study(sampler=ControllerSampler(seed=1, forecaster=MODEL))
        study.optimize(lambda trial, scale=scale: scale * bowl(trial) + scale, n_trials=15)
        found.append([one.params for one in study.trials])
    assert found[0] == found[1]


def test_one_seed_gives_one_study() -> None:
    runs = []
    for seed in (3, 3, 4):
        study = optuna.create_study(sampler=ControllerSampler(seed=seed, forecaster=MODEL))
        study.optimize(bowl, n_trials=14)
        runs.append([one.params for one in study.trials])
    assert runs[0] == runs[1] != runs[2]


def test_a_point_is_not_tried_twice_while_there_are_others() -> None:
    study = optuna.create_study(sampler=ControllerSampler(seed=0, n_startup_trials=1, forecaster=MODEL))
    study.optimize(lambda t: t.suggest_int("a", 0, 3) + t.suggest_categorical("b", [0, 1, 2]), n_trials=12)
    assert len({tuple(one.params.items()) for one in study.trials}) == 12
    study.optimize(lambda t: t.suggest_int("a", 0, 3) + t.suggest_categorical("b", [0, 1, 2]), n_trials=2)
    assert len(study.trials) == 14, "and goes on when nothing else is left"


def test_trials_that_failed_or_are_infinite_do_not_stop_it() -> None:
    values = iter([1.0, float("inf"), 2.0, float("-inf"), 3.0] * 10)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        if trial.number % 7 == 5:
            raise RuntimeError("a failure")
        return next(values)

    study = optuna.create_study(sampler=ControllerSampler(seed=0, n_startup_trials=3, forecaster=MODEL))
    study.optimize(objective, n_trials=20, catch=(RuntimeError,))
    assert sum(one.state == TrialState.FAIL for one in study.trials) == 3


def test_trials_side_by_side_are_at_different_points() -> None:
    study = optuna.create_study(sampler=ControllerSampler(seed=0, n_startup_trials=5, forecaster=MODEL))
    space = {f"p{index}": optuna.distributions.CategoricalDistribution((0, 1)) for index in range(4)}
    for _ in range(6):
        trial = study.ask(space)
        study.tell(trial, sum(trial.params.values()))
    asked = [study.ask(space) for _ in range(5)]
    assert len({tuple(sorted(one.params.items())) for one in asked}) == 5


def test_it_reads_a_long_study_and_says_what_is_wrong_with_an_argument() -> None:
    study = optuna.create_study(sampler=ControllerSampler(seed=0, forecaster=MODEL))
    rng = np.random.default_rng(0)
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study.add_trials([
        optuna.trial.create_trial(params={"x": x}, distributions=space, value=(x - 0.5) ** 2)
        for x in rng.random(600).tolist()
    ])  # fmt: skip
    study.optimize(lambda t: (t.suggest_float("x", 0, 1) - 0.5) ** 2, n_trials=2)
    assert all(abs(one.params["x"] - 0.5) < 0.05 for one in study.trials[600:]), "and knows what is good"
    with pytest.raises(ValueError, match="n_startup_trials: got -1; at least 0"):
        ControllerSampler(n_startup_trials=-1)


def test_an_untrained_forecaster_believes_the_experts() -> None:
    """What it starts as is what no forecaster at all gives, point by point."""
    points = np.random.default_rng(0).random((12, 3))

    z, ordered = np.sort(np.random.default_rng(1).normal(size=12)), np.ones(3, dtype=bool)
    asked = np.random.default_rng(2).random((70, 3))
    with_model = Forecast(Forecaster(), points, z, ordered).improvement(asked)
    without = Forecast(None, points, z, ordered).improvement(asked)
    np.testing.assert_allclose(with_model, without, rtol=1e-5)


def test_the_trusted_side_of_the_loop_needs_neither_torch_nor_optuna_for_it() -> None:
    code = (
        "import sys, selfimprove.controller.random_search as _; sys.exit(bool({'torch', 'optuna'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_threads_of_a_study_propose_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    busy = Semaphore(1)

    @contextmanager
    def limited(threads: int) -> Iterator[None]:
        at_once.append(not busy.acquire(blocking=False))
        time.sleep(0.02)
        yield
        busy.release()

    monkeypatch.setattr("selfimprove.controller.sampler.threadpool_limits", limited)
    study = optuna.create_study(sampler=ControllerSampler(seed=0, n_startup_trials=2, forecaster=MODEL))
    study.optimize(bowl, n_trials=12, n_jobs=4)
    assert at_once
    assert not any(at_once)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_its_range_is_refused_by_name(seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"ControllerSampler seed: got {seed}; allowed: 0 to 4294967295, or None"):
        ControllerSampler(seed=seed, forecaster=MODEL)
