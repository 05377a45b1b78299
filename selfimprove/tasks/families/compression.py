"""Compression: read a random passage, then give it back from blanks alone, token by token.

Layout: ``tag c1 ... cn BLANK... GO BLANK...``, with a random number of blanks before GO; the answer at the i-th token
from GO on is the i-th content token. Nothing of the answer is ever shown, so a query has no content to match: the model
must know how far it is from GO, or have gathered the passage at GO.

MAD lets its decoder see one vector only, so that the passage must be compressed into it. A causal model here may look
back at the passage; what is left of the original is recall by place instead of by content.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import BLANK, CONTENT, GO, UNSCORED, Batch, blank_page
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "compression", "compression_place"


@dataclass(frozen=True)
class Compression(Setting):
    """A passage of ``items`` tokens of ``symbols`` kinds."""

    items: int
    symbols: int

    @property
    def answers(self) -> int:
        return self.symbols

    @property
    def tokens(self) -> int:
        return self.symbols

    @property
    def min_context(self) -> int:
        return 1 + 2 * self.items

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng, items = stream.rng, self.items
        tokens, targets = blank_page(NAME, count, context)
        content = CONTENT + rng.integers(0, self.symbols, (count, items))
        go = 1 + items + rng.integers(0, context - 2 * items, (count, 1))  # the answers still fit behind it
        where, place = go + np.arange(items), np.broadcast_to(np.arange(items), (count, items))
        tokens[:, 1:] = BLANK
        tokens[:, 1 : 1 + items] = content
        np.put_along_axis(tokens, go, GO, axis=1)
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        np.put_along_axis(targets, where, content, axis=1)
        np.put_along_axis(latent, where, place, axis=1)
        np.put_along_axis(source, where, 1 + place, axis=1)
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Poli et al. 2024 (MAD), arXiv 2403.17844: compression; here without MAD's separate decoder",
    (
        *(Compression(6, 24), Compression(7, 24), Compression(8, 28)),
        *(Compression(items, 32) for items in (9, 12, 15, 20, 24)),
    ),
    (Latent(LATENT, "asked", "which token of the passage is asked for, from 0"),),
)
