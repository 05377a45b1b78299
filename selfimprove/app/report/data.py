"""From ledger records to the frozen views of the report. Pure; tolerant of missing and unknown records."""

from __future__ import annotations

from collections.abc import Mapping

from selfimprove.app.report.about import run_info
from selfimprove.app.report.candidates import build_candidates, read_charges
from selfimprove.app.report.claim import claim_card
from selfimprove.app.report.climbs import exam_levels, read_capped, read_levels, read_rises
from selfimprove.app.report.comparisons import read_confirmations, read_finals
from selfimprove.app.report.controllers import read_controllers
from selfimprove.app.report.handovers import read_handovers
from selfimprove.app.report.origins import read_origins
from selfimprove.app.report.overview import Report
from selfimprove.app.report.quality import read_quality, read_steps
from selfimprove.app.report.readings import read_inspections
from selfimprove.app.report.records import (
    Record,
    Records,
    integer,
    mapping,
    place,
    shown,
    text,
)
from selfimprove.app.report.rivals import THIS, run_rows
from selfimprove.app.report.scores import read_curve, read_score
from selfimprove.app.report.views import Generation, Score
from selfimprove.app.report.wires import read_waiting, read_wires, trip_text
from selfimprove.app.view import WORDS_OF_FAILURE
from selfimprove.canonical import finite

_EVENTS = ("recovery", "halt", "clear_halt", "resume", "approval", "unattended", "finish")


def build_report(records: Records, baselines: Mapping[str, Records] | None = None, folder: str = "RUN") -> Report:
    """Turn the records of one run, and of any baselines, into what the page shows.

    Args:
        records: of the run.
        baselines: of other runs, by the name to show.
        folder: the run folder as a person would type it.
    """
    generations = tuple(filter(None, map(_generation, records.of("generation"))))
    scores = {spot: score for line in records.of("score") if (spot := place(line)) and (score := read_score(line.body))}
    seed_genome = _seed_genome(records)
    charges = read_charges(records)
    candidates = build_candidates(records, scores, charges, frozenset(entry.number for entry in generations))
    return Report(
        run=run_info(records, charges),
        seed_genome=seed_genome,
        seed_score=_seed_score(records, seed_genome),
        candidates=candidates,
        generations=generations,
        confirmations=read_confirmations(records),
        inspections=read_inspections(records),
        readings=read_controllers(records),
        handovers=read_handovers(records),
        controller=read_steps(records),
        quality=read_quality(records),
        claims=claim_card(records, baselines),
        charges=charges,
        curve=read_curve(THIS, records),
        baselines=tuple(read_curve(label, lines) for label, lines in (baselines or {}).items()),
        runs=run_rows(records, baselines or {}),
        events=tuple((line.kind, line.time, _reason(line)) for line in records.lines if _is_event(line)),
        finals=read_finals(records),
        rises=read_rises(records, seed_genome),
        levels=read_levels(records),
        exam_levels=exam_levels(records),
        capped=read_capped(records),
        wires=read_wires(records),
        waiting=read_waiting(records, folder),
        origins=read_origins(records),
    )


def _is_event(line: Record) -> bool:
    """Whether a record belongs in the list of events.

    A tripwire's does if it tripped, the controller's if it failed, a node's if it was lost.
    """
    if line.kind == "tripwire":
        return trip_text(line.body) != ""
    if line.kind in WORDS_OF_FAILURE:
        return text(line.body.get("reason")) != ""
    if line.kind == "node":
        return line.body.get("state") == "lost"
    return line.kind in _EVENTS


def _reason(line: Record) -> str:
    if line.kind == "tripwire":
        return f"after generation {shown(line.body.get('generation'))}: {trip_text(line.body)}"
    if line.kind == "approval":
        return f"by {shown(line.body.get('who'))}: {shown(line.body.get('reason'))}"
    if line.kind in WORDS_OF_FAILURE:
        what = WORDS_OF_FAILURE[line.kind]
        return f"generation {shown(line.body.get('generation'))}: {what}: {shown(line.body.get('reason'))}"
    if line.kind == "node":
        return f"{shown(line.body.get('node'))} was lost: {shown(line.body.get('reason'))}"
    if line.kind == "unattended":
        return f"{shown(line.body.get('key'))}: {shown(line.body.get('reason'))}"
    parts = [shown(line.body[key]) for key in ("state", "reason") if line.body.get(key)]
    if line.kind == "resume" and (entries := integer(line.body.get("entries"))) is not None:
        return f"after {entries} ledger records"
    return ": ".join(parts) or ", ".join(f"{key} {shown(value)}" for key, value in line.body.items())


def _generation(line: Record) -> Generation | None:
    body, found = line.body, integer(line.body.get("generation"))
    if found is None:
        return None
    skill, charged = finite(body.get("best_skill")), integer(body.get("charged_flops"))
    promoted, stopped = body.get("promoted") is True, integer(body.get("stopped"))
    regret = finite(mapping(body.get("regret")).get("nats"))
    return Generation(found, text(body.get("champion")), skill, charged, promoted, stopped, regret)


def _seed_genome(records: Records) -> str:
    described = records.last("run").get("seed_genome")
    for line in records.of("genome"):
        if described and line.body.get("genome") == described:
            return text(line.body.get("sha256"))
    return next((text(line.body.get("parent")) for line in records.of("proposal")), "")


def _seed_score(records: Records, seed_genome: str) -> Score | None:
    known = [*records.of("score"), *records.of("reference")]
    lines = [line for line in known if seed_genome and line.body.get("genome") == seed_genome]
    return next((score for line in lines if (score := read_score(line.body))), None)
