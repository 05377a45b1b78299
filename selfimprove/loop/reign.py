"""Which controller rules: the genome that the last hand-over gave it, and its newest weights, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from selfimprove.genome.genome import Genome
from selfimprove.loop.journal import Journal

CONTENDER, INCUMBENT = "contender", "incumbent"  # roles in a hand-over, and the verbs of their jobs' keys


@dataclass(frozen=True)
class Reign:
    """The controller as the records of some generations left it.

    Args:
        genome: its own.
        weights: path relative to the run folder; None for the initial ones.
        sha256: of that file.
    """

    genome: Genome
    weights: str | None = None
    sha256: str | None = None


def reign(journal: Journal, first: Genome, n: int) -> Reign:
    """The controller by the records of generations up to ``n``; ``first`` is the genome that the run began with."""
    updates = [b for b in journal.all("controller") if b["weights"] and b["generation"] <= n]
    handovers = [b for b in journal.all("handover") if b["accepted"] and b["generation"] <= n]
    if not handovers:
        return Reign(first, *(updates[-1][name] for name in ("weights", "sha256"))) if updates else Reign(first)
    since = handovers[-1]["generation"]  # a generation hands over before it teaches
    trial = journal.find("trial", since, CONTENDER)
    built = journal.find("genome", handovers[-1]["contender"])
    assert trial is not None  # recorded before the hand-over, as its genome is
    assert built is not None
    newest = updates[-1] if updates and updates[-1]["generation"] >= since else trial
    return Reign(Genome.from_json(built["genome"]), newest["weights"], newest["sha256"])
