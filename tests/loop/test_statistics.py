"""The exact sign-flip test."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.loop.statistics import sign_flip_p_value


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
