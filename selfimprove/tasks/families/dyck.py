"""Dyck language of bounded depth: brackets of several kinds, properly nested, predicted one by one.

Layout: ``tag`` and then a prefix of a random word. At depth 0 a bracket opens; at the greatest depth one closes; in
between either happens with probability one half. An opening bracket is of any kind, a closing one of the kind that was
opened last. Which bracket closes is certain, whether one opens and of which kind is not: that entropy is irreducible.

A skill is no proof of a stack: whoever knows the depth and the last token, which closes as it opened, has 0.83 at the
first level and 0.64 at the last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from selfimprove.tasks.batch import CONTENT, UNSCORED, Batch, blank_page
from selfimprove.tasks.family import Family, Latent, Setting, Stream

NAME, DEPTH, TOP = "dyck", "dyck_depth", "dyck_top"


@dataclass(frozen=True)
class Dyck(Setting):
    """``kinds`` of brackets, at most ``depth`` open at once."""

    kinds: int
    depth: int

    @property
    def answers(self) -> int:
        return 2 * self.kinds

    @property
    def tokens(self) -> int:
        return 2 * self.kinds

    @property
    def min_context(self) -> int:
        return 2 * self.depth

    def floor(self, context: int) -> float:
        """Exact: the entropy of the next bracket given the depth, under the depth's distribution at each position."""
        choice = np.full(self.depth + 1, math.log(2) + 0.5 * math.log(self.kinds))
        choice[0], choice[self.depth] = math.log(self.kinds), 0.0
        up = np.full(self.depth + 1, 0.5)
        up[0], up[self.depth] = 1.0, 0.0
        at, total = np.eye(self.depth + 1)[0], 0.0
        for _ in range(context):
            total += float(at @ choice)
            at = np.concatenate([[0.0], (at * up)[:-1]]) + np.concatenate([(at * (1 - up))[1:], [0.0]])
        return total / context

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        rng, rows = stream.rng, np.arange(count)
        tokens, _ = blank_page(NAME, count, context)
        coin, drawn = rng.random((context, count)) < 0.5, rng.integers(0, self.kinds, (context, count))
        symbol, latent_depth, latent_top, source = np.full((4, context, count), UNSCORED, dtype=np.int64)
        open_kind, open_at = np.full((2, count, self.depth + 1), UNSCORED, dtype=np.int64)  # column 0: nothing is open
        now = np.zeros(count, dtype=np.int64)
        for step in range(context):
            up = (now == 0) | ((now < self.depth) & coin[step])
            top = open_kind[rows, now]
            latent_depth[step], latent_top[step] = now, top
            symbol[step] = np.where(up, drawn[step], self.kinds + top)
            source[step] = np.where(up, UNSCORED, open_at[rows, now])
            now = now + np.where(up, 1, -1)
            open_kind[rows[up], now[up]] = drawn[step][up]
            open_at[rows[up], now[up]] = step + 1
        tokens[:, 1:] = CONTENT + symbol.T[:, :-1]
        return Batch(tokens, CONTENT + symbol.T, {DEPTH: latent_depth.T, TOP: latent_top.T}, source.T)


FAMILY = Family(
    NAME,
    "Hewitt et al. 2020, RNNs can generate bounded hierarchical languages with optimal memory, arXiv 2010.07515: "
    "Dyck-(k, m)",
    (Dyck(2, 3), Dyck(3, 4), Dyck(4, 6), Dyck(6, 8), Dyck(8, 10), Dyck(10, 12), Dyck(12, 16), Dyck(16, 24)),
    (
        Latent(DEPTH, "asked", "brackets that are open before the asked one"),
        Latent(TOP, "some asked", "kind of the bracket opened last; where one is open"),
    ),
)
