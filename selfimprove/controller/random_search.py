"""Uniform valid edits: the first baseline, and what fills up where a model repeats itself. Imports no torch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfimprove.controller.grammar import edits_after
from selfimprove.controller.proposer import Experience, Proposal, Update
from selfimprove.genome.edits import Edit, apply
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space

TRIES = 64  # draws per proposal before a repetition is accepted


def draw_edit(options: Iterable[Edit], rng: random.Random) -> Edit:
    """Draw uniformly over kinds, then over the paths of the kind, then over the edits of the path."""
    kinds: dict[str, dict[str, list[Edit]]] = {}
    for edit in options:
        kinds.setdefault(edit.kind, {}).setdefault(edit.path, []).append(edit)
    paths = kinds[rng.choice(sorted(kinds))]
    return rng.choice(paths[rng.choice(sorted(paths))])


def draw_edits(space: Space, parent: Genome, rng: random.Random) -> tuple[tuple[Edit, ...], Genome]:
    """Draw 1 to ``space.config.max_edits`` edits; after each, one more with probability one half.

    Returns:
        The edits, and the genome they lead to.
    """
    edits: tuple[Edit, ...] = ()
    genome = parent
    while not edits or (len(edits) < space.config.max_edits and rng.random() < 0.5):
        edit = draw_edit(edits_after(space, genome, edits), rng)
        genome = apply(edit, genome, space)
        edits = (*edits, edit)
    return edits, genome


class Selection:
    """Proposals accepted so far, each leading to a genome of its own that is no parent.

    Args:
        parents: genomes to propose edits of.
        history: proposals to avoid.
    """

    def __init__(self, parents: Sequence[Genome], history: Iterable[Experience]) -> None:
        self.parents = parents
        self.proposals: list[Proposal] = []
        self._taken = {parent.sha256 for parent in parents}
        self._seen = {(experience.parent, experience.edits) for experience in history}

    def offer(self, proposal: Proposal, child: Genome, *, seen_too: bool = False) -> bool:
        """Accept the proposal unless it is a repetition; ``seen_too`` accepts one of an earlier generation."""
        seen = (self.parents[proposal.parent].sha256, proposal.edits) in self._seen
        if child.sha256 in self._taken or (seen and not seen_too):
            return False
        self._taken.add(child.sha256)
        self.proposals.append(proposal)
        return True

    def fill(self, space: Space, count: int, seed: int) -> list[Proposal]:
        """Add uniform proposals until there are ``count``, or bounded re-sampling finds no new one."""
        rng = random.Random(seed)
        for position in range(len(self.proposals), count):
            parent = position % len(self.parents)
            for attempt in range(2 * TRIES):
                edits, child = draw_edits(space, self.parents[parent], rng)
                if self.offer(Proposal(parent, edits), child, seen_too=attempt >= TRIES):
                    break
        return self.proposals


class RandomProposer:
    """Proposes uniform valid edits and learns nothing."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``."""
        return Selection(parents, history).fill(self._space, count, seed)

    def tell(self, history: Sequence[Experience], seed: int) -> Update:
        """Nothing to learn, nothing to pay."""
        return Update(flops=0)

    def restore(self, weights: Path | None) -> None:
        """Nothing to restore."""
