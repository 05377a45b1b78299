"""What every task generator returns, and the tokens that all tasks share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

UNSCORED = -1  # in targets: no loss and no score here; in latents and sources: undefined here
SPECIAL = ("pad", "halt", "halted", "go", "blank")
PAD, HALT, HALTED, GO, BLANK = range(len(SPECIAL))
TAGGED = (
    "recall", "copy", "modular", "fuzzy", "noisy", "mqar", "compression", "memorization", "induction", "dyck", "text",
)  # fmt: skip
"""Every family, in the order of their tags; ``selfimprove.tasks.registry`` says what each one is."""
TAGS = {name: len(SPECIAL) + place for place, name in enumerate(TAGGED)}  # the first token of a sequence names its task
CONTENT = len(SPECIAL) + len(TAGS)  # first content token; everything from here on is a task's own


@dataclass(frozen=True)
class Batch:
    """Sequences of one task.

    Attributes:
        tokens: ``[n, pos]`` model input.
        targets: ``[n, pos]`` right answer at each position, ``UNSCORED`` where none is asked for.
        latents: name -> ``[n, pos]`` variables that probes may read, ``UNSCORED`` where undefined.
        source: ``[n, pos]`` planted ground truth: the one position that an answer can be read from, ``UNSCORED`` where
            the task has no such place. None for a family without any.
    """

    tokens: IntArray
    targets: IntArray
    latents: dict[str, IntArray] = field(default_factory=dict)
    source: IntArray | None = None

    def rows(self, chosen: NDArray[np.bool_]) -> Batch:
        """The sequences that are ``chosen [n]``."""
        latents = {name: values[chosen] for name, values in self.latents.items()}
        return Batch(
            self.tokens[chosen], self.targets[chosen], latents, None if self.source is None else self.source[chosen]
        )


def blank_page(name: str, count: int, context: int) -> tuple[IntArray, IntArray]:
    """Tokens (tag, then padding) and targets that ask for nothing, both ``[count, context]``."""
    tokens = np.full((count, context), PAD, dtype=np.int64)
    tokens[:, 0] = TAGS[name]
    return tokens, np.full((count, context), UNSCORED, dtype=np.int64)


def distinct(rng: np.random.Generator, count: int, population: int, size: int) -> IntArray:
    """``[count, size]`` rows of distinct integers below ``population``, in uniformly random order."""
    return np.argsort(rng.random((count, population)), axis=1)[:, :size].astype(np.int64)


def pick(rows: IntArray, columns: IntArray) -> IntArray:
    """``rows[i, columns[i, j]]``, both ``[n, *]``."""
    return np.take_along_axis(rows, columns, axis=1)
