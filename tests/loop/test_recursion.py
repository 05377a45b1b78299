"""The rule of succession, on its own: who is the contender, what judges it, and what it takes to take over."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.proposer import Experience, Outcome
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.expression import parse
from selfimprove.genome.genome import Genome, Objective, seed_genome
from selfimprove.genome.space import Space
from selfimprove.loop.recursion import (
    compare,
    decide,
    halves,
    inherited,
    log_scores,
    shams,
    succeeded,
    undecidable,
)
from selfimprove.loop.statistics import MOST_PAIRS

OWN = ControllerConfig().genome()
SEED = seed_genome()
PROMOTED = replace(
    SEED,
    architecture=replace(SEED.architecture, width=96),
    objective=Objective(parse("sub(logsumexp(logits(0)), dot(logits(0), onehot(1)))")),
    recipe=replace(SEED.recipe, optimizer="muon"),
)
READ = {"verdict": "read", "reason": ""}


def experience(place: int, outcome: Outcome, gain: float | None = None) -> Experience:
    return Experience(1 + place // 9, SEED.sha256, (parse_edit(f"recipe.batch={8 << place % 4}"),), outcome, gain)


def test_each_arm_takes_from_the_promoted_genome_what_its_name_says() -> None:
    assert inherited("architecture", OWN, PROMOTED) == replace(OWN, architecture=PROMOTED.architecture)
    assert inherited("loss", OWN, PROMOTED) == replace(OWN, objective=PROMOTED.objective)
    assert inherited("both", OWN, PROMOTED) == PROMOTED
    with pytest.raises(ValueError, match="architecture, loss, both"):
        inherited("extra", OWN, PROMOTED)


def test_a_sham_is_a_valid_genome_and_the_same_seed_draws_the_same() -> None:
    space = Space()
    drawn = list(shams(space, SEED, 3, 5))
    assert drawn == list(shams(space, SEED, 3, 5)) != list(shams(space, SEED, 3, 6))
    for genome in drawn:
        space.validate(genome)
    assert len({genome.sha256 for genome in drawn} - {SEED.sha256}) > len(drawn) // 2


def test_both_halves_have_their_share_of_the_successes_and_nothing_is_in_both() -> None:
    outcomes: list[Outcome] = ["better", "worse", "worse", "denied", "better", "worse", "failed", "promoted", "same"]
    history = [experience(i, outcome, 0.1) for i, outcome in enumerate(outcomes * 2)]
    learned, held_out = halves(history, 3)
    assert sorted(map(id, (*learned, *held_out))) == sorted(map(id, history))
    assert [sum(map(succeeded, part)) for part in (learned, held_out)] == [3, 3]
    assert [len(part) for part in (learned, held_out)] == [9, 9]
    assert halves(history, 3) == (learned, held_out) != halves(history, 4)


def test_what_was_no_edit_or_a_duplicate_judges_nobody() -> None:
    useless = [replace(experience(0, "invalid"), edits=()), experience(1, "duplicate")]
    assert halves(useless, 0) == ([], [])


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ([False] * 9, "0 of 9 held-out proposals succeeded"),
        ([True] * 9, "9 of 9 held-out proposals succeeded"),
        ([True] + [False] * 5, "6 held-out proposals are too few: p cannot be below 0.015625 >= 0.01"),
        ([True] + [False] * 6, ""),
        ([True] + [False] * 600, ""),
    ],
)
def test_held_out_proposals_that_cannot_decide_are_named_before_anything_is_spent(
    outcomes: list[bool], why: str
) -> None:
    found = undecidable(outcomes, 0.01)
    assert found.startswith(why) if why else not found


ODDS = st.lists(st.floats(-40, 40), min_size=4, max_size=30)


@given(ODDS, st.floats(-20, 20))
def test_a_constant_factor_of_a_controllers_odds_changes_no_score(odds: list[float], shift: float) -> None:
    outcomes = [place % 3 == 0 for place in range(len(odds))]
    shifted = log_scores([value + shift for value in odds], outcomes)
    assert shifted == pytest.approx(log_scores(odds, outcomes), abs=1e-6)


def test_a_controller_without_preference_scores_the_entropy_of_the_base_rate() -> None:
    assert sum(log_scores([7.0] * 4, [True, False, False, False])) / 4 == pytest.approx(-0.5623, abs=1e-4)


def test_the_score_is_proper_on_average_the_true_odds_beat_flatter_and_sharper_ones() -> None:
    rng = random.Random(0)
    odds = [rng.gauss(0, 2) for _ in range(4000)]
    outcomes = [rng.random() < 1 / (1 + 2.718281828**-value) for value in odds]
    mean = {times: sum(log_scores([times * value for value in odds], outcomes)) for times in (0.5, 1.0, 2.0)}
    assert mean[1.0] > max(mean[0.5], mean[2.0])


def test_whoever_tells_good_proposals_apart_is_better_beyond_noise() -> None:
    outcomes = [place % 4 == 0 for place in range(16)]
    sure, blind = [2.0 if good else -2.0 for good in outcomes], [0.0] * 16
    found = compare(sure, blind, outcomes, 0)
    assert (found.n, found.succeeded) == (16, 4)
    assert found.difference == pytest.approx(found.contender - found.incumbent)
    assert found.p_value == 2.0**-16
    assert compare(blind, sure, outcomes, 0).p_value == 1.0
    assert compare(sure, sure, outcomes, 0).p_value == 1.0


def test_more_proposals_than_can_be_enumerated_are_compared_in_groups() -> None:
    outcomes = [place % 4 == 0 for place in range(200)]
    sure = [2.0 if good else -2.0 for good in outcomes]
    assert compare(sure, [0.0] * 200, outcomes, 0).p_value == 2.0**-MOST_PAIRS


def test_noise_takes_over_no_more_often_than_the_level_says() -> None:
    rng, accepted = random.Random(1), 0
    for study in range(400):
        outcomes = [rng.random() < 0.3 for _ in range(10)]
        if undecidable(outcomes, 0.1):
            continue
        sides = [[rng.gauss(0, 1.5) for _ in outcomes] for _ in range(2)]
        accepted += decide(compare(*sides, outcomes, study), READ, 0.1).promoted
    assert 0 < accepted <= 52  # 400 at 0.1: at most 52 in 97.5% of cases


def test_a_contender_takes_over_only_if_it_is_better_and_can_be_read() -> None:
    outcomes = [place % 4 == 0 for place in range(16)]
    better = compare([2.0 if good else -2.0 for good in outcomes], [0.0] * 16, outcomes, 0)
    assert decide(better, READ, 0.01).promoted
    for reading in (None, {"verdict": "unreadable", "reason": "no hooks"}):
        refused = decide(better, reading, 0.01)
        assert not refused.promoted
        assert refused.reasons[0].startswith("inspection: the contender is")
    worse = decide(replace(better, p_value=0.01), READ, 0.01)
    assert not worse.promoted
    assert "p = 0.0100 >= 0.01" in worse.reasons[0]


def test_genomes_of_one_arm_differ_where_the_promoted_one_does() -> None:
    made = {arm: inherited(arm, OWN, PROMOTED).sha256 for arm in ("architecture", "loss", "both")}
    assert len({*made.values(), OWN.sha256}) == 4
    kept: Genome = inherited("loss", OWN, replace(PROMOTED, objective=OWN.objective))
    assert kept.sha256 == OWN.sha256
