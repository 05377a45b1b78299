"""What every task generator returns, and the tokens that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

UNSCORED = -1  # in targets: no loss and no score here; in latents: undefined here
PAD, HALT, HALTED, GO, BLANK = 0, 1, 2, 3, 4
TAGS = {"recall": 5, "copy": 6, "modular": 7}  # the first token of a sequence names its task
CONTENT = 8  # first content token; everything from here on is a task's own


@dataclass(frozen=True)
class Batch:
    """Sequences of one task.

    Attributes:
        tokens: ``[n, pos]`` model input.
        targets: ``[n, pos]`` right answer at each position, ``UNSCORED`` where none is asked for.
        latents: name -> ``[n, pos]`` variables that probes may read, ``UNSCORED`` where undefined.
    """

    tokens: IntArray
    targets: IntArray
    latents: dict[str, IntArray] = field(default_factory=dict)


def blank_page(name: str, count: int, context: int) -> tuple[IntArray, IntArray]:
    """Tokens (tag, then padding) and targets that ask for nothing, both ``[count, context]``."""
    tokens = np.full((count, context), PAD, dtype=np.int64)
    tokens[:, 0] = TAGS[name]
    return tokens, np.full((count, context), UNSCORED, dtype=np.int64)


def distinct(rng: np.random.Generator, count: int, population: int, size: int) -> IntArray:
    """``[count, size]`` rows of distinct integers below ``population``, in uniformly random order."""
    return np.argsort(rng.random((count, population)), axis=1)[:, :size].astype(np.int64)
