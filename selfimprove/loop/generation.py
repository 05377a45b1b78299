"""One generation, in the order of the design: this page is the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.loop import gate
from selfimprove.loop.laboratory import Laboratory
from selfimprove.tasks.score import Score


@dataclass(frozen=True)
class Candidate:
    """An admitted proposal."""

    index: int
    genome: Genome
    edits: tuple[Edit, ...]


def run_generation(lab: Laboratory, n: int) -> None:
    """Select, propose, permit, train, score, inspect, decide, learn; every effect recorded once.

    Raises:
        Stopped: a limit, the kill switch, a tripwire or a person ended the run.
    """
    lab.check_limits(n)
    parent = lab.champion(before=n)
    proposals = lab.propose(n, parent)
    candidates = [Candidate(i, genome, edits) for i, genome, edits in lab.admit(n, parent, proposals)]
    reference = lab.score_parent(n, parent)
    scores = lab.score_candidates(n, [(c.index, c.genome) for c in candidates])
    lab.read_stopped(n, parent, [(c.index, c.genome, c.edits) for c in candidates])
    leader = _leader(candidates, scores)
    if leader is not None:
        decide(lab, n, parent, leader, ahead=scores[leader.index].skill > reference.skill)
    lab.learn(n)
    lab.close_generation(n)
    lab.watch(n)


def decide(lab: Laboratory, n: int, parent: Genome, leader: Candidate, *, ahead: bool) -> None:
    """Keep and inspect the leading candidate, confirm it if it is ahead of its parent, then let the gate decide."""
    lab.keep(n, leader.index, leader.genome, parent, leader.edits)
    inspection = lab.inspect(n, leader.index, leader.genome)
    confirmation = lab.confirm(n, leader.index, leader.genome, parent) if ahead else None
    config = lab.config
    decision = gate.decide(
        confirmation,
        inspection,
        alpha=config.alpha,
        retention_floor=config.inspection.retention_floor,
        instruments=config.inspection.instruments,
    )
    lab.decided(n, leader.index, leader.genome, decision)


def _leader(candidates: Sequence[Candidate], scores: dict[int, Score]) -> Candidate | None:
    """The candidate with the best mean search skill; the earlier one of equals."""
    scored = [c for c in candidates if c.index in scores]
    return max(scored, key=lambda c: (scores[c.index].skill, -c.index), default=None)
