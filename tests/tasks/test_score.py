"""Scores as plain values: what an evaluator may answer, averages over training seeds, pooled proportions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.canonical import canonical
from selfimprove.tasks.score import MOST_CROSS_ENTROPY, FamilyScore, Proportion, Scale, Score, mean_score

SCALES = {"recall": Scale(8), "copy": Scale(4, floor=0.5)}
FIGURES = {"recall": {"cross_entropy": 1.0, "accuracy": 0.5}, "copy": {"cross_entropy": 0.0, "accuracy": 1.0}}
GOOD: dict[str, Any] = {"skill": 0.9, "tasks": FIGURES, "retention": {"kept": 3, "n": 4, "low": 0.99, "high": 1.0}}


def score(skill: float, kept: int, n: int = 48) -> Score:
    return Score(skill, {"copy": FamilyScore(skill, skill, 1 - skill)}, Proportion.of(kept, n))


class TestWhatAnEvaluatorAnswers:
    def test_derived_figures_are_worked_out_anew_and_not_believed(self) -> None:
        found = Score.checked(GOOD, SCALES, 4)
        assert found.tasks["recall"].skill == pytest.approx(1 - 1 / math.log(8))
        assert found.tasks["copy"].skill == pytest.approx(math.log(4) / (math.log(4) - 0.5))
        assert found.skill == (found.tasks["recall"].skill + found.tasks["copy"].skill) / 2
        assert found.retention == Proportion.of(3, 4)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"tasks": None},
            {"tasks": {"recall": FIGURES["recall"]}},
            {"tasks": {**FIGURES, "modular": FIGURES["copy"]}},
            {"tasks": {**FIGURES, "copy": None}},
            {"tasks": {**FIGURES, "copy": {"accuracy": 1.0}}},
            {"tasks": {**FIGURES, "copy": {"cross_entropy": -1e9, "accuracy": 1.0}}},
            {"tasks": {**FIGURES, "copy": {"cross_entropy": 1e308, "accuracy": 1.0}}},
            {"tasks": {**FIGURES, "copy": {"cross_entropy": math.nan, "accuracy": 1.0}}},
            {"tasks": {**FIGURES, "copy": {"cross_entropy": "1", "accuracy": 1.0}}},
            {"tasks": {**FIGURES, "copy": {"cross_entropy": 0.0, "accuracy": 1.5}}},
            {"retention": None},
            {"retention": {"kept": 5, "n": 4}},
            {"retention": {"kept": True, "n": 4}},
            {"retention": {"kept": -1, "n": 4}},
            {"retention": {"kept": 3.0, "n": 4}},
            {"retention": {"kept": 4000, "n": 4000}},
        ],
        ids=str,
    )
    def test_an_impossible_answer_is_no_score(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="its "):
            Score.checked({**GOOD, **wrong}, SCALES, 4)

    def test_the_worst_scores_that_are_taken_have_a_mean_that_the_ledger_holds(self) -> None:
        worst = {"cross_entropy": MOST_CROSS_ENTROPY, "accuracy": 0.0}
        score = Score.checked({**GOOD, "tasks": dict.fromkeys(FIGURES, worst)}, SCALES, 4)
        assert canonical(mean_score([score] * 20).to_json())


class TestScales:
    @given(st.integers(2, 1000), st.floats(0, 0.99))
    def test_a_uniform_guess_has_skill_zero_and_what_is_irreducible_skill_one(self, answers: int, share: float) -> None:
        scale = Scale(answers, floor=share * math.log(answers))
        assert scale.skill(scale.guess) == 0
        assert scale.skill(scale.floor) == 1

    @given(st.integers(2, 1000), st.floats(0, 0.99), st.floats(0, 1e6), st.floats(0, 1e6))
    def test_more_cross_entropy_is_never_more_skill(self, answers: int, share: float, a: float, b: float) -> None:
        scale = Scale(answers, floor=share * math.log(answers))
        assert scale.skill(max(a, b)) <= scale.skill(min(a, b))

    @pytest.mark.parametrize("loss", [1e9, math.inf, math.nan])
    def test_no_loss_is_worse_than_minus_one(self, loss: float) -> None:
        assert Scale(8).skill(loss) == -1

    @pytest.mark.parametrize("floor", [-0.1, math.log(8), math.nan])
    def test_a_floor_that_leaves_nothing_to_gain_is_refused(self, floor: float) -> None:
        with pytest.raises(ValueError, match="floor"):
            Scale(8, floor)


class TestAverages:
    def test_a_training_that_failed_counts_as_a_uniform_guess_that_keeps_no_prompt(self) -> None:
        found = mean_score([score(0.8, 48), None])
        assert found.skill == found.tasks["copy"].skill == found.tasks["copy"].accuracy == 0.4
        assert found.tasks["copy"].cross_entropy == pytest.approx(0.2)
        assert (found.retention.kept, found.retention.n) == (48, 96)

    def test_without_any_model_there_is_no_skill(self) -> None:
        found = mean_score([None, None])
        assert (found.skill, found.tasks, found.retention.kept) == (0.0, {}, 0)


class TestPooledProportions:
    @given(st.integers(0, 48))
    def test_one_model_is_the_plain_interval(self, kept: int) -> None:
        assert Proportion.pooled([Proportion.of(kept, 48)]) == Proportion.of(kept, 48)

    @given(st.lists(st.integers(0, 48), min_size=2, max_size=8))
    def test_the_interval_is_never_narrower_than_that_of_independent_prompts(self, kept: list[int]) -> None:
        found = Proportion.pooled([Proportion.of(k, 48) for k in kept])
        plain = Proportion.of(sum(kept), 48 * len(kept))
        assert (found.kept, found.n) == (plain.kept, plain.n)
        assert found.low <= plain.low + 1e-12
        assert found.high >= plain.high - 1e-12

    def test_models_of_which_half_keep_all_and_half_keep_none_count_as_so_many_trials(self) -> None:
        found = Proportion.pooled([Proportion.of(k, 100) for k in (0, 100) * 4])
        trials = Proportion.of(4, 8)  # but for the factor (models - 1) / models of a sample variance
        assert found.low == pytest.approx(trials.low, abs=0.02)
        assert found.high == pytest.approx(trials.high, abs=0.02)
