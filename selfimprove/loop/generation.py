"""One generation, in the order of the design: this page is the loop."""

from __future__ import annotations

from collections.abc import Sequence

from selfimprove.genome.genome import Genome
from selfimprove.loop import gate
from selfimprove.loop.admission import Candidate
from selfimprove.loop.laboratory import Laboratory
from selfimprove.tasks.score import Score


def run_generation(lab: Laboratory, n: int) -> None:
    """Select, propose, apply, quote, train, inspect, decide, climb, hand over, learn; every effect recorded once.

    A training is cut into stages. Each needs a permit of its own, which is signed as it starts, and not before the
    checkpoint of the stage before was evaluated and its constraint probed.

    Raises:
        Stopped: a limit, the kill switch, a tripwire or a person ended the run.
    """
    lab.check_limits(n)
    parent = lab.champion(before=n)
    proposals = lab.propose(n, parent)
    candidates = lab.apply(n, parent, proposals)
    admitted = lab.quote(n, parent, candidates)
    reference = lab.train_parent(n, parent)
    scores = lab.train(n, admitted)
    lab.read_stopped(n, parent, admitted)
    leader = _leader(admitted, scores)
    if leader is not None:
        ahead = scores[leader.index].skill - reference.skill > lab.config.min_gain
        decide(lab, n, parent, leader, ahead=ahead)
    lab.climb(n, reference)
    lab.hand_over(n)
    lab.learn(n)
    lab.close_generation(n)
    lab.watch(n)


def decide(lab: Laboratory, n: int, parent: Genome, leader: Candidate, *, ahead: bool) -> None:
    """Keep and inspect the leading candidate, confirm it if it is ahead of its parent, then let the gate decide."""
    lab.keep(n, leader, parent)
    inspection = lab.inspect(n, leader, parent)
    confirmation = lab.confirm(n, leader, parent) if ahead else None
    config = lab.config
    decision = gate.decide(
        confirmation,
        inspection,
        alpha=config.alpha,
        retention_floor=config.inspection.retention_floor,
        instruments=config.inspection.instruments,
        retention_gate=config.inspection.retention_gate,
        intact=lab.intact(n, leader),
    )
    lab.decided(n, leader, decision)


def _leader(candidates: Sequence[Candidate], scores: dict[int, Score]) -> Candidate | None:
    """The candidate with the best mean search skill; the earlier one of equals."""
    scored = [c for c in candidates if c.index in scores]
    return max(scored, key=lambda c: (scores[c.index].skill, -c.index), default=None)
