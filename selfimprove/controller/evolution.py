"""Regularized evolution (Real et al. 2019, arXiv 1802.01548), in generations. Imports no torch.

The population is what was proposed last: who is older dies, however good. Of a few of them, drawn by lot, the best by
its gain over the run's first parent is mutated by one edit of the grammar. A proposal must be made of edits of the
parent that was asked about, which the original does not know: so an individual is its edits, replayed on that parent
as far as they apply to it. Those of one generation are drawn from the same population, as they are trained at once.
Until something is known proposals are random; the original fills its population so first, which is more than a short
run has.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.proposer import Experience, GenomeOf, Proposal
from selfimprove.controller.random_search import TRIES, Selection
from selfimprove.controller.variation import mutated
from selfimprove.controller.worth import Unlearned, standings
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.seeds import derive

Individual = tuple[float, tuple[Edit, ...]]
"""Gain over the run's first parent, and the edits that led there from its own parent."""


class EvolutionProposer(Unlearned):
    """Mutates winners of tournaments among the most recent proposals.

    Args:
        config: its ``population`` and ``tournament``.
        space: where the edits come from.
        genome_of: finds the parents of the history.
    """

    def __init__(self, config: ControllerConfig, space: Space, genome_of: GenomeOf) -> None:
        self._grammar = Grammar(space)
        self._genome_of = genome_of
        self._population, self._tournament = config.population, config.tournament

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``."""
        rng, selection, alive = random.Random(seed), Selection(parents, history), self._alive(history)
        for position in range(count if alive else 0):
            index = position % len(parents)
            for _ in range(TRIES):
                _, edits = max(rng.choices(alive, k=self._tournament), key=lambda individual: individual[0])
                found, child = mutated(self._grammar, parents[index], edits, rng)
                if selection.offer(Proposal(index, found), child):
                    break
        return selection.fill(self._grammar, count, derive(seed, "fill"))

    def _alive(self, history: Sequence[Experience]) -> list[Individual]:
        """The youngest individuals whose worth is known."""
        standing = standings(history, self._genome_of, self._grammar.space)
        known = [(value, one.edits) for one, value in zip(history, standing, strict=True) if value is not None]
        return known[-self._population :]
