"""What past proposals were worth, for the baselines that search by numbers. Imports no torch.

An experience says how much a candidate gained over its own parent. Edits keep their worth from parent to parent as far
as their effects add up, so a baseline that thinks in edits reads gains as they are; one that thinks in genomes adds up
the gains of the promotions that led to their parent. What comes without a gain, or with one that says something else:

- *Cut by halving*: the gain is that of an early stage, at most that of the best that went on. It counts as it is: who
  is ahead of the parent by then is so at the end more often than not.
- *Refused after its confirmation*: no gain. That of the search seeds was luck, or the gate asked for something else.
- *Denied, failed*: as bad as the worst that was measured. Left out, it would be proposed again and again; a constant
  would mean something else on every task.
- *Invalid, duplicate, over what is left of the budget, or beside a parent that failed itself*: nothing is known, and
  nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfimprove.controller.proposer import Experience, GenomeOf, Update
from selfimprove.genome.edits import apply
from selfimprove.genome.space import Space

UNTRAINABLE = ("denied", "failed")


def worths(history: Sequence[Experience]) -> list[float | None]:
    """Gain of each proposal over its own parent, in skill; None where nothing is known of it."""
    gains = [None if one.outcome in UNTRAINABLE else one.gain for one in history]
    worst = min((gain for gain in gains if gain is not None), default=0.0)
    floor = min(worst, 0.0)
    pairs = zip(history, gains, strict=True)
    return [floor if gain is None and one.outcome in UNTRAINABLE else gain for one, gain in pairs]


def standings(history: Sequence[Experience], genome_of: GenomeOf, space: Space) -> list[float | None]:
    """Gain of each proposal over the run's first parent: its own, and those of the promotions that led to its parent.

    The gain of a promotion is that of the best of many and so flatters; it flatters all that descend from it alike.

    Raises:
        KeyError: ``genome_of`` does not know a parent.
    """
    reached: dict[str, float] = {}
    found: list[float | None] = []
    for experience, worth in zip(history, worths(history), strict=True):
        base = reached.setdefault(experience.parent, 0.0)
        found.append(None if worth is None else base + worth)
        if experience.outcome == "promoted" and worth is not None:
            genome = genome_of(experience.parent)
            for edit in experience.edits:
                genome = apply(edit, genome, space)
            reached[genome.sha256] = base + worth
    return found


class Unlearned:
    """What proposers share whose only memory is the history that they are asked with: nothing to tell or restore."""

    def tell(self, history: Sequence[Experience], seed: int) -> Update:
        """Nothing to learn, nothing to pay."""
        return Update(flops=0)

    def restore(self, weights: Path | None) -> None:
        """Nothing to restore."""
