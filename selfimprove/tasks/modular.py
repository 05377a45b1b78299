"""Modular addition: several independent problems ``a b -> (a + b) mod p`` in one sequence.

Source: Power et al. 2022, "Grokking" (arXiv 2201.02177); Nanda et al. 2023 (arXiv 2301.05217). Every pair may occur in
training: this measures how fast a structured table is learned, not generalization to held-out pairs.
Layout: ``tag a b a b ...``, with separate symbols for the two operands; the answer is asked at each b and never shown.
"""

from __future__ import annotations

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page

NAME = "modular"
ANSWERS = 7  # the modulus
TOKENS = 2 * ANSWERS
LATENT = "modular_sum"
MIN_CONTEXT = 3


def generate(rng: np.random.Generator, count: int, context: int) -> Batch:
    """``count`` sequences of ``(context - 1) // 2`` problems; the latent is the answer."""
    tokens, targets = blank_page(NAME, count, context)
    problems = (context - 1) // 2
    stop = 1 + 2 * problems
    a, b = rng.integers(0, ANSWERS, (2, count, problems))
    answer = (a + b) % ANSWERS
    tokens[:, 1:stop:2] = CONTENT + a
    tokens[:, 2:stop:2] = CONTENT + ANSWERS + b
    targets[:, 2:stop:2] = CONTENT + answer
    latent = np.full_like(targets, UNSCORED)
    latent[:, 2:stop:2] = answer
    return Batch(tokens, targets, {LATENT: latent})
