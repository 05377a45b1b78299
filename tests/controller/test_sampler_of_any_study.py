"""Studies as users have them: failures, pruning, constraints, changing ranges, many trials, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from selfimprove.controller import ControllerSampler
from selfimprove.controller.forecaster import load
from selfimprove.controller.trials import ATTRIBUTE, places

MODEL = load()
Objective = Callable[[optuna.Trial], float]


def study_of(seed: int = 0, startup: int = 10, **more: Any) -> optuna.Study:
    return optuna.create_study(sampler=ControllerSampler(seed=seed, n_startup_trials=startup, forecaster=MODEL), **more)


def test_a_number_that_only_some_trials_have_may_be_all_that_differs() -> None:
    """No point is as far from all others on a line, squared: the smooth experts' covariances had no factor."""

    def objective(trial: optuna.Trial) -> float:
        value = float(sum("abcd".index(trial.suggest_categorical(f"c{at}", list("abcd"))) for at in range(6)))
        return (
            value + (trial.suggest_float("w", 0, 1) - 0.4) ** 2 if trial.suggest_categorical("extra", [0, 1]) else value
        )

    study = study_of()
    study.optimize(objective, n_trials=45)
    assert study.best_value < 0.01


def cells() -> Iterator[tuple[int, int]]:
    yield from product(range(6), range(4))


@pytest.mark.parametrize("end", [RuntimeError("a failure"), optuna.TrialPruned()], ids=["failed", "pruned"])
def test_the_best_cell_is_not_asked_for_again_where_it_has_no_outcome(end: Exception) -> None:
    asked: list[tuple[int, int]] = []

    def objective(trial: optuna.Trial) -> float:
        a, b = trial.suggest_int("a", 0, 5), trial.suggest_int("b", 0, 3)
        asked.append((a, b))
        if (a, b) == (2, 1):
            raise end
        return float((a - 2) ** 2 + (b - 1) ** 2)

    study_of(startup=4).optimize(objective, n_trials=24, catch=(RuntimeError,))
    assert len(set(asked[4:])) == len(asked[4:]), "each cell once"
    assert (2, 1) in asked


def test_pruned_trials_count_as_trials_and_steer_it_away() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.report(x, step=0)
        if x > 0.3:
            raise optuna.TrialPruned
        return x

    study = study_of(startup=5)
    study.optimize(objective, n_trials=25)
    pruned = [trial.state == TrialState.PRUNED for trial in study.trials]
    assert sum(pruned[:5]) >= 3, "as it starts, most are"
    assert sum(pruned[5:]) <= 3


def test_a_trial_that_was_pruned_before_it_had_a_parameter_takes_none_from_the_others() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.number == 0:
            raise optuna.TrialPruned
        return sum(trial.suggest_float(name, -1, 1) ** 2 for name in "xyz")

    study = study_of()
    study.optimize(objective, n_trials=30)
    assert set(study.ask().relative_params) == set("xyz")
    assert study.best_value < 0.01


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_outcomes_stand_in_the_order_that_optuna_has(direction: str) -> None:
    sign = 1 if direction == "minimize" else -1
    has = {"distributions": {"x": FloatDistribution(0, 1)}, "params": {"x": 0.5}}
    trials = [
        create_trial(value=sign * 1.0, **has),
        create_trial(value=sign * 2.0, **has),
        create_trial(value=sign * float("inf"), **has),
        create_trial(state=TrialState.PRUNED, intermediate_values={0: sign * 0.0, 3: sign * 5.0}, **has),
        create_trial(state=TrialState.PRUNED, intermediate_values={3: sign * 6.0}, **has),
        create_trial(state=TrialState.PRUNED, intermediate_values={1: sign * 0.0}, **has),
        create_trial(state=TrialState.PRUNED, intermediate_values={1: float("nan")}, **has),
        create_trial(state=TrialState.PRUNED, **has),
        create_trial(value=sign * -9.0, constraints={"c": 0.5, "d": -3.0}, **has),
        create_trial(value=sign * -9.0, constraints={"c": 0.5, "d": 0.1}, **has),
    ]
    shuffled = np.random.default_rng(0).permutation(len(trials))
    found = places([trials[at] for at in shuffled], optuna.create_study(direction=direction).direction)
    assert found.tolist() == shuffled.tolist()
    assert places([trials[0], trials[1], trials[0]], optuna.create_study(direction=direction).direction).tolist() == [
        0,
        1,
        0,
    ]


