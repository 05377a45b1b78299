"""Modular addition: several independent problems ``a b -> (a + b) mod p`` in one sequence.

Every problem may occur in training: this measures how fast a structured table is learned, not generalization to
held-out problems. Layout: ``tag a b a b ...`` (``a b c ...`` with three terms), with separate symbols for each term;
the answer is asked at a problem's last term and never shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "modular", "modular_sum"


@dataclass(frozen=True)
class Modular(Setting):
    """Sums of ``terms`` numbers below ``modulus``."""

    modulus: int
    terms: int

    @property
    def answers(self) -> int:
        return self.modulus

    @property
    def tokens(self) -> int:
        return self.terms * self.modulus

    @property
    def min_context(self) -> int:
        return 1 + 2 * self.terms

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        tokens, targets = blank_page(NAME, count, context)
        problems = (context - 1) // self.terms
        numbers = stream.rng.integers(0, self.modulus, (count, problems, self.terms))
        stop = 1 + problems * self.terms
        tokens[:, 1:stop] = CONTENT + (numbers + self.modulus * np.arange(self.terms)).reshape(count, -1)
        latent = np.full_like(targets, UNSCORED)
        ends = slice(self.terms, stop, self.terms)
        latent[:, ends] = numbers.sum(axis=2) % self.modulus
        targets[:, ends] = CONTENT + latent[:, ends]
        return Batch(tokens, targets, {LATENT: latent})


FAMILY = Family(
    NAME,
    "Power et al. 2022, Grokking, arXiv 2201.02177; Nanda et al. 2023, Progress measures for grokking, "
    "arXiv 2301.05217; here several problems a sequence",
    (Modular(7, 2), Modular(9, 2), Modular(9, 3), Modular(10, 3)),
    (Latent(LATENT, "asked", "the sum"),),
    planted=False,
)
