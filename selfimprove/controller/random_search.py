"""Random valid edits: the first baseline, and what fills up where a model repeats itself. Imports no torch.

They are drawn as the learned controller draws them before it has learned anything: token by token, evenly between the
tokens that the grammar allows. So the two arms differ by learning and by nothing else. This is not uniform over whole
edits: every place that can be edited has an equal share, and its values share what it has.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfimprove.controller.grammar import Grammar
from selfimprove.controller.proposer import Experience, Proposal, Update
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space

TRIES = 64  # draws per proposal before a repetition is accepted


def draw_edits(grammar: Grammar, parent: Genome, rng: random.Random) -> tuple[tuple[Edit, ...], Genome]:
    """Draw the edits of one proposal, each token evenly from those that the grammar allows there.

    Returns:
        The edits, and the genome they lead to. A way into a genome without further edits is drawn again.

    Raises:
        InvalidEdit: the parent itself has no edits.
    """
    while True:
        walk = grammar.walk(parent)
        if not walk.allowed:
            raise InvalidEdit("draw edits", parent.short, "a genome that the space has edits of")
        while walk.allowed:
            walk.step(rng.choice(walk.allowed))
        if walk.finished:
            return walk.edits, walk.genome


class Selection:
    """Proposals accepted so far, each leading to a genome of its own that is no parent.

    Args:
        parents: genomes to propose edits of.
        history: proposals to avoid, by their edits and by the genome that these lead to: the loop trains none twice.
    """

    def __init__(self, parents: Sequence[Genome], history: Iterable[Experience]) -> None:
        self.parents = parents
        self.proposals: list[Proposal] = []
        self._taken = {parent.sha256 for parent in parents}
        past = list(history)
        self._seen = {(experience.parent, experience.edits) for experience in past}
        self._known = {experience.child for experience in past}

    def offer(self, proposal: Proposal, child: Genome, *, seen_too: bool = False) -> bool:
        """Accept the proposal unless it is a repetition; ``seen_too`` accepts one of an earlier generation."""
        seen = (self.parents[proposal.parent].sha256, proposal.edits) in self._seen or child.sha256 in self._known
        if child.sha256 in self._taken or (seen and not seen_too):
            return False
        self._taken.add(child.sha256)
        self.proposals.append(proposal)
        return True

    def fill(self, grammar: Grammar, count: int, seed: int) -> list[Proposal]:
        """Add random proposals until there are ``count``, or bounded re-sampling finds no new one.

        The parents that have the fewest come first.
        """
        rng = random.Random(seed)
        turns = Counter(proposal.parent for proposal in self.proposals)
        for _ in range(len(self.proposals), count):
            parent = min(range(len(self.parents)), key=lambda index: turns[index])
            turns[parent] += 1
            for attempt in range(2 * TRIES):
                edits, child = draw_edits(grammar, self.parents[parent], rng)
                if self.offer(Proposal(parent, edits), child, seen_too=attempt >= TRIES):
                    break
        return self.proposals


class RandomProposer:
    """Proposes what the learned controller proposes at its start, and learns nothing."""

    def __init__(self, space: Space) -> None:
        self._grammar = Grammar(space)

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``."""
        return Selection(parents, history).fill(self._grammar, count, seed)

    def tell(self, history: Sequence[Experience], seed: int) -> Update:
        """Nothing to learn, nothing to pay."""
        return Update(flops=0)

    def restore(self, weights: Path | None) -> None:
        """Nothing to restore."""
