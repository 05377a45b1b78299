"""What is shown to the controller, and how often."""

from __future__ import annotations

import pytest

from selfimprove.controller.grammar import GOAL, PREFIX_TOKENS, Grammar
from selfimprove.controller.lessons import Lesson, failing_edits, label, lessons, rank_weights
from selfimprove.controller.proposer import Experience, Outcome
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.genome import Genome


def _experience(outcome: Outcome, gain: float | None = None, error: float | None = None) -> Experience:
    return Experience(0, "parent", (), outcome, gain, error)


def test_a_gain_within_its_standard_error_counts_as_same() -> None:
    assert label(_experience("better", 0.01, 0.02)) == "same"
    assert label(_experience("worse", -0.01, 0.02)) == "same"
    assert label(_experience("better", 0.03, 0.02)) == "better"


def test_a_promotion_counts_as_better_whatever_its_gain() -> None:
    assert label(_experience("promoted", 0.01, 0.02)) == "better"


def test_a_duplicate_says_nothing_against_its_edits() -> None:
    rate, clip = parse_edit("recipe.learning_rate=0.01"), parse_edit("recipe.clip=0.5")
    history = [Experience(0, "parent", (rate,), "duplicate"), Experience(0, "parent", (clip,), "failed")]
    assert failing_edits(history) == {clip}


def test_an_unknown_outcome_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="promoted"):
        _experience("great")  # type: ignore[arg-type]


def test_weights_follow_the_rank_and_sum_to_one() -> None:
    outcomes: list[Outcome] = ["denied", "failed", "worse", "same", "better", "promoted"]
    weights = rank_weights([_experience(outcome) for outcome in outcomes])
    assert weights == sorted(weights)
    assert len(set(weights)) == len(weights)
    assert sum(weights) == pytest.approx(1.0)


def test_equal_outcomes_share_one_weight() -> None:
    assert len(set(rank_weights([_experience("same")] * 5))) == 1


def test_a_gain_counts_by_its_standard_errors() -> None:
    sure, noisy = rank_weights([_experience("better", 0.02, 0.001), _experience("better", 0.04, 0.03)])
    assert sure > noisy


def test_only_actions_are_scored(grammar: Grammar, parent: Genome) -> None:
    history = [Experience(0, parent.sha256, (grammar.space.edits(parent)[0],), "same")]
    for lesson in lessons(grammar, history, lambda _: parent, prior_count=1.0, seed=0):
        assert lesson.scored_from == PREFIX_TOKENS
        grammar.decode(lesson.ids[PREFIX_TOKENS:], parent)


def test_the_prior_share_shrinks_as_successes_accumulate(grammar: Grammar, parent: Genome) -> None:
    edits = grammar.space.edits(parent)

    def prior_share(successes: int) -> float:
        history = [Experience(0, parent.sha256, (edit,), "better") for edit in edits[:successes]]
        shown = lessons(grammar, history, lambda _: parent, prior_count=4.0, seed=0)
        return _weight(shown[successes:]) / _weight(shown)

    assert prior_share(1) == pytest.approx(4 / 5)
    assert prior_share(12) == pytest.approx(4 / 16)


def test_without_a_success_only_the_prior_is_shown_as_the_goal(grammar: Grammar, parent: Genome) -> None:
    history = [Experience(0, parent.sha256, (edit,), "worse") for edit in grammar.space.edits(parent)[:3]]
    shown = lessons(grammar, history, lambda _: parent, prior_count=4.0, seed=0)
    assert {lesson.ids[1] == grammar.ids[f"<{GOAL}>"] for lesson in shown[:3]} == {False}
    assert {lesson.ids[1] == grammar.ids[f"<{GOAL}>"] for lesson in shown[3:]} == {True}


def _weight(shown: list[Lesson]) -> float:
    return sum(lesson.weight for lesson in shown)
