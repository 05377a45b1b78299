"""In-context recall: bind keys to values, then answer every queried key.

Layout: ``tag k1 v1 ... kn vn q q q ...``; at each query the answer is the value bound to that key in this sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page, distinct, pick
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "recall", "recall_answer"
QUERIES = 4  # at least


@dataclass(frozen=True)
class Recall(Setting):
    """``pairs`` bindings of ``keys`` possible keys to ``values`` possible values."""

    pairs: int
    keys: int
    values: int

    @property
    def answers(self) -> int:
        return self.values

    @property
    def tokens(self) -> int:
        return self.keys + self.values

    @property
    def min_context(self) -> int:
        return 1 + 2 * self.pairs + QUERIES

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng = stream.rng
        tokens, targets = blank_page(NAME, count, context)
        keys = distinct(rng, count, self.keys, self.pairs)
        values = rng.integers(0, self.values, (count, self.pairs))
        start = 1 + 2 * self.pairs
        asked = rng.integers(0, self.pairs, (count, context - start))
        answer = pick(values, asked)
        tokens[:, 1:start:2] = CONTENT + keys
        tokens[:, 2:start:2] = CONTENT + self.keys + values
        tokens[:, start:] = CONTENT + pick(keys, asked)
        targets[:, start:] = CONTENT + self.keys + answer
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        latent[:, start:] = answer
        source[:, start:] = 2 + 2 * asked
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Poli et al. 2024, Mechanistic Design and Scaling of Hybrid Architectures (MAD), arXiv 2403.17844: in-context "
    "recall; here all pairs come first and every later token is a query",
    (
        *(Recall(3, 8, 8), Recall(4, 8, 8), Recall(5, 12, 12)),
        *(Recall(pairs, 16, 16) for pairs in (6, 8, 10, 11, 12, 14, 16)),
    ),
    (Latent(LATENT, "asked", "index of the value that the queried key is bound to"),),
)
