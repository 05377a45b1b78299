"""From ledger records to the frozen views of the report. Pure; tolerant of missing and unknown records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from math import sqrt
from typing import Any

from selfimprove.app.report.candidates import build_candidates
from selfimprove.app.report.records import (
    Record,
    Records,
    integer,
    job_place,
    mapping,
    number,
    numbers,
    shown,
    text,
    texts,
)
from selfimprove.app.report.views import (
    Charge,
    Confirmation,
    ControllerStep,
    Curve,
    Generation,
    Inspection,
    Instrument,
    Point,
    Report,
    Retention,
    RunInfo,
    Sandbox,
    Score,
    TaskScore,
)

DEFAULT_TEST = "exact one-sided sign-flip test"
DEFAULT_ALPHA = 0.01
_EVENTS = ("recovery", "halt", "clear_halt", "resume", "finish")


def build_report(records: Records, baselines: Mapping[str, Records] | None = None) -> Report:
    """Turn the records of one run, and of any baselines, into what the page shows."""
    generations = tuple(filter(None, map(_generation, records.of("generation"))))
    scores = {
        place: score for line in records.of("score") if (place := _place(line)) and (score := read_score(line.body))
    }
    seed_genome = _seed_genome(records)
    charges = tuple(filter(None, map(_charge, records.of("charge"))))
    candidates = build_candidates(records, scores, charges, frozenset(entry.number for entry in generations))
    return Report(
        run=_run_info(records, charges),
        seed_genome=seed_genome,
        seed_score=_seed_score(records, seed_genome),
        candidates=candidates,
        generations=generations,
        confirmations=_confirmations(records),
        inspections=_inspections(records),
        controller=tuple(filter(None, map(_controller, records.of("controller")))),
        charges=charges,
        curve=read_curve("this run", records),
        baselines=tuple(read_curve(label, lines) for label, lines in (baselines or {}).items()),
        events=tuple((line.kind, line.time, _reason(line)) for line in records.lines if line.kind in _EVENTS),
        sealed=records.last("sealed"),
    )


def read_score(body: Mapping[str, Any]) -> Score | None:
    """A score on the search split; None for another split or without a finite skill."""
    skill = number(body.get("skill"))
    if skill is None or body.get("split", "search") != "search":
        return None
    tasks = {name: _task(mapping(task)) for name, task in mapping(body.get("tasks")).items()}
    return Score(skill, integer(body.get("seeds")), tasks, read_retention(body.get("retention")))


def read_retention(value: object) -> Retention | None:
    """Counts with their interval; a missing interval is computed, impossible counts give None."""
    body = mapping(value)
    kept, n = integer(body.get("kept")), integer(body.get("n"))
    if kept is None or n is None or n <= 0 or not 0 <= kept <= n:
        return None
    low, high = number(body.get("low")), number(body.get("high"))
    if low is None or high is None:
        low, high = wilson(kept, n)
    return Retention(kept, n, low, high)


def wilson(kept: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval for ``kept`` successes of ``n`` (Wilson 1927); 95% by default."""
    rate, width = kept / n, z * z / n
    middle = (rate + width / 2) / (1 + width)
    reach = z * sqrt(rate * (1 - rate) / n + width / (4 * n)) / (1 + width)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def read_curve(label: str, records: Records) -> Curve:
    """Every search score of a run, placed at the FLOPs that were charged when it was recorded."""
    charged, points = 0, []
    for line in records.lines:
        if line.kind == "charge":
            charged = max(charged, integer(line.body.get("total")) or 0)
        elif line.kind == "score" and (score := read_score(line.body)):
            place = _place(line)
            points.append(Point(charged, score.skill, f"g{place[0]}c{place[1]:02d}" if place else "seed genome"))
    return Curve(label, tuple(points), charged)


def _task(body: Mapping[str, Any]) -> TaskScore:
    return TaskScore(number(body.get("skill")), number(body.get("accuracy")), number(body.get("cross_entropy")))


def _place(line: Record) -> tuple[int, int] | None:
    generation, index = integer(line.body.get("generation")), integer(line.body.get("index"))
    return None if generation is None or index is None or index < 0 else (generation, index)


def _reason(line: Record) -> str:
    parts = [shown(line.body[key]) for key in ("state", "reason") if line.body.get(key)]
    return ": ".join(parts) or ", ".join(f"{key} {shown(value)}" for key, value in line.body.items())


def _generation(line: Record) -> Generation | None:
    body, found = line.body, integer(line.body.get("generation"))
    if found is None:
        return None
    skill, charged = number(body.get("best_skill")), integer(body.get("charged_flops"))
    return Generation(found, text(body.get("champion")), skill, charged, body.get("promoted") is True)


def _charge(line: Record) -> Charge | None:
    flops, total = integer(line.body.get("flops")), integer(line.body.get("total"))
    if flops is None or flops < 0:
        return None
    key = text(line.body.get("key"))
    return Charge(key, text(line.body.get("account")) or "search", flops, total or 0, job_place(key)[0])


