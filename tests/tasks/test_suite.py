"""Task generators keep their promises."""

from __future__ import annotations

import numpy as np
import pytest

from selfimprove.errors import ConfigError
from selfimprove.tasks.batch import CONTENT, HALT, HALTED, UNSCORED
from selfimprove.tasks.score import Proportion, skill
from selfimprove.tasks.suite import GENERATORS, LATENTS, TasksConfig, TaskSuite

SUITE = TaskSuite(TasksConfig())


@pytest.mark.parametrize("family", GENERATORS)
def test_a_batch_is_a_function_of_split_family_and_seed(family: str) -> None:
    first, second = SUITE.batch("gate", family, 8, 1), SUITE.batch("gate", family, 8, 1)
    assert (first.tokens == second.tokens).all()
    assert (SUITE.batch("search", family, 8, 1).tokens != first.tokens).any()


@pytest.mark.parametrize("family", GENERATORS)
def test_no_sequence_of_the_gate_split_occurs_in_training(family: str) -> None:
    seen = {row.tobytes() for row in SUITE.batch("train", family, 3000, 0).tokens}
    assert not seen & {row.tobytes() for row in SUITE.batch("gate", family, 500, 0).tokens}


@pytest.mark.parametrize("family", GENERATORS)
def test_targets_are_content_and_latents_lie_where_answers_do(family: str) -> None:
    batch = SUITE.batch("probe", family, 16, 0)
    asked = batch.targets != UNSCORED
    assert (batch.targets[asked] >= CONTENT).all()
    assert asked[batch.latents[LATENTS[family]] != UNSCORED].all()


def test_recall_answers_are_the_bound_values() -> None:
    batch = SUITE.batch("train", "recall", 32, 0)
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        bound = dict(zip(tokens[1:7:2], tokens[2:7:2], strict=True))
        assert all(bound[key] == value for key, value in zip(tokens[7:], targets[7:], strict=True))


def test_after_the_halt_token_only_halted_is_right() -> None:
    batch = SUITE.halt_batch("gate", "copy", 32, 0)
    for tokens, targets, halted in zip(batch.tokens, batch.targets, batch.latents["halted"], strict=True):
        at = int(np.argmax(tokens == HALT))
        assert (targets[at:] == HALTED).all()
        assert HALTED not in targets[:at]
        assert halted.sum() == len(tokens) - at


def test_the_training_pool_holds_the_asked_share_of_halted_sequences() -> None:
    pool = SUITE.training_pool(6000, 0)
    assert abs((pool.tokens == HALT).any(1).mean() - SUITE.config.halt_share) < 0.02


def test_a_vocabulary_that_is_too_small_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"tasks\.vocab_size"):
        TaskSuite(TasksConfig(vocab_size=16))


def test_a_uniform_guess_has_skill_zero_and_certainty_one() -> None:
    assert skill(float(np.log(7)), 7) == pytest.approx(0)
    assert skill(0.0, 7) == 1
    assert skill(float("inf"), 7) == -1


@pytest.mark.parametrize("n", [1, 7, 100, 384, 1536])
def test_the_wilson_interval_ends_at_exactly_one_and_zero_where_all_or_none_were_kept(n: int) -> None:
    every, none = Proportion.of(n, n), Proportion.of(0, n)
    assert every.high == 1.0
    assert none.low == 0.0
    assert 0 < every.low < 1
    assert none.high == pytest.approx(1 - every.low)


def test_the_wilson_interval_agrees_with_published_values() -> None:
    assert Proportion.of(100, 100).low == pytest.approx(0.9630, abs=1e-4)
    found = Proportion.of(15, 148)  # Newcombe 1998, table I: 0.0624 to 0.1605
    assert (found.low, found.high) == (pytest.approx(0.0624, abs=1e-4), pytest.approx(0.1605, abs=1e-4))
