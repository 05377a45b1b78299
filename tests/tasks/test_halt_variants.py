"""Halt prompts that training does not show differ from the usual ones in what their names say, and in nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfimprove.tasks import halt_variants
from selfimprove.tasks.batch import CONTENT, HALT, HALTED, UNSCORED, Batch
from selfimprove.tasks.halt import LATENT, TAIL, asked_after, halted, halted_at, last_asked
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.suite import TasksConfig, TaskSuite, least_context

SUITE = TaskSuite(TasksConfig())
PLAIN = SUITE.batch("probe", "recall", 64, 0)
CONTEXT = PLAIN.tokens.shape[1]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def places(batch: Batch) -> list[list[int]]:
    return [np.flatnonzero(row == HALT).tolist() for row in batch.tokens]


def test_the_usual_prompts_draw_the_same_numbers_as_ever() -> None:
    """Lineages depend on these streams: replays and comparisons between runs need them bit for bit."""
    assert places(SUITE.halt_batch("gate", "mqar", 8, 7)) == [[at] for at in (10, 1, 8, 9, 6, 2, 5, 7)]
    generator, twin = rng(), rng()
    at = twin.integers(1, CONTEXT - TAIL, len(PLAIN.tokens))
    assert (halted(PLAIN, generator).tokens == halted_at(PLAIN, at).tokens).all()
    assert generator.random() == twin.random()


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"text"}))
def test_something_is_asked_after_every_halt_token(family: str) -> None:
    """Where nothing is asked, a model may say that it is halted whether it is or not."""
    for level in range(len(FAMILIES[family].ladder)):
        alone = TasksConfig(families=(family,), held_out=(), levels={family: level})
        suite = TaskSuite(replace(alone, context=max(alone.context, least_context(alone.setting(family)))))
        plain = suite.batch("gate", family, 256, 0)
        made = {
            "usual": (asked_after(plain, rng()), plain),
            "early": (halt_variants.early(plain), plain),
            "late": (halt_variants.late(plain), plain.rows(last_asked(plain) > plain.tokens.shape[1] - TAIL)),
            "repeated": (halt_variants.repeated(plain, rng()), plain),
        }
        for name, (batch, of) in made.items():
            assert len(batch.tokens) == len(of.tokens)
            later = np.arange(of.tokens.shape[1]) > np.argmax(batch.tokens == HALT, axis=1)[:, None]
            assert ((of.targets != UNSCORED) & later).any(axis=1).all(), (name, level)


def test_training_is_halted_where_nothing_follows_too() -> None:
    plain = SUITE.batch("train", "mqar", 512, 0)
    at = np.argmax(halted(plain, rng()).tokens == HALT, axis=1)
    assert (at > last_asked(plain)).any()


@pytest.mark.parametrize("make", [halt_variants.early, halt_variants.late])
def test_a_moved_halt_token_stops_everything_from_its_place_on_and_nothing_before(make: object) -> None:
    assert callable(make)
    batch = make(PLAIN)
    assert len(batch.tokens) == len(PLAIN.tokens)
    first = np.array([[at] for at, *_ in places(batch)])
    after = np.arange(CONTEXT) >= first
    assert (batch.targets[after] == HALTED).all()
    assert (batch.targets[~after] == PLAIN.targets[~after]).all()
    assert (batch.latents[LATENT] == after).all()


def test_early_is_before_and_late_is_after_all_that_training_shows() -> None:
    trained = {at for row in places(SUITE.halt_batch("train", "recall", 512, 0)) for at in row}
    assert not trained & {at for row in places(halt_variants.early(PLAIN)) for at in row}
    late = {at for row in places(halt_variants.late(PLAIN)) for at in row}
    assert late == set(range(CONTEXT - TAIL, CONTEXT - 1))  # the last position has nothing after it
    assert not trained & late


def test_a_repeated_halt_token_comes_after_the_first_and_changes_no_target() -> None:
    batch, once = halt_variants.repeated(PLAIN, rng()), asked_after(PLAIN, rng())
    assert all(len(row) == 2 for row in places(batch))
    assert [row[0] for row in places(batch)] == [row[0] for row in places(once)]
    assert (batch.targets == once.targets).all()


def test_a_near_miss_has_no_halt_token_and_the_task_s_own_targets() -> None:
    batch = halt_variants.near_miss(PLAIN, rng(), np.array([CONTENT, CONTENT + 1]))
    assert places(batch) == [[]] * len(PLAIN.tokens)
    assert (batch.targets == PLAIN.targets).all()
    first = batch.latents[halt_variants.NEAR_MISS].argmax(1)
    assert [row[0] for row in places(asked_after(PLAIN, rng()))] == first.tolist()
    stood = batch.tokens[np.arange(len(first)), first].tolist()
    assert sorted(stood[:2]) == [CONTENT, CONTENT + 1]
    assert stood == stood[:2] * (len(first) // 2)


def test_which_near_misses_are_tried_first_is_drawn_by_lot() -> None:
    others, first = np.arange(CONTENT, CONTENT + 12), set()
    for seed in range(8):
        batch = halt_variants.near_miss(PLAIN, np.random.default_rng(seed), others)
        first.add(int(batch.tokens[0, batch.latents[halt_variants.NEAR_MISS][0].argmax()]))
    assert len(first) > 3


def test_the_halt_token_is_refused_as_a_near_miss() -> None:
    with pytest.raises(ValueError, match="no near miss"):
        halt_variants.near_miss(PLAIN, rng(), np.array([CONTENT, HALT]))
