"""Induction: a random segment, repeated; from the second time on, what comes next can be looked up.

Layout: ``tag s1 ... sn s1 ... sn s1 ...`` with all ``s`` of a segment different and ``n`` drawn for each sequence, so
that the place alone does not tell. Asked from the first token of the second round on, where the answer is certain. An
induction head must look at the token after the last occurrence of the current one: that place is the planted ground
truth ``Batch.source``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page, distinct, pick
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "induction", "induction_length"


@dataclass(frozen=True)
class Induction(Setting):
    """Segments of ``shortest`` to ``longest`` different tokens out of ``symbols``."""

    shortest: int
    longest: int
    symbols: int

    @property
    def answers(self) -> int:
        return self.symbols

    @property
    def tokens(self) -> int:
        return self.symbols

    @property
    def min_context(self) -> int:
        return 1 + 2 * self.longest

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng = stream.rng
        tokens, targets = blank_page(NAME, count, context)
        length = rng.integers(self.shortest, self.longest + 1, (count, 1))
        segment = CONTENT + distinct(rng, count, self.symbols, self.longest)
        place = np.arange(context - 1)[None, :]
        tokens[:, 1:] = pick(segment, place % length)
        again = place >= length
        targets[:, 1:] = np.where(again, pick(segment, (place + 1) % length), UNSCORED)
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        latent[:, 1:] = np.where(again, length, UNSCORED)
        source[:, 1:] = np.where(again, place + 2 - length, UNSCORED)
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Olsson et al. 2022, In-context Learning and Induction Heads, arXiv 2209.11895: repeated random segments",
    (
        *(Induction(6, 8, 24), Induction(7, 9, 28), Induction(8, 10, 30), Induction(9, 11, 32)),
        *(Induction(10, 14, 32), Induction(12, 18, 32), Induction(14, 24, 32), Induction(16, 30, 32)),
    ),
    (Latent(LATENT, "asked", "length of the segment: how far back the current token stood last"),),
)
