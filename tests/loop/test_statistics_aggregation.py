"""Runs and tasks as one figure: against scipy, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from selfimprove.loop.aggregation import interquartile_mean, probability_of_improvement, stratified_interval

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (8, 3), (7, 5)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape: tuple[int, int]) -> None:
    scores = RNG.normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None))


def test_a_quarter_of_wild_scores_does_not_move_the_interquartile_mean() -> None:
    scores = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.8]])
    wild = np.where(scores == 0.8, 1e6, scores)
    assert interquartile_mean(wild) == interquartile_mean(scores) == pytest.approx((0.3 + 0.4 + 0.5 + 0.6) / 4)


def test_the_probability_of_improvement_is_mann_and_whitneys_mean_over_tasks() -> None:
    ours, theirs = RNG.integers(0, 5, (9, 3)).astype(float), RNG.integers(0, 5, (6, 3)).astype(float)
    expected = [stats.mannwhitneyu(ours[:, task], theirs[:, task]).statistic / 54 for task in range(3)]
    assert probability_of_improvement(ours, theirs) == pytest.approx(np.mean(expected))


def test_who_is_always_better_improves_with_certainty_and_equals_in_half_of_the_cases() -> None:
    scores = RNG.normal(size=(6, 2))
    assert probability_of_improvement(scores + 100, scores) == 1.0
    assert probability_of_improvement(scores, scores) == 0.5
    assert stratified_interval(probability_of_improvement, [scores + 100, scores], seed=0) == (1.0, 1.0)


def test_runs_are_drawn_within_tasks_so_that_tasks_far_apart_do_not_widen_the_interval() -> None:
    scores = np.array([[0.0, 100.0]] * 6)
    assert stratified_interval(interquartile_mean, [scores], seed=0) == (50.0, 50.0)


def test_the_interval_holds_the_truth_nine_times_in_ten() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for number in range(200):
        scores = rng.normal(size=(10, 3)) + np.array([0.0, 1.0, -1.0])
        low, high = stratified_interval(lambda s: s.mean(axis=(-2, -1)), [scores], seed=number, resamples=400)
        held += low <= 0.0 <= high
    assert 0.88 < held / 200 < 0.99


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.array([[np.nan]]), np.zeros(3)])
def test_what_is_no_matrix_of_scores_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="runs by tasks"):
        stratified_interval(interquartile_mean, [bad], seed=0)
