"""The black-box objectives: optima are right, values are functions, the split is one."""

from __future__ import annotations

import itertools
import math
import random
from functools import partial
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import optimize

from benchmarks import black_box_binary as binary
from benchmarks import black_box_categorical as choices
from benchmarks import black_box_mixed as mixed
from benchmarks import black_box_second as second
from benchmarks.black_box import Instance, Objective, Parameter, active, random_search
from benchmarks.black_box_suite import ALL, HALVES, OBJECTIVES, SECOND_FINAL, SPLIT_SEED, drawn_split, half, split_file
from selfimprove.errors import ConfigError

SMALL: dict[str, Any] = {
    "nk": partial(binary.nk_landscape, n=8, k=2),
    "max-sat": partial(binary.max_sat, n=8, clauses=40),
    "labs": partial(binary.labs, n=10),
    "onemax": partial(binary.w_model, n=9, dummies=2, neutrality=2),
    "leadingones": partial(binary.w_model, n=8, epistasis=True, leading=True),
    "traps": partial(binary.traps, blocks=2, length=4),
    "knapsack": partial(binary.knapsack, n=10),
    "ising": partial(choices.glass, rows=3, width=3, states=2),
    "potts": partial(choices.glass, rows=3, width=2, states=3),
    "qubo": partial(choices.qubo, n=8),
    "contamination": partial(choices.contamination, stages=6),
    "pest control": partial(choices.pest_control, stages=4),
    "queens": partial(choices.queens, n=5),
    "ehrlich": partial(choices.ehrlich, length=6, states=3, motifs=2, size=3),
    "assignment": partial(choices.assignment, n=5),
    "hartmann": partial(mixed.hartmann, steps=3),
    "hiff": partial(second.hiff, levels=3),
    "royal road": partial(second.royal_road, blocks=3),
    "independent set": partial(second.independent_set, n=9),
    "set cover": partial(second.set_cover, n=9),
    "folding": partial(second.folding, length=8),
    "mastermind": partial(second.mastermind, n=5, colors=3),
    "tour": partial(second.tour, cities=6),
}
EVERY = (*ALL, *SECOND_FINAL)
MIXED = [objective for objective in EVERY if objective.kind == "mixed" and objective.family != "hartmann"]
LOOSE = {
    "rosenbrock-mixed": 4.0,
    "pressure-vessel": 0.1,
    "ackley-mixed": 1.5,
    "levy-mixed": 0.5,
    "griewank-mixed": 0.2,
    "ellipsoid-mixed-noisy": 7.0,
    "gear-train": 4.0,
}
"""What coordinate search may leave of a valley that is not along the axes, of waves, or of a needle."""


def every_value(instance: Instance) -> list[float]:
    distributions = [parameter.distribution for parameter in instance.space]
    axes = [d.choices if isinstance(d, CategoricalDistribution) else range(d.low, d.high + 1) for d in distributions]
    return [instance.function(x) for x in itertools.product(*axes)]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SMALL)
def test_the_optimum_of_a_discrete_objective_is_the_least_of_all_its_values(name: str, seed: int) -> None:
    instance = SMALL[name](seed)
    values = every_value(instance)
    assert min(values) == pytest.approx(instance.optimum, abs=1e-9)
    assert max(values) > instance.optimum


def test_the_energies_of_low_autocorrelation_sequences_are_the_published_ones() -> None:
    for n in (3, 5, 7, 11, 13):
        assert min(every_value(binary.labs(0, n=n))) == binary.LABS_OPTIMA[n]
    # twenty bits: the first is free, by symmetry
    spins = 1 - 2 * binary.all_bits(20)[::2].astype(np.int16)
    energy = sum((spins[:, lag:] * spins[:, :-lag]).sum(axis=1, dtype=np.int32) ** 2 for lag in range(1, 20))
    assert np.min(energy) == binary.LABS_OPTIMA[20]


