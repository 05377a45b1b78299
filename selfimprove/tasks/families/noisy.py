"""Noisy recall: the bindings stand among tokens that mean nothing, so that a binding is nowhere in particular.

Layout: ``tag`` body ``q q q ...`` where the body holds the pairs ``k v`` at random places among noise tokens, which
have a vocabulary of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page, distinct, pick
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "noisy", "noisy_answer"
QUERIES = 4  # at least


@dataclass(frozen=True)
class Noisy(Setting):
    """``pairs`` bindings among ``noise`` tokens of ``kinds`` kinds; ``keys`` and ``values`` are possible ones."""

    pairs: int
    noise: int
    kinds: int
    keys: int
    values: int

    @property
    def answers(self) -> int:
        return self.values

    @property
    def tokens(self) -> int:
        return self.keys + self.values + self.kinds

    @property
    def min_context(self) -> int:
        return 1 + 2 * self.pairs + self.noise + QUERIES

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng = stream.rng
        tokens, targets = blank_page(NAME, count, context)
        keys = distinct(rng, count, self.keys, self.pairs)
        values = rng.integers(0, self.values, (count, self.pairs))
        units = np.sort(distinct(rng, count, self.pairs + self.noise, self.pairs), axis=1)
        at = 1 + units + np.arange(self.pairs)  # each pair before this one takes a place more than a noise token
        start = 1 + 2 * self.pairs + self.noise
        tokens[:, 1:start] = CONTENT + self.keys + self.values + rng.integers(0, self.kinds, (count, start - 1))
        np.put_along_axis(tokens, at, CONTENT + keys, axis=1)
        np.put_along_axis(tokens, at + 1, CONTENT + self.keys + values, axis=1)
        asked = rng.integers(0, self.pairs, (count, context - start))
        tokens[:, start:] = CONTENT + pick(keys, asked)
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        latent[:, start:] = pick(values, asked)
        targets[:, start:] = CONTENT + self.keys + latent[:, start:]
        source[:, start:] = 1 + pick(at, asked)
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Poli et al. 2024 (MAD), arXiv 2403.17844: noisy in-context recall; the noise is in the input, never in an answer, "
    "so nothing is irreducible",
    (
        *(Noisy(2, 4, 4, 8, 8), Noisy(3, 4, 4, 8, 8), Noisy(3, 8, 4, 8, 8), Noisy(4, 8, 8, 12, 12)),
        *(Noisy(5, 9, 8, 12, 12), Noisy(6, 12, 8, 12, 12), Noisy(8, 16, 8, 12, 12), Noisy(12, 24, 8, 12, 12)),
    ),
    (Latent(LATENT, "asked", "index of the value that the queried key is bound to"),),
)
