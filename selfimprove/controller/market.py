"""Edits that may be proposed, and which of them the forecaster expects most of. Runs in the sandboxed worker.

It is asked about random edits, mutations of good ones, and combinations of two good ones. Those of which most
improvement is expected are proposed, a few at a time: each few is taken as tried, with the outcome that is expected,
before the next are chosen (the kriging believer; Ginsbourger, Le Riche and Carraro 2010). So the proposals of one
generation, which are trained at once, do not all bet on the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from selfimprove.controller.experts import ranks
from selfimprove.controller.forecaster import Forecast, Forecaster, mixture
from selfimprove.controller.forecasting import FEW, POOL, REFINED, Tried
from selfimprove.controller.genome_table import Row, row_of, table
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.random_search import draw_edits
from selfimprove.controller.variation import Variant, mutated, replayed
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome

ANYWHERE, CROSSED = 0.35, 0.35  # shares of random edits, and of combinations of two; the rest are mutations of one
GOOD = 24  # good edits that others are made of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Option:
    """Edits that may be proposed.

    Attributes:
        parent: index into the parents that were asked about.
        edits: at least one.
        row: of the genome that they lead to.
    """

    parent: int
    edits: tuple[Edit, ...]
    row: Row


class Market:
    """What may be proposed after some trials.

    Args:
        grammar: of the edits.
        parents: that edits are wanted of.
        tried: at least two, of different worth.
        rng: of the draws.
        model: None: the experts without what was learned.
    """

    def __init__(
        self,
        grammar: Grammar,
        parents: Sequence[Genome],
        tried: Sequence[Tried],
        rng: random.Random,
        model: Forecaster | None,
    ) -> None:
        self._grammar, self._parents, self._rng, self._model = grammar, parents, rng, model
        self._rows = [row_of(one.genome) for one in tried]
        self._z = ranks(np.array([one.cost for one in tried]))
        self._known = {one.genome.sha256 for one in tried} | {parent.sha256 for parent in parents}
        self._options: list[Option] = []
        self._add(POOL, [one.edits for one in sorted(tried, key=lambda one: one.cost)[:GOOD]])
        if self._options:
            worth, _ = self._appraise()
            self._add(REFINED, [self._options[at].edits for at in np.argsort(-worth, kind="stable")[:GOOD]])

    def choose(self, wanted: int) -> list[Option]:
        """So many of which most is expected, spread evenly over the parents; fewer where there are no more."""
        chosen: list[Option] = []
        left = Counter(position % len(self._parents) for position in range(wanted))
        while best := self._best(left):
            chosen += best
        return chosen

    def _best(self, left: Counter[int]) -> list[Option]:
        """The best few of the parents that have proposals left, which are then taken as tried."""
        if not self._options or not left.total():
            return []
        worth, mean = self._appraise()
        places: list[int] = []
        for at in np.argsort(-worth, kind="stable").tolist():
            if len(places) < FEW and left[self._options[at].parent]:
                left[self._options[at].parent] -= 1
                places.append(at)
        best = [self._options[at] for at in places]
        self._rows += [option.row for option in best]
        self._z = np.concatenate([self._z, mean[places]])
        self._options = [option for at, option in enumerate(self._options) if at not in places]
        return best

    def _appraise(self) -> tuple[Float[Array, " option"], Float[Array, " option"]]:
        """Of each option the improvement that is expected, and the outcome."""
        points, ordered = table([*self._rows, *(option.row for option in self._options)])
        n = len(self._rows)
        forecast = Forecast(self._model, points[:n], self._z, ordered)
        return forecast.improvement(points[n:]), mixture(forecast.experts.about(points[n:]))[0]

    def _add(self, count: int, good: Sequence[Sequence[Edit]]) -> None:
        """New options: random ones, combinations of two good ones, and mutations of one."""
        ways: list[Callable[[Genome], Variant]] = [
            lambda parent: draw_edits(self._grammar, parent, self._rng),
            lambda parent: replayed(self._grammar, parent, self._mixed(good)),
            lambda parent: mutated(self._grammar, parent, self._rng.choice(good), self._rng),
        ]
        shares = (ANYWHERE, CROSSED, 1 - ANYWHERE - CROSSED)
        for position in range(count):
            index = position % len(self._parents)
            edits, genome = self._rng.choices(ways, shares)[0](self._parents[index])
            if edits and genome.sha256 not in self._known:
                self._known.add(genome.sha256)
                self._options.append(Option(index, edits, row_of(genome)))

    def _mixed(self, good: Sequence[Sequence[Edit]]) -> list[Edit]:
        """The edits of two good ones, in an order drawn by lot."""
        both = [*self._rng.choice(good), *self._rng.choice(good)]
        return self._rng.sample(both, len(both))