@pytest.mark.parametrize("objective", MIXED, ids=lambda o: o.name)
def test_polishing_finds_the_optimum_of_a_mixed_objective_and_nothing_below(objective: Objective) -> None:
    """Coordinate search from many points: not far above, and never below."""
    instance = objective.instance(3)
    found = min(polished(instance, random.Random(seed)) for seed in range(8))
    assert found >= instance.optimum - 1e-7
    assert found <= instance.optimum + LOOSE.get(objective.name, 0.02)


def polished(instance: Instance, rng: random.Random) -> float:
    """Random points, then each coordinate in turn: all its values, or ever finer steps."""
    drawn = [instance.draw(rng) for _ in range(40)]
    start = min(drawn, key=instance.value)
    params = {name: value for one in (*drawn, start) for name, value in one.items()}  # those not active, too
    for fineness in (1.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001):
        for parameter in instance.space:
            tries = [{**params, parameter.name: value} for value in moves(parameter, params, fineness)]
            params = min([params, *tries], key=lambda one: instance.value(only_active(instance, one)))
    return instance.value(only_active(instance, params))


def only_active(instance: Instance, params: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for parameter in instance.space:
        if active(parameter, kept):
            kept[parameter.name] = params[parameter.name]
    return kept


def moves(parameter: Parameter, params: dict[str, Any], fineness: float) -> list[Any]:
    distribution: Any = parameter.distribution
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1))
    at, low, high = params[parameter.name], distribution.low, distribution.high
    if distribution.log:
        return [min(high, max(low, at * 10 ** (fineness * step / 10))) for step in range(-20, 21)]
    return [min(high, max(low, at + fineness * (high - low) * step / 40)) for step in range(-40, 41)]


def test_known_minimizers_reach_the_optima_of_the_test_functions() -> None:
    assert mixed.func([1, 1], 0.0898420131, -0.7126564030) == pytest.approx(0.2 * mixed.CAMEL_OPTIMUM, abs=1e-9)
    assert mixed.func([1, 1, 0], 0.0898420131, -0.7126564030) == pytest.approx(0.7 * mixed.CAMEL_OPTIMUM, abs=1e-9)
    assert mixed.func([0, 2], 1.0, 1.0) == pytest.approx((1.5**2 + 2.25**2 + 2.625**2) / 50)
    assert mixed.michalewicz_optimum(2, 10) == pytest.approx(-1.0, abs=1e-6)
    assert sum(mixed.michalewicz_optimum(i, 10) for i in range(1, 6)) == pytest.approx(-4.687658, abs=1e-6)
    assert mixed.hartmann_optimum(10) > -3.32237  # the continuous optimum


def test_the_best_known_vessel_has_the_published_cost() -> None:
    instance = mixed.pressure_vessel(0)
    best, bounds = (13, 7, 42.0984455958549, 176.6365958424394), ((1, 99), (1, 99), (10, 200), (10, 200))
    turned = itertools.product(*((v, low + high - v) for v, (low, high) in zip(best, bounds, strict=True)))
    costs = [instance.function((*x[:2], x[2] - 1e-9 * (x[2] < 100), x[3] + 1e-5)) for x in turned]
    assert min(costs) == pytest.approx(math.log10(6059.714335), abs=1e-5)
    assert min(costs) >= instance.optimum - 1e-9


def test_the_second_objectives_have_the_published_optima() -> None:
    weight, excess = second.gearbox((17, 3.5, 0.7, 7.3, 7.71532, 3.350215, 5.286654))
    assert weight == pytest.approx(2994.4711, abs=1e-3)
    assert excess < 1e-6
    assert math.log10(weight) == pytest.approx(second.REDUCER_OPTIMUM, abs=1e-6)
    assert 10 ** second.gear_train_optimum() == pytest.approx(2.700857e-12, rel=1e-6)
    assert second.shekel_optimum() == pytest.approx(-10.5364, abs=2e-4)  # that of four floats
    assert second.schwefel(0, whole=0, reals=1).optimum == pytest.approx(-418.9828872724)


