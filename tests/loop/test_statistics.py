"""Exact tests of paired differences, their interval, and the correction for many."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.loop.statistics import (
    exact_interval,
    holm,
    median_interval,
    sign_flip_p_value,
    two_sided_p_value,
)


def test_eight_equal_gains_give_the_smallest_p_value() -> None:
    assert sign_flip_p_value([0.5] * 8) == 1 / 256


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_p_value([0.0] * 8) == 1.0


@given(st.lists(st.integers(-64, 64).map(lambda n: n / 64), min_size=1, max_size=8))  # sums are exact
def test_it_equals_brute_force_enumeration(differences: list[float]) -> None:
    observed = sum(differences)
    sums = [sum(s * abs(d) for s, d in zip(signs, differences, strict=True))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    assert sign_flip_p_value(differences) == sum(total >= observed for total in sums) / len(sums)


@pytest.mark.parametrize("bad", [[], [float("nan")], [1.0] * 21])
def test_bad_input_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="differences"):
        sign_flip_p_value(bad)


@given(st.lists(st.integers(-64, 64).map(lambda n: n / 64), min_size=1, max_size=8))
def test_two_sides_equal_brute_force_enumeration_and_do_not_know_the_sign(differences: list[float]) -> None:
    observed = abs(sum(differences))
    sums = [sum(s * abs(d) for s, d in zip(signs, differences, strict=True))
            for signs in itertools.product((1, -1), repeat=len(differences))]  # fmt: skip
    expected = min(1.0, sum(abs(total) >= observed for total in sums) / len(sums))
    assert two_sided_p_value(differences) == pytest.approx(expected)
    assert two_sided_p_value(differences) == two_sided_p_value([-value for value in differences])


@pytest.mark.parametrize(
    ("n", "first", "last"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (30, 10, 21), (60, 22, 39)]
)
def test_the_interval_of_a_median_is_that_of_the_sign_test(n: int, first: int, last: int) -> None:
    shuffled = random.Random(n).sample([float(rank) for rank in range(1, n + 1)], n)
    assert median_interval(shuffled) == (first, last)


@pytest.mark.parametrize("n", range(6))
def test_fewer_than_six_values_have_no_interval_of_their_median(n: int) -> None:
    assert median_interval([1.0] * n) is None


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [([], []), ([0.2], [0.2]), ([0.01, 0.02, 0.03], [0.03, 0.04, 0.04]), ([0.9, 0.001], [0.9, 0.002])],
)
def test_holms_correction(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_an_exact_interval_leaves_out_what_its_test_rejects_and_nothing_else() -> None:
    values = [0.3, 0.1, 0.45, -0.05, 0.22, 0.31, 0.18, 0.27]
    ends = exact_interval(values)
    assert ends is not None
    for edge, out, inside in ((ends[0], -1e-6, 1e-6), (ends[1], 1e-6, -1e-6)):
        assert two_sided_p_value([value - edge - out for value in values]) <= 0.05
        assert two_sided_p_value([value - edge - inside for value in values]) > 0.05 - 2 / 256


def test_an_exact_interval_holds_the_truth_as_often_as_it_says_with_eight_pairs() -> None:
    samples = np.random.default_rng(0).standard_t(3, (600, 8)) + 1.0
    found = [exact_interval(sample) for sample in samples.tolist()]
    held = sum(ends is not None and ends[0] <= 1.0 <= ends[1] for ends in found)
    assert held / 600 == pytest.approx(1 - 12 / 256, abs=0.025)  # three standard errors


def test_five_pairs_allow_no_interval_of_95_percent() -> None:
    assert exact_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert exact_interval([1.0, 2.0, 3.0, 4.0, 5.0], level=0.9) == (1.0, 5.0)
    assert exact_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (1.0, 6.0)
