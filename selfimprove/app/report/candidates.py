"""Gather everything the ledger says about each proposal into one `Candidate`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from selfimprove.app.report.records import Record, Records, integer, place, shown, text, texts
from selfimprove.app.report.views import Candidate, Charge, Denial, Fate, Outcome, Score
from selfimprove.archive.records import job_place

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
    denials = {spot: _denial(line) for line in records.of("denial") if (spot := place(line))}
    decisions = {spot: line for line in records.of("decision") if (spot := place(line))}
    outcomes, flops = _outcomes(records), _flops(charges)
    found = {}
    for line in records.of("proposal"):
        spot = place(line)
        if spot is None:
            continue
        found[spot] = _candidate(
            line,
            spot,
            flops=flops[spot],
            score=scores.get(spot),
            denial=denials.get(spot),
            outcomes=tuple(outcomes[spot]),
            decision=decisions.get(spot),
            closed=spot[0] in closed,
        )
    return tuple(found[spot] for spot in sorted(found))


def read_charges(records: Records) -> tuple[Charge, ...]:
    """Every booked expense, in ledger order."""
    return tuple(filter(None, map(_charge, records.of("charge"))))


def _charge(line: Record) -> Charge | None:
    flops, total = integer(line.body.get("flops")), integer(line.body.get("total"))
    if flops is None or flops < 0:
        return None
    key = text(line.body.get("key"))
    return Charge(key, text(line.body.get("account")) or "search", flops, total or 0, job_place(key)[0])


def _outcomes(records: Records) -> dict[_Place, list[Outcome]]:
    found: dict[_Place, list[Outcome]] = defaultdict(list)
    for line in records.of("outcome"):
        outcome = Outcome(text(line.body.get("key")), text(line.body.get("status")), text(line.body.get("reason")))
        generation, index = job_place(outcome.key)
        if generation is not None and index is not None:
            found[generation, index].append(outcome)
    return found


def _flops(charges: Collection[Charge]) -> dict[_Place, int]:
    found: dict[_Place, int] = defaultdict(int)
    for charge in charges:
        generation, index = job_place(charge.key)
        if generation is not None and index is not None:
            found[generation, index] += charge.flops
    return found


def _candidate(
    line: Record,
    spot: _Place,
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
        generation=spot[0],
        index=spot[1],
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
    ended = {outcome.status for outcome in outcomes} - {"completed", ""}
    if score is None and ended:
        return "stopped" if ended == {"stopped"} else "failed"
    if promoted is False or (closed and score is not None):
        return "rejected"
    return "pending"


def _denial(line: Record) -> Denial:
    body = line.body
    return Denial(
        text(body.get("reason")), shown(body.get("limit")), shown(body.get("value")), shown(body.get("bound"))
    )