@pytest.mark.parametrize("seed", range(3))
def test_the_bottom_of_the_ellipsoid_is_zero_and_where_its_integers_are_whole(seed: int) -> None:
    found = optimize.minimize(lambda x: math.expm1(second.ellipsoid(seed).function(x)), np.zeros(6), method="BFGS")
    assert found.fun == pytest.approx(0.0, abs=1e-6)
    assert found.x[:3] == pytest.approx(np.round(found.x[:3]), abs=1e-3)
    assert np.abs(found.x).max() <= 5


def test_a_fold_counts_contacts_and_never_lies_on_itself() -> None:
    right_angles, all_greasy = np.array([[2, 2, 0, 0, 1], [2, 2, 2, 2, 2]]), np.ones(7, bool)
    assert second._energies(right_angles, all_greasy).tolist() == [-2, 3]  # an S has two; round and round a square


@pytest.mark.parametrize("objective", EVERY, ids=lambda o: o.name)
def test_an_objective_is_a_function_with_a_source_and_no_value_below_its_optimum(objective: Objective) -> None:
    instance, rng = objective.instance(1), random.Random(0)
    drawn = [instance.draw(rng) for _ in range(200)]
    values = [instance.value(params) for params in drawn]
    assert values == [objective.build(1).value(params) for params in drawn[:2]] + [*map(instance.value, drawn[2:])]
    assert min(values) >= instance.optimum - 1e-9
    assert all(math.isfinite(value) for value in values)
    assert len(set(values)) > 4
    assert 4 <= len(instance.space) <= 30
    assert any(year in objective.citation for year in map(str, range(1950, 2026)))
    assert random_search(objective, 1).median > instance.optimum
    assert (objective.noise_deviation(1) > 0) == bool(objective.noise) == objective.name.endswith("noisy")


@pytest.mark.parametrize("objective", EVERY, ids=lambda o: o.name)
def test_each_seed_has_an_instance_of_its_own(objective: Objective) -> None:
    rng = random.Random(5)
    drawn = [objective.instance(0).draw(rng) for _ in range(60)]
    rows = {tuple(objective.instance(seed).value(params) for params in drawn) for seed in range(6)}
    assert len(rows) > 1


def test_there_are_enough_objectives_of_every_kind_of_parameter() -> None:
    spaces = [parameter for objective in ALL for parameter in objective.instance(0).space]
    assert len(ALL) >= 18
    assert len({o.name for o in ALL}) == len(ALL)
    assert sum(o.noise > 0 for o in ALL) >= 5
    assert any(isinstance(p.distribution, FloatDistribution) and p.distribution.log for p in spaces)
    assert any(isinstance(p.distribution, IntDistribution) for p in spaces)
    assert any(p.active_if for p in spaces)


def test_a_parameter_that_is_not_active_does_not_exist() -> None:
    instance, rng = OBJECTIVES["tree"].instance(0), random.Random(0)
    assert {len(instance.draw(rng)) for _ in range(20)} == {4}


def test_the_split_is_the_one_that_was_drawn_and_holds_every_objective_once() -> None:
    found = split_file()
    assert {name: found[name] for name in HALVES} == drawn_split(ALL, SPLIT_SEED)
    assert found["seed"] == SPLIT_SEED
    assert sorted(found["development"] + found["final"]) == sorted(o.name for o in ALL)


def test_no_family_is_in_two_parts_and_each_part_has_every_kind_and_noise() -> None:
    parts = [half(name) for name in (*HALVES, "second")]
    assert len({o.name for part in parts for o in part}) == sum(map(len, parts)) == len(OBJECTIVES)
    for one, other in itertools.combinations(parts, 2):
        assert not {o.family for o in one} & {o.family for o in other}
    for part in parts:
        assert {o.kind for o in part} == {"binary", "categorical", "mixed"}
        assert sum(o.noise > 0 for o in part) >= 3


def test_an_unknown_half_is_refused() -> None:
    with pytest.raises(ConfigError, match="development or final or second"):
        half("both")
