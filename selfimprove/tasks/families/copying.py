"""Selective copying: repeat the content tokens of a noisy passage in order, skipping the blanks.

Layout: ``tag body GO c1 c2 ...`` where the body holds the content in order among blanks. The answer so far is shown
(teacher forcing), so the model must find the last copied token and skip to the next content after it. Where symbols
may repeat, the last copied token alone does not say how far the copy has come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import BLANK, CONTENT, GO, UNSCORED, Batch, blank_page, distinct
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "copy", "copy_gap"
LARGEST_GAP = 2
BLANKS = 2  # at least


@dataclass(frozen=True)
class Copying(Setting):
    """``items`` content tokens of ``symbols`` kinds, all different unless ``repeats``."""

    items: int
    symbols: int
    repeats: int

    @property
    def answers(self) -> int:
        return self.symbols

    @property
    def tokens(self) -> int:
        return self.symbols

    @property
    def min_context(self) -> int:
        return 1 + 2 * self.items + BLANKS

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng = stream.rng
        tokens, targets = blank_page(NAME, count, context)
        body = context - 1 - self.items  # between the tag and GO
        where = 1 + np.sort(distinct(rng, count, body, self.items), axis=1)
        shape = (count, self.items)
        drawn = rng.integers(0, self.symbols, shape) if self.repeats else distinct(rng, count, self.symbols, self.items)
        go = 1 + body
        tokens[:, 1:go] = BLANK
        np.put_along_axis(tokens, where, CONTENT + drawn, axis=1)
        tokens[:, go] = GO
        tokens[:, go + 1 :] = CONTENT + drawn[:, :-1]
        targets[:, go:] = CONTENT + drawn
        latent, source = np.full((2, *tokens.shape), UNSCORED, dtype=np.int64)
        latent[:, go + 1 :] = np.minimum(np.diff(where, axis=1) - 1, LARGEST_GAP)
        source[:, go:] = where
        return Batch(tokens, targets, {LATENT: latent}, source)


FAMILY = Family(
    NAME,
    "Gu and Dao 2023, Mamba, arXiv 2312.00752: selective copying; Poli et al. 2024 (MAD), arXiv 2403.17844",
    (
        *(Copying(6, 12, 0), Copying(6, 12, 1), Copying(7, 16, 1), Copying(8, 24, 1)),
        *(Copying(items, 32, 1) for items in (10, 12, 16, 24)),
    ),
    (Latent(LATENT, "some asked", "blanks to skip before the next content, at most 2; not at GO"),),
)
