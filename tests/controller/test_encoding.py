"""Points of a search space as numbers: back and forth, drawn evenly, and with what they lack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from selfimprove.controller.candidates import change, conform, unseen
from selfimprove.controller.encoding import Encoding

DISTRIBUTIONS: dict[str, tuple[BaseDistribution, list[Any]]] = {
    "float": (FloatDistribution(-2.0, 3.0), [-2.0, 0.5, 3.0]),
    "stepped": (FloatDistribution(0.0, 1.0, step=0.25), [0.0, 0.25, 1.0]),
    "log": (FloatDistribution(1e-4, 1.0, log=True), [1e-4, 1e-2, 1.0]),
    "int": (IntDistribution(3, 9, step=2), [3, 5, 7, 9]),
    "log int": (IntDistribution(1, 100, log=True), [1, 7, 100]),
    "choice": (CategoricalDistribution(("a", None, 3)), ["a", None, 3]),
    "single": (IntDistribution(4, 4), [4]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_what_is_encoded_is_decoded_to_itself(name: str) -> None:
    distribution, values = DISTRIBUTIONS[name]
    encoding = Encoding({name: distribution})
    rows = encoding.encode([{name: value} for value in values])
    assert [encoding.decode(row)[name] for row in rows] == pytest.approx(values)
    np.testing.assert_allclose(encoding.snap(rows), rows, atol=1e-12)


@pytest.mark.parametrize("name", ["int", "stepped", "choice"])
def test_values_are_drawn_equally_often_those_at_the_ends_too(name: str) -> None:
    distribution, _ = DISTRIBUTIONS[name]
    encoding = Encoding({name: distribution})
    drawn = encoding.uniform(4000, np.random.default_rng(0))[:, 0]
    kinds, counts = np.unique(drawn, return_counts=True)
    assert len(kinds) == encoding.levels[0]
    assert counts.min() > 0.85 * 4000 / len(kinds)


def test_what_a_trial_lacks_is_nan_and_is_not_decoded() -> None:
    encoding = Encoding({"x": FloatDistribution(0.0, 1.0), "y": IntDistribution(0, 3)})
    rows = encoding.encode([{"y": 3}, {"x": 0.5}])
    np.testing.assert_array_equal(np.isnan(rows), [[True, False], [False, True]])
    assert [encoding.decode(row) for row in rows] == [{"y": 3}, {"x": 0.5}]


def test_a_value_from_outside_keeps_its_side_and_is_decoded_to_the_end_of_the_range() -> None:
    encoding = Encoding({"rate": FloatDistribution(1e-2, 1.0, log=True), "x": FloatDistribution(0.0, 2.0)})
    rows = encoding.encode([{"rate": 1e-3, "x": 3.0}, {"rate": 0.0, "x": -1e300}])
    np.testing.assert_allclose(rows, [[-0.5, 1.5], [-1.0, -1.0]])
    assert [encoding.decode(row) for row in rows] == [
        {"rate": pytest.approx(1e-2), "x": 2.0},
        {"rate": pytest.approx(1e-2), "x": 0.0},
    ]


def test_changed_points_are_points_of_the_space_and_differ_from_what_they_were() -> None:
    encoding = Encoding({name: distribution for name, (distribution, _) in DISTRIBUTIONS.items() if name != "single"})
    rng = np.random.default_rng(0)
    good = encoding.uniform(3, rng)
    changed = change(encoding, good, 200, rng)
    np.testing.assert_allclose(encoding.snap(changed), changed, atol=1e-12)
    assert len(unseen(changed, good)) > 150


def test_a_point_lacks_what_the_trial_most_like_it_lacked() -> None:
    encoding = Encoding(
        {"kind": CategoricalDistribution((0, 1)), "y": FloatDistribution(0, 1), "z": FloatDistribution(0, 1)}
    )
    trials = encoding.encode([{"kind": 0, "y": 0.1}, {"kind": 1, "z": 0.9}])
    points = encoding.encode([{"kind": 1, "y": 0.1, "z": 0.1}, {"kind": 0, "y": 0.5, "z": 0.5}])
    found = [encoding.decode(row) for row in conform(encoding, points, trials)]
    assert found == [{"kind": 1, "z": 0.1}, {"kind": 0, "y": 0.5}]


def test_a_condition_may_hang_on_another() -> None:
    names = {"root": 2, "branch": 2, "leaf_0": 3, "leaf_1": 3, "twig": 2}
    choices = {name: CategoricalDistribution(tuple(range(count))) for name, count in names.items()}
    encoding = Encoding({"rate": FloatDistribution(0, 1), **choices})
    trials = encoding.encode(
        [
            {"rate": 0.5, "root": 0, "branch": 0, "leaf_0": 0},
            {"rate": 0.9, "root": 0, "branch": 1, "leaf_1": 2},
            {"rate": 0.1, "root": 1, "twig": 0},
        ]
    )
    every = {"rate": 0.5, "leaf_0": 2, "twig": 0}
    points = encoding.encode(
        [every | {"root": 0, "branch": branch, "leaf_1": leaf} for branch in (0, 1) for leaf in (0, 1)]
        + [every | {"root": 1, "branch": 1, "leaf_1": 2}]
    )
    assert [encoding.decode(row) for row in conform(encoding, points, trials)] == [
        *({"rate": 0.5, "root": 0, "branch": 0, "leaf_0": 2},) * 2,
        *({"rate": 0.5, "root": 0, "branch": 1, "leaf_1": leaf} for leaf in (0, 1)),
        {"rate": 0.5, "root": 1, "twig": 0},
    ]


def test_what_a_trial_lacks_is_not_the_choice_none() -> None:
    encoding = Encoding({"choice": CategoricalDistribution(("a", None))})
    assert encoding.encode([{"choice": None}, {}]).tolist() == [[1.0], [pytest.approx(float("nan"), nan_ok=True)]]


def test_a_point_is_new_once() -> None:
    seen, points = np.array([[0.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(unseen(points, seen), [[1.0, 1.0]])
