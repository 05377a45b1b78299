"""Multi-query associative recall: each bound key is queried once, at a distance that follows a power law.

Layout: ``tag k1 v1 ... kn vn`` and then blanks, among which every key stands once; the answer is asked there.

Pairs take their places in turn, so that the order of the queries says something of the pair that is meant: at the
first level the first query is for the first pair with a chance of 0.40, not 0.33. To whoever does not look at the key
that is worth 0.003 of skill there, and 0.04 at the upper levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import BLANK, CONTENT, UNSCORED, Batch, blank_page, distinct
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "mqar", "mqar_answer"
POWER = 0.01  # Zoology's: the place x of the tail is drawn with weight x ** (POWER - 1)


@dataclass(frozen=True)
class Mqar(Setting):
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
        return 1 + 3 * self.pairs

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng = stream.rng
        tokens, targets = blank_page(NAME, count, context)
        keys = distinct(rng, count, self.keys, self.pairs)
        values = rng.integers(0, self.values, (count, self.pairs))
        start = 1 + 2 * self.pairs
        tokens[:, 1:start:2] = CONTENT + keys
        tokens[:, 2:start:2] = CONTENT + self.keys + values
        tokens[:, start:] = BLANK
        # the largest of log weights plus Gumbel noise: draws without replacement, one place a key
        weight = (POWER - 1) * np.log(np.arange(1, context - start + 1))
        where = start + np.argsort(-(weight + rng.gumbel(size=(count, context - start))), axis=1)[:, : self.pairs]
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        np.put_along_axis(tokens, where, CONTENT + keys, axis=1)
        np.put_along_axis(targets, where, CONTENT + self.keys + values, axis=1)
        np.put_along_axis(latent, where, values, axis=1)
        np.put_along_axis(source, where, np.broadcast_to(2 + 2 * np.arange(self.pairs), where.shape), axis=1)
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Arora et al. 2023, Zoology: Measuring and Improving Recall in Efficient Language Models, arXiv 2312.04927: MQAR; "
    "blanks between the queries, power 0.01",
    (Mqar(3, 12, 12), Mqar(4, 12, 12), *(Mqar(pairs, 16, 16) for pairs in (5, 7, 8, 9, 10, 12, 14, 16))),
    (Latent(LATENT, "asked", "index of the value that the queried key is bound to"),),
)