def test_constraints_are_kept() -> None:
    def objective(trial: optuna.Trial) -> float:
        a, b = trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)
        trial.set_constraint("a is at least a half", 0.5 - a)
        return a + (b - 0.5) ** 2

    study = study_of()
    study.optimize(objective, n_trials=40)
    kept = [trial.params["a"] >= 0.5 for trial in study.trials[10:]]
    assert np.mean(kept) > 0.5
    assert min(trial.value for trial in study.trials if trial.params["a"] >= 0.5) < 0.53


def moved(study: optuna.Study, ranges: dict[str, tuple[float, float]], trials: int) -> list[dict[str, Any]]:
    def objective(trial: optuna.Trial) -> float:
        return sum(trial.suggest_float(name, *ends) ** 2 for name, ends in ranges.items())

    study.optimize(objective, n_trials=trials)
    return [trial.params for trial in study.trials[-trials:]]


def test_a_narrower_range_goes_on_from_what_is_known_of_the_wider_one() -> None:
    study = study_of()
    moved(study, dict.fromkeys("xyz", (-5.0, 5.0)), 20)
    after = moved(study, dict.fromkeys("xyz", (-1.0, 1.0)), 12)
    assert set(study.ask().relative_params) == set("xyz"), "none is left to chance"
    assert min(sum(value**2 for value in params.values()) for params in after) < 0.05
    assert all(max(map(abs, params.values())) <= 1 for params in after)


def test_a_range_that_moved_is_searched_not_drawn_from() -> None:
    study = study_of()
    moved(study, {"x": (-1.0, 1.0)}, 12)
    after = [params["x"] for params in moved(study, {"x": (2.0, 3.0)}, 10)]
    assert np.mean(np.array(after[2:]) < 2.2) > 0.5, "the lower end is best"


def test_one_enqueued_value_from_outside_does_not_end_the_search() -> None:
    study = study_of()
    study.enqueue_trial({"x": 1.5})
    with pytest.warns(UserWarning, match="out of range"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.4) ** 2, n_trials=30)
    assert np.median([abs(trial.params["x"] - 0.4) for trial in study.trials[15:]]) < 0.1


def test_new_points_are_new_among_more_trials_than_are_read() -> None:
    choices = tuple(range(600))
    study, space = study_of(), {"c": CategoricalDistribution(choices)}
    tried = np.random.default_rng(0).permutation(600)[:500].tolist()
    study.add_trials([create_trial(params={"c": c}, distributions=space, value=float(c % 7)) for c in tried])
    study.optimize(lambda trial: float(trial.suggest_categorical("c", choices) % 7), n_trials=8)
    assert not {trial.params["c"] for trial in study.trials[500:]} & set(tried)


