"""Memorization: a fixed table of facts, learned in the weights since no sequence shows it.

Layout: ``tag a b a b ...``; a fact is a pair of symbols, ``a`` and ``b`` from two alphabets, and the answer, asked at
``b``, is that pair's value. The table is drawn from the run's seed and is the same in training and evaluation: nothing
else could be learned. What the splits keep apart are the sequences (which facts are asked, in which order and company),
so a split measures whether facts were stored, not whether new ones are guessed. Other runs have other tables, so
nothing about a table can be carried from one run to another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.seeds import derive
from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, IntArray, blank_page
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "memorization", "memorization_answer"


@dataclass(frozen=True)
class Memorization(Setting):
    """``symbols`` squared facts with ``values`` possible values."""

    symbols: int
    values: int

    @property
    def answers(self) -> int:
        return self.values

    @property
    def tokens(self) -> int:
        return 2 * self.symbols + self.values

    @property
    def min_context(self) -> int:
        return 5

    def table(self, seed: int) -> IntArray:
        """``[symbols, symbols]`` values of a run's facts, each value as often as any other, give or take one."""
        rng = np.random.Generator(np.random.PCG64(derive(seed, NAME, self.symbols, self.values)))
        values = np.arange(self.symbols**2, dtype=np.int64) % self.values
        return rng.permutation(values).reshape(self.symbols, self.symbols)

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        tokens, targets = blank_page(NAME, count, context)
        facts = (context - 1) // 2
        a, b = stream.rng.integers(0, self.symbols, (2, count, facts))
        last = 1 + 2 * facts
        tokens[:, 1:last:2] = CONTENT + a
        tokens[:, 2:last:2] = CONTENT + self.symbols + b
        latent = np.full_like(targets, UNSCORED)
        latent[:, 2:last:2] = self.table(stream.table)[a, b]
        targets[:, 2:last:2] = CONTENT + 2 * self.symbols + latent[:, 2:last:2]
        return Batch(tokens, targets, {LATENT: latent})


FAMILY = Family(
    NAME,
    "Poli et al. 2024 (MAD), arXiv 2403.17844: memorization; here a key is two tokens long, as in modular addition but "
    "without a structure",
    (Memorization(4, 8), Memorization(6, 8), Memorization(8, 12), Memorization(10, 12)),
    (Latent(LATENT, "asked", "index of the fact's value"),),
    planted=False,
)
