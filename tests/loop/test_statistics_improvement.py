"""imp@k against every subset, and exponents that are told or not told."""

from __future__ import annotations

import itertools
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.loop.growth import acceleration_exponent
from selfimprove.loop.improvement import imp_at_k

GAINS = st.lists(st.one_of(st.none(), st.integers(-8, 8).map(lambda n: n / 8)), min_size=1, max_size=7)


@given(GAINS, st.data())
def test_imp_at_k_is_the_mean_over_all_subsets_of_what_their_best_gains(gains: list[float | None], data: st.DataObject):
    k = data.draw(st.integers(1, len(gains)))
    subsets = itertools.combinations([max(0.0, gain or 0.0) for gain in gains], k)
    assert imp_at_k(gains, k) == pytest.approx(fmean(max(subset) for subset in subsets))


def test_imp_at_k_is_unbiased_from_more_proposals_than_k() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 1, (4000, 8))
    estimated = fmean(imp_at_k(row, 3) for row in drawn.tolist())
    direct = np.maximum(drawn[:, :3].max(axis=1), 0).mean()
    assert estimated == pytest.approx(direct, abs=0.04)  # three standard errors


def test_more_proposals_never_gain_less_and_one_gains_the_mean() -> None:
    gains = [0.4, -0.2, None, 0.1, 0.0]
    found = [imp_at_k(gains, k) for k in range(1, 6)]
    assert found == sorted(found)
    assert found[0] == pytest.approx((0.4 + 0.1) / 5)
    assert found[-1] == 0.4


def test_a_lucky_winner_counts_with_what_it_gains_on_fresh_seeds() -> None:
    """The best of proposals that are all worth nothing looks like a gain, and is none."""
    rng = np.random.default_rng(1)
    lucky, honest = [], []
    for noise in rng.normal(0, 0.1, (300, 8)).tolist():
        again = [None] * 8
        again[int(np.argmax(noise))] = float(rng.normal(0, 0.1))
        lucky.append(imp_at_k(noise, 8))
        honest.append(imp_at_k(noise, 8, again))
    assert fmean(lucky) > 0.1
    assert abs(fmean(honest)) < 0.02


def test_equals_share_being_the_best_whatever_their_order() -> None:
    assert imp_at_k([0.5, 0.5], 1, [0.1, None]) == pytest.approx(0.3)
    assert imp_at_k([0.5, 0.5], 2, [0.1, None]) == imp_at_k([0.5, 0.5], 2, [None, 0.1]) == pytest.approx(0.3)


@pytest.mark.parametrize("k", [0, 3])
def test_a_subset_larger_than_all_proposals_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="imp@k"):
        imp_at_k([0.1, 0.2], k)


PLACES = np.arange(1.0, 13.0)


def steps(exponent: float, runs: int = 1, noise: float = 0.0) -> np.ndarray:
    course = np.diff((PLACES / PLACES[-1]) ** exponent, prepend=0.0)
    return course + np.random.default_rng(0).normal(0, noise, (runs, PLACES.size))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_an_exponent_without_noise_is_found(exponent: float) -> None:
    found = acceleration_exponent(PLACES, steps(exponent), seed=0, resamples=100)
    assert found.value == pytest.approx(exponent, rel=0.01)
    assert found.reason == ""


def test_compute_in_other_units_changes_nothing() -> None:
    gains = steps(1.5, noise=0.01)
    assert acceleration_exponent(PLACES, gains, seed=0) == acceleration_exponent(PLACES * 1e12, gains, seed=0)


@pytest.mark.parametrize("runs", [1, 12])
def test_the_interval_holds_the_truth_nine_times_in_ten(runs: int) -> None:
    rng, course, held = np.random.default_rng(5), steps(2.0), 0
    for number in range(80):
        gains = course + rng.normal(0, 0.02 * runs**0.5, (runs, PLACES.size))
        found = acceleration_exponent(PLACES, gains, seed=number, resamples=200)
        held += found.interval is not None and found.interval[0] <= 2.0 <= found.interval[1]
    assert held / 80 > 0.82


@pytest.mark.parametrize(
    ("places", "gains", "reason"),
    [
        (PLACES[:3], steps(1.0)[:, :3], "3 steps, where at least 6 are needed"),
        (PLACES + 100, steps(1.0), "span a factor of 1.1"),
        (PLACES, np.zeros((1, 12)), "nothing was gained"),
        (PLACES, -steps(1.0), "nothing was gained"),
        (PLACES, np.array([[0.26, 0.25] + [0.0] * 10]), "2 steps of 12 gained anything, where at least 6 are needed"),
        (PLACES, steps(1.0, noise=0.3) + 0.1, "the interval"),
    ],
)
def test_what_the_steps_cannot_carry_is_said_with_its_reason(
    places: np.ndarray, gains: np.ndarray, reason: str
) -> None:
    found = acceleration_exponent(places, gains, seed=0)
    assert found.value is None
    assert found.interval is None
    assert reason in str(found)
    assert str(found).startswith("not identifiable: ")


@pytest.mark.parametrize(("places", "gains"), [(PLACES[::-1], steps(1.0)), (PLACES, steps(1.0)[:, :5])])
def test_places_that_do_not_rise_or_do_not_match_are_refused(places: np.ndarray, gains: np.ndarray) -> None:
    with pytest.raises(ValueError, match="allowed"):
        acceleration_exponent(places, gains, seed=0)