def apart(seed: int) -> float:
    """Median distance of eight trials side by side, where several places are as good."""
    study, space = study_of(seed), {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    for _ in range(12):
        trial = study.ask(space)
        study.tell(trial, float(np.sin(20 * trial.params["x"]) * np.cos(17 * trial.params["y"])))
    rows = np.array([list(study.ask(space).params.values()) for _ in range(8)])
    return float(np.median(np.abs(rows[:, None] - rows[None]).sum(-1)[np.triu_indices(8, 1)]))


def test_trials_side_by_side_do_not_all_bet_on_one_place() -> None:
    assert np.median([apart(seed) for seed in range(3)]) > 0.06


@pytest.mark.parametrize("looks", range(1, 6))
def test_a_trial_that_ends_while_another_one_is_asked_for_is_still_known(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with threads: of four cells two were tried, one is, and its trial ends after some look at the study."""
    study, space = study_of(startup=1), {"a": IntDistribution(0, 1), "b": IntDistribution(0, 1)}
    for b in (0, 1):
        study.add_trial(create_trial(params={"a": 0, "b": b}, distributions=space, value=float(b)))
    study.enqueue_trial({"a": 1, "b": 0})
    running, look, looked = study.ask(space), study.get_trials, list[int]()

    def seen(*arguments: Any, **named: Any) -> Any:
        found = look(*arguments, **named)
        looked.append(len(found))
        if len(looked) == looks:
            study.tell(running, 0.0)
        return found

    monkeypatch.setattr(study, "get_trials", seen)
    assert study.ask().relative_params == {"a": 1, "b": 1}


def test_what_is_enqueued_counts_with_the_values_that_it_will_have() -> None:
    study, space = study_of(startup=1), {"a": IntDistribution(0, 1), "b": IntDistribution(0, 1)}
    for b in (0, 1):
        study.add_trial(create_trial(params={"a": 0, "b": b}, distributions=space, value=float(b)))
    study.enqueue_trial({"a": 1, "b": 0})
    waiting = study.ask()
    waiting.relative_params  # noqa: B018  asked for what it will not use
    assert study.ask().relative_params == {"a": 1, "b": 1}


def test_a_trial_that_has_not_taken_up_its_values_is_known_by_what_it_was_told() -> None:
    """Also to another sampler of the study, as in another process."""
    study = study_of(startup=1)
    many = {f"c{at:03d}": CategoricalDistribution((0, 1)) for at in range(200)}
    told = study.ask(many)
    study.tell(told, 0.0)
    open_one = study.ask()  # as in a thread that was asked and has suggested nothing yet
    expected = open_one.relative_params
    kept = study._storage.get_trial(open_one._trial_id).system_attrs
    assert f"{ATTRIBUTE}:1" in kept, "longer than one attribute may be"
    assert all(len(text) <= 2045 for name, text in kept.items() if name.startswith(ATTRIBUTE))
    assert len(expected) == 200

    grid = study_of(startup=1)
    space = {"a": IntDistribution(0, 1), "b": IntDistribution(0, 2)}
    grid.tell(grid.ask(space), 0.0)
    waiting = []
    for _ in range(5):
        grid.sampler = ControllerSampler(seed=0, n_startup_trials=1, forecaster=MODEL)
        waiting.append(tuple(sorted(grid.ask().relative_params.items())))
    assert len(set(waiting)) == 5, "six cells, one of them told"


def test_what_was_announced_may_be_cut_short_or_of_parameters_no_more() -> None:
    study = study_of(startup=1)
    study.tell(study.ask({"a": IntDistribution(0, 30)}), 0.0)
    for text in ('{"a": 1', '{"gone": 1.0}'):
        other = study.ask()
        assert other.relative_params
        study._storage.set_trial_system_attr(other._trial_id, f"{ATTRIBUTE}:0", text)
    assert set(study.ask().relative_params) == {"a"}


@pytest.mark.parametrize(
    "distribution",
    [IntDistribution(0, 2**63), IntDistribution(-(2**62), 2**62 - 2, step=3), FloatDistribution(0, 1e10, step=1e-10)],
    ids=["int", "stepped int", "stepped float"],
)
def test_a_range_may_have_more_values_than_a_float_tells_apart(
    distribution: IntDistribution | FloatDistribution,
) -> None:
    study = study_of(startup=3)
    for _ in range(8):
        trial = study.ask({"n": distribution})
        study.tell(trial, abs(trial.params["n"] / distribution.high - 0.5))
    assert all(distribution._contains(trial.params["n"]) for trial in study.trials)