def _controller(line: Record) -> ControllerStep | None:
    body, generation = line.body, integer(line.body.get("generation"))
    if generation is None:
        return None
    return ControllerStep(generation, number(body.get("loss")), number(body.get("entropy")), integer(body.get("flops")))


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


def _confirmations(records: Records) -> tuple[Confirmation, ...]:
    promoted = {_place(line) for line in records.of("decision") if line.body.get("promoted") is True}
    alpha = number(mapping(mapping(records.last("run").get("config")).get("gate")).get("alpha")) or DEFAULT_ALPHA
    found = []
    for line in records.of("confirmation"):
        body, generation = line.body, integer(line.body.get("generation"))
        pairs = zip(numbers(body.get("candidate")), numbers(body.get("parent_skill")), strict=False)
        finite = [(a, b) for a, b in pairs if a is not None and b is not None]
        if generation is None or not finite:
            continue
        candidate, parent = zip(*finite, strict=True)
        test = text(body.get("test")) or DEFAULT_TEST
        level, p_value = number(body.get("alpha")) or alpha, number(body.get("p_value"))
        split, retention = text(body.get("split")) or "gate", read_retention(body.get("retention"))
        index, passed = integer(body.get("index")), _place(line) in promoted
        found.append(Confirmation(generation, index, split, test, level, candidate, parent, p_value, retention, passed))
    return tuple(found)


def _inspections(records: Records) -> tuple[Inspection, ...]:
    blocks: dict[str, int] = {}
    for line in records.of("genome"):
        architecture = mapping(mapping(line.body.get("genome")).get("architecture"))
        if isinstance(architecture.get("blocks"), list):
            blocks[text(line.body.get("sha256"))] = len(architecture["blocks"])
    found = []
    for line in records.of("inspection"):
        body, generation = line.body, integer(line.body.get("generation"))
        if generation is None:
            continue
        summary = mapping(body.get("summary"))
        instruments = tuple(
            Instrument(name, text(mapping(one).get("verdict")) or "unknown", text(mapping(one).get("reason")))
            for name, one in mapping(body.get("instruments")).items()
        )
        probes, control, lens = (_layers(summary.get(name)) for name in ("probes", "control", "logit_lens"))
        details = mapping(summary.get("probe_details"))
        majority = {
            name: share for name, one in details.items() if (share := number(mapping(one).get("majority"))) is not None
        }
        depth, status = blocks.get(text(body.get("genome"))), text(body.get("status")) or "unknown"
        index = integer(body.get("index"))
        found.append(Inspection(generation, index, status, depth, instruments, probes, control, lens, majority))
    return tuple(found)


def _layers(value: object) -> Mapping[str, tuple[float | None, ...]]:
    """Named layer sequences; a bare sequence is kept under the empty name and applies to every variable."""
    if isinstance(value, Mapping):
        return {name: sequence for name, item in mapping(value).items() if (sequence := numbers(item))}
    sequence = numbers(value)
    return {"": sequence} if sequence else {}


def _run_info(records: Records, charges: tuple[Charge, ...]) -> RunInfo:
    body, lines = records.last("run"), records.lines
    state, reason = _state(records)
    times = [line.time for line in lines if line.time]
    degraded = texts(body.get("degraded"))
    limits, sandbox = mapping(body.get("limits")), mapping(body.get("sandbox"))
    return RunInfo(
        run_id=shown(body.get("run_id")),
        experiment=shown(body.get("experiment")) or "unnamed experiment",
        seed=shown(body.get("root_seed")),
        device=shown(body.get("device")),
        state=state,
        reason=reason,
        started=times[0] if times else "",
        ended=times[-1] if times else "",
        seconds=_seconds(times[0], times[-1]) if times else None,
        charged=max((charge.total for charge in charges), default=0) or sum(charge.flops for charge in charges),
        limits=limits,
        sandbox=tuple(Sandbox(name, shown(how), name in degraded or not how) for name, how in sandbox.items()),
        degraded=degraded,
        versions={name: shown(version) for name, version in mapping(body.get("versions")).items()},
        config=mapping(body.get("config")),
        entries=len(lines),
        unreadable=records.unreadable,
        head=lines[-1].hash if lines else "",
    )


def _state(records: Records) -> tuple[str, str]:
    """The state after the last record that changes it. Without one the run is going on, or its process was killed."""
    state, reason = "running", "no finish record: the run is going on, or its process was killed"
    for line in records.lines:
        given = text(line.body.get("reason"))
        if line.kind == "finish":
            state, reason = text(line.body.get("state")) or "finished", given
        elif line.kind == "halt":
            state, reason = "halted", given or "the kill switch was used"
        elif line.kind in ("resume", "clear_halt"):
            state, reason = "running", "resumed; no finish record since"
    if not records.lines:
        reason = "the ledger holds no record yet"
    return state, reason


def _seconds(start: str, end: str) -> float | None:
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):
        return None


def spent(charges: tuple[Charge, ...]) -> dict[str, int]:
    """FLOPs by account, unknown accounts included."""
    totals: dict[str, int] = defaultdict(int)
    for charge in charges:
        totals[charge.account] += charge.flops
    return dict(totals)
