"""Fuzzy recall: keys are several tokens long, so that no single token of a query says which key it is.

Layout: ``tag [a a v] [a a v] ... a a a a ...``, a key being ``width`` symbols; the answer is asked at a query's last
symbol.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page, distinct, pick
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "fuzzy", "fuzzy_answer"
QUERIES = 2  # at least


@dataclass(frozen=True)
class Fuzzy(Setting):
    """``pairs`` bindings of keys of ``width`` symbols out of ``symbols`` to ``values`` possible values."""

    pairs: int
    width: int
    symbols: int
    values: int

    @property
    def answers(self) -> int:
        return self.values

    @property
    def tokens(self) -> int:
        return self.symbols + self.values

    @property
    def min_context(self) -> int:
        return 1 + self.pairs * (self.width + 1) + QUERIES * self.width

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng = stream.rng
        tokens, targets = blank_page(NAME, count, context)
        numbers = distinct(rng, count, self.symbols**self.width, self.pairs)
        keys = numbers[..., None] // self.symbols ** np.arange(self.width) % self.symbols  # [n, pairs, width]
        values = rng.integers(0, self.values, (count, self.pairs))
        start = 1 + self.pairs * (self.width + 1)
        queries = (context - start) // self.width
        asked = rng.integers(0, self.pairs, (count, queries))
        stop = start + queries * self.width
        bound = np.concatenate([keys, self.symbols + values[..., None]], axis=2)
        tokens[:, 1:start] = CONTENT + bound.reshape(count, -1)
        tokens[:, start:stop] = CONTENT + np.take_along_axis(keys, asked[..., None], axis=1).reshape(count, -1)
        ends = slice(start + self.width - 1, stop, self.width)
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        latent[:, ends] = pick(values, asked)
        targets[:, ends] = CONTENT + self.symbols + latent[:, ends]
        source[:, ends] = (asked + 1) * (self.width + 1)
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Poli et al. 2024 (MAD), arXiv 2403.17844: fuzzy in-context recall; here all keys of a level are equally long and "
    "values are single tokens",
    (
        *(Fuzzy(3, 2, 4, 8), Fuzzy(3, 3, 4, 8), Fuzzy(4, 3, 5, 8), Fuzzy(4, 3, 6, 12)),
        *(Fuzzy(5, 3, 8, 12), Fuzzy(6, 3, 8, 12), Fuzzy(8, 3, 8, 16), Fuzzy(10, 3, 8, 16)),
    ),
    (Latent(LATENT, "asked", "index of the value that the queried key is bound to"),),
)
