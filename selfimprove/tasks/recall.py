"""Multi-query associative recall: bind keys to values, then answer every queried key.

Source: Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models" (arXiv 2312.04927).
Layout: ``tag k1 v1 ... kn vn q q q ...``; at each query the answer is the value bound to that key in this sequence.
"""

from __future__ import annotations

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page, distinct

NAME = "recall"
KEYS = 8
ANSWERS = 8  # values; a uniform guess is right once in this many
TOKENS = KEYS + ANSWERS  # content tokens in use
LATENT = "recall_answer"
MIN_CONTEXT = 12


def generate(rng: np.random.Generator, count: int, context: int, *, pairs: int = 3) -> Batch:
    """``count`` sequences with ``pairs`` bindings each; the latent is the index of the queried key's value."""
    tokens, targets = blank_page(NAME, count, context)
    keys = distinct(rng, count, KEYS, pairs)
    values = rng.integers(0, ANSWERS, (count, pairs))
    start = 1 + 2 * pairs
    asked = rng.integers(0, pairs, (count, context - start))
    tokens[:, 1:start:2] = CONTENT + keys
    tokens[:, 2:start:2] = CONTENT + KEYS + values
    tokens[:, start:] = CONTENT + np.take_along_axis(keys, asked, axis=1)
    answer = np.take_along_axis(values, asked, axis=1)
    targets[:, start:] = CONTENT + KEYS + answer
    latent = np.full_like(targets, UNSCORED)
    latent[:, start:] = answer
    return Batch(tokens, targets, {LATENT: latent})
