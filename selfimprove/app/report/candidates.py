"""Gather everything the ledger says about each proposal into one `Candidate`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from selfimprove.app.report.records import Record, Records, integer, job_place, shown, text, texts
from selfimprove.app.report.views import Candidate, Charge, Denial, Fate, Outcome, Score

_Place = tuple[int, int]


def build_candidates(
    records: Records,
    scores: Mapping[_Place, Score],
    charges: Collection[Charge],
    closed: Collection[int],
) -> tuple[Candidate, ...]:
    """One candidate per proposal, ordered by generation and index.

    Args:
        records: the whole ledger.
        scores: search scores by (generation, index).
        charges: all charges; those whose key names the candidate are summed, in FLOPs.
        closed: generations that are over, in which an undecided candidate counts as rejected.
    """
    denials = {place: _denial(line) for line in records.of("denial") if (place := _place(line))}
    decisions = {place: line for line in records.of("decision") if (place := _place(line))}
    outcomes: dict[_Place, list[Outcome]] = defaultdict(list)
    for line in records.of("outcome"):
        outcome = Outcome(text(line.body.get("key")), text(line.body.get("status")), text(line.body.get("reason")))
        generation, index = job_place(outcome.key)
        if generation is not None and index is not None:
            outcomes[generation, index].append(outcome)
    flops: dict[_Place, int] = defaultdict(int)
    for charge in charges:
        generation, index = job_place(charge.key)
        if generation is not None and index is not None:
            flops[generation, index] += charge.flops
    found = {}
    for line in records.of("proposal"):
        place = _place(line)
        if place is None:
            continue
        decision = decisions.get(place)
        found[place] = _candidate(
            line,
            place,
            flops=flops[place],
            score=scores.get(place),
            denial=denials.get(place),
            outcomes=tuple(outcomes[place]),
            decision=decision,
            closed=place[0] in closed,
        )
    return tuple(found[place] for place in sorted(found))


def _candidate(
    line: Record,
    place: _Place,
    *,
    flops: int,
    score: Score | None,
    denial: Denial | None,
    outcomes: tuple[Outcome, ...],
    decision: Record | None,
    closed: bool,
) -> Candidate:
    body = line.body
    promoted = decision.body.get("promoted") if decision else None
    return Candidate(
        generation=place[0],
        index=place[1],
        parent=text(body.get("parent")),
        genome=text(body.get("genome")),
        edits=texts(body.get("edits")),
        kinds=tuple(dict.fromkeys(texts(body.get("kinds")))),
        allocates=body.get("allocates") is True,
        fate=_fate(text(body.get("status")), score, denial, outcomes, promoted, closed),
        reason=text(body.get("reason")),
        flops=flops,
        score=score,
        denial=denial,
        outcomes=outcomes,
        decision_reasons=texts(decision.body.get("reasons")) if decision else (),
    )


def _fate(
    status: str,
    score: Score | None,
    denial: Denial | None,
    outcomes: tuple[Outcome, ...],
    promoted: object,
    closed: bool,
) -> Fate:
    if promoted is True:
        return "promoted"
    if status == "invalid":
        return "invalid"
    if status == "duplicate":
        return "duplicate"
    if denial is not None:
        return "denied"
    if score is None and any(outcome.status not in ("completed", "") for outcome in outcomes):
        return "failed"
    if promoted is False or (closed and score is not None):
        return "rejected"
    return "pending"


def _place(line: Record) -> _Place | None:
    generation, index = integer(line.body.get("generation")), integer(line.body.get("index"))
    return None if generation is None or index is None or index < 0 else (generation, index)


def _denial(line: Record) -> Denial:
    body = line.body
    return Denial(
        text(body.get("reason")), shown(body.get("limit")), shown(body.get("value")), shown(body.get("bound"))
    )
