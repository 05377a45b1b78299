"""Local search: the neighbours of the best that is known of a parent, each once, and a restart where they are no good.

In NAS as strong as anything where noise is low (White et al. 2021, arXiv 2005.02960). The incumbent is the best
proposal for this parent that is ahead of it by more than its standard error, or the parent itself. Its neighbours have
one edit more, one less, or one at the same place with another value. The best of all that was tried becomes the next
incumbent, so that the first better generation is moved to, and within it the steepest step. A generation cannot try all
neighbours, and a promotion makes the parent another; so what helped before is tried first, what was never tried next,
in random order, and what did not help last (don't-look bits: Bentley 1992, ORSA Journal on Computing 4).

After ``PATIENCE`` proposals in a row for a parent that gave no new incumbent, as many are spent around starts drawn at
random, one a generation; then as many around the incumbent again, and so on. Imports no torch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from selfimprove.controller.grammar import GOAL, Grammar, edits_after
from selfimprove.controller.lessons import label
from selfimprove.controller.proposer import Experience, Proposal
from selfimprove.controller.random_search import Selection, draw_edits
from selfimprove.controller.variation import Variant, replayed
from selfimprove.controller.worth import Unlearned, worths
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.seeds import derive

PATIENCE = 96  # half of the neighbours of a seed genome


class LocalSearchProposer(Unlearned):
    """Tries the neighbours of the best so far."""

    def __init__(self, space: Space) -> None:
        self._grammar = Grammar(space)

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``."""
        selection = Selection(parents, history)
        rng, known = random.Random(derive(seed, "order")), _known(history)
        around = [
            self._neighbours(parent, self._start(parent, history, derive(seed, "start", index)), known, rng)
            for index, parent in enumerate(parents)
        ]
        for position in range(count):
            index = position % len(parents)
            for edits, child in around[index]:
                if selection.offer(Proposal(index, edits), child):
                    break
        return selection.fill(self._grammar, count, derive(seed, "fill"))

    def _start(self, parent: Genome, history: Sequence[Experience], seed: int) -> tuple[Edit, ...]:
        """Edits whose neighbours are next: the incumbent's, or after too long a search around it random ones."""
        best, edits, since = 0.0, (), 0  # type: float, tuple[Edit, ...], int
        for experience in history:
            if experience.parent != parent.sha256:
                continue
            since += 1
            if experience.gain is not None and experience.gain > best and label(experience) == GOAL:
                best, edits, since = experience.gain, experience.edits, 0
        restarted = since // PATIENCE % 2 == 1
        return draw_edits(self._grammar, parent, random.Random(seed))[0] if restarted else edits

    def _neighbours(
        self, parent: Genome, edits: tuple[Edit, ...], known: Mapping[Edit, float], rng: random.Random
    ) -> Iterator[Variant]:
        """All neighbours that the grammar allows, the most promising first."""
        kept, genome = replayed(self._grammar, parent, edits)
        changed: list[tuple[float, tuple[Edit, ...]]] = []
        if len(kept) > 1:
            changed += [(0.0, (*kept[:i], *kept[i + 1 :])) for i in range(len(kept))]
        if len(kept) < self._grammar.max_edits:
            more = edits_after(self._grammar.space, genome, kept)
            changed += [(known.get(edit, 0.0), (*kept, edit)) for edit in more]
        for i, edit in enumerate(kept):
            others = self._others(parent, kept[:i], edit)
            changed += [(known.get(other, 0.0), (*kept[:i], other, *kept[i + 1 :])) for other in others]
        rng.shuffle(changed)
        for _, found in sorted(changed, key=lambda pair: -pair[0]):
            again, child = replayed(self._grammar, parent, found)
            if again == found:
                yield found, child

    def _others(self, parent: Genome, before: tuple[Edit, ...], edit: Edit) -> Iterator[Edit]:
        """The same edit with other values."""
        _, genome = replayed(self._grammar, parent, before)
        for other in edits_after(self._grammar.space, genome, before):
            if other != edit and replace(other, value=edit.value) == edit:
                yield other


def _known(history: Sequence[Experience]) -> dict[Edit, float]:
    """The best that a proposal with each edit was worth, on whatever parent; of no effect counts as of no use."""
    best: dict[Edit, float] = {}
    for experience, worth in zip(history, worths(history), strict=True):
        for edit in experience.edits if worth is not None else ():
            best[edit] = max(best.get(edit, -math.inf), worth or -math.ulp(0.0))
    return best
