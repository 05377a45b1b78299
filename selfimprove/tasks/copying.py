"""Selective copying: repeat the content tokens of a noisy passage in order, skipping the blanks.

Source: Gu & Dao 2023, "Mamba" (arXiv 2312.00752); Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid
Architectures" (arXiv 2403.17844).
Layout: ``tag body GO c1 c2 ...`` where the body holds the content in order among blanks. The answer so far is shown
(teacher forcing), so the model must find the last copied token and skip to the next content after it.
"""

from __future__ import annotations

import numpy as np

from selfimprove.tasks.batch import BLANK, CONTENT, GO, UNSCORED, Batch, blank_page, distinct

NAME = "copy"
ANSWERS = 12  # symbols
TOKENS = ANSWERS
LATENT = "copy_gap"
MIN_CONTEXT = 16
LARGEST_GAP = 2


def generate(rng: np.random.Generator, count: int, context: int, *, items: int = 6) -> Batch:
    """``count`` sequences with ``items`` content tokens each; the latent is the blanks to skip (at most 2)."""
    tokens, targets = blank_page(NAME, count, context)
    body = context - items - 2  # between the tag and GO
    where = np.sort(distinct(rng, count, body, items), axis=1)
    content = CONTENT + distinct(rng, count, ANSWERS, items)
    tokens[:, 1 : 1 + body] = BLANK
    np.put_along_axis(tokens, 1 + where, content, axis=1)
    go = 1 + body
    tokens[:, go] = GO
    tokens[:, go + 1 : go + items] = content[:, :-1]
    targets[:, go : go + items] = content
    latent = np.full_like(targets, UNSCORED)
    latent[:, go + 1 : go + items] = np.minimum(np.diff(where, axis=1) - 1, LARGEST_GAP)
    return Batch(tokens, targets, {LATENT: latent})
