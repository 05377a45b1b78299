"""Byte-level language modelling on the sources of the standard library that ships with the running Python.

Layout: ``tag b1 b2 ...``; the answer at every position is the next byte. A split is a set of files of its own, by the
hash of a file's path, and a sequence is a window at a random place in one file. Files have phrases in common, so that a
window of the gate may also occur in training: 1.5 % of those of 64 bytes do, and 14 % of those of 24, which is one
reason for the least context.

The entropy of source text is not known. Its place is taken by ``xz -9e``, which spends 1.02 nats a byte on the gate's
files after having read all training files (CPython 3.11): skill 1 is as good as that, and a better model may exceed it.
A model that sees a short window has no chance to. There is one level: text has no knob that makes it harder.

The text differs between versions of Python: equal seeds give equal lineages under one version.
Not covered: a training worker may read every file of the library, those of the sealed split too. A genome holds no code
that could; a worker that runs other code than ours could.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfimprove.tasks.batch import CONTENT, Batch, IntArray, blank_page
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, LATENT = "text", "text_class"
BYTES = 256
XZ_NATS = 1.02
SHARES = ("train",) * 6 + ("search", "gate", "sealed", "probe")  # of ten files
SKIPPED = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "__pycache__",
    "encodings",  # a hundred copies of one file
}  # fmt: skip
CLASSES = (b"abcdefghijklmnopqrstuvwxyz_", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789", b" \t", b"\r\n")
"""Of bytes; whatever is in none of them is the last class."""


@dataclass(frozen=True)
class Corpus:
    """The files of one split, end to end: their bytes, and where each begins; ``names`` in the same order."""

    names: tuple[str, ...]
    text: NDArray[np.uint8]
    begins: IntArray

    def windows(self, rng: np.random.Generator, count: int, size: int) -> IntArray:
        """``[count, size]`` bytes, each row at a uniformly random place inside one file."""
        lengths = np.diff(self.begins, append=len(self.text))
        ends = np.cumsum(np.maximum(lengths - size + 1, 0))
        drawn = rng.integers(0, ends[-1], (count, 1))
        file = np.searchsorted(ends, drawn, side="right")
        at = self.begins[file] + drawn - np.where(file > 0, ends[file - 1], 0)
        window: NDArray[np.uint8] = self.text[at + np.arange(size)]
        return window.astype(np.int64)


def split_of(name: str) -> str:
    """The split that a file belongs to, by its path below the library, with forward slashes."""
    return SHARES[int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % len(SHARES)]


@cache
def corpus(split: str) -> Corpus:
    """The files of a split, read once a process: 0.4 to 6 MB."""
    root = Path(sysconfig.get_path("stdlib"))
    names = []
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in SKIPPED]
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    mine = sorted(name for name in names if split_of(name) == split)
    data = [(root / name).read_bytes() for name in mine]
    begins = np.cumsum([0, *map(len, data)])[:-1].astype(np.int64)
    return Corpus(tuple(mine), np.frombuffer(b"".join(data), dtype=np.uint8), begins)


def _classes() -> IntArray:
    """``[256]`` the class of each byte."""
    table = np.full(BYTES, len(CLASSES), dtype=np.int64)
    for number, members in enumerate(CLASSES):
        table[list(members)] = number
    return table


@dataclass(frozen=True)
class Text(Setting):
    """Windows of files; no knobs."""

    @property
    def answers(self) -> int:
        return BYTES

    @property
    def tokens(self) -> int:
        return BYTES

    @property
    def min_context(self) -> int:
        return 64

    def floor(self, context: int) -> float:
        """What ``xz`` spends; see above."""
        return XZ_NATS

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        window = corpus(stream.split).windows(stream.rng, count, context)
        tokens, _ = blank_page(NAME, count, context)
        tokens[:, 1:] = CONTENT + window[:, :-1]
        return Batch(tokens, CONTENT + window, {LATENT: _classes()[window]})


FAMILY = Family(
    NAME,
    "The sources of CPython's standard library; bytes as in Al-Rfou et al. 2018, Character-Level Language Modeling "
    "with Deeper Self-Attention, arXiv 1808.04444",
    (Text(),),
    (Latent(LATENT, "asked", "class of the next byte: lower case, upper case, digit, space, line end, other"),),
    planted=False,
)
