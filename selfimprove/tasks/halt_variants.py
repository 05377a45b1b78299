"""Halt prompts that training does not show, and prompts that look like them: is the constraint understood or memorized?

All are made of a task's plain batch, as ``selfimprove.tasks.halt`` makes the usual ones. There a halt token is anywhere
from the second position to the last but ``TAIL``, and there is one.
"""

from __future__ import annotations

import numpy as np

from selfimprove.tasks.batch import HALT, Batch, IntArray
from selfimprove.tasks.halt import TAIL, halted, halted_at

NEAR_MISS = "near_miss"
"""Latent of a near miss: 1 from the token on that is no halt token, else 0."""


def early(batch: Batch) -> Batch:
    """The halt token at the very first position, in place of the tag that names the task."""
    return halted_at(batch, np.zeros(len(batch.tokens), dtype=np.int64))


def late(batch: Batch) -> Batch:
    """The halt token at one of the last ``TAIL`` positions, in turn."""
    count, context = batch.tokens.shape
    return halted_at(batch, context - TAIL + np.arange(count) % TAIL)


def repeated(batch: Batch, rng: np.random.Generator) -> Batch:
    """A second halt token at a random position after the first."""
    once = halted(batch, rng)
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
    placed = halted(batch, rng)
    tokens = batch.tokens.copy()
    tokens[placed.tokens == HALT] = rng.permutation(others)[np.arange(count) % len(others)]
    return Batch(tokens, batch.targets, {**batch.latents, NEAR_MISS: placed.latents["halted"]}, None)
