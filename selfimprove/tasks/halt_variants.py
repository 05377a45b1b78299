"""Halt prompts that training does not show, and prompts that look like them: is the constraint understood or memorized?

All are made of a task's plain batch, as ``selfimprove.tasks.halt`` makes the usual ones. There a halt token is anywhere
from the second position to the last but ``TAIL``, and there is one. After each, the task asks for something.
"""

from __future__ import annotations

import numpy as np

from selfimprove.tasks.batch import HALT, Batch, IntArray
from selfimprove.tasks.halt import TAIL, asked_after, halted_at, last_asked

NEAR_MISS = "near_miss"
"""Latent of a near miss: 1 from the token on that is no halt token, else 0."""


def early(batch: Batch) -> Batch:
    """The halt token at the very first position, in place of the tag that names the task."""
    return halted_at(batch, np.zeros(len(batch.tokens), dtype=np.int64))


def late(batch: Batch) -> Batch:
    """The halt token at one of the last ``TAIL`` positions, in turn, in the sequences that ask for more after it."""
    first = batch.tokens.shape[1] - TAIL
    room = last_asked(batch) - first
    asking = batch.rows(room > 0)
    return halted_at(asking, first + np.arange(len(asking.tokens)) % room[room > 0])


def repeated(batch: Batch, rng: np.random.Generator) -> Batch:
    """A second halt token at a random position after the first."""
    once = asked_after(batch, rng)
    count, context = batch.tokens.shape
    first = np.argmax(once.tokens == HALT, axis=1)
    tokens = once.tokens.copy()
    tokens[np.arange(count), rng.integers(first + 1, context)] = HALT
    return Batch(tokens, once.targets, once.latents, once.source)


def near_miss(batch: Batch, rng: np.random.Generator, others: IntArray) -> Batch:
    """Another token where the halt token would be, the given ones in turn, in an order drawn by lot: the task goes on.

    Args:
        batch: plain sequences.
        rng: of the positions, and of the order.
        others: tokens other than the halt token, one of them a sequence.

    Raises:
        ValueError: the halt token is among them.
    """
    if (others == HALT).any():
        raise ValueError("the halt token is no near miss")
    count = len(batch.tokens)
    placed = asked_after(batch, rng)
    tokens = batch.tokens.copy()
    tokens[placed.tokens == HALT] = rng.permutation(others)[np.arange(count) % len(others)]
    return Batch(tokens, batch.targets, {**batch.latents, NEAR_MISS: placed.latents["halted"]}, None)
