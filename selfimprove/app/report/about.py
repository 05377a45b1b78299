"""Facts about a whole run: its state, its time, its limits, how it was contained."""

from __future__ import annotations

from selfimprove.app.report.records import Records, mapping, shown, text, texts
from selfimprove.app.report.views import Charge, RunInfo, Sandbox
from selfimprove.app.report.wires import trip_text
from selfimprove.loop.clock import seconds_before, spent_before


def run_info(records: Records, charges: tuple[Charge, ...]) -> RunInfo:
    """The facts of the header and of the last section."""
    body, lines = records.last("run"), records.lines
    state, reason = run_state(records)
    times = [line.time for line in lines if line.time]
    degraded = degraded_in(records)
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
        seconds=_seconds(records),
        spent=spent_before(lines),
        charged=max((charge.total for charge in charges), default=0) or sum(charge.flops for charge in charges),
        limits=limits,
        sandbox=tuple(Sandbox(name, shown(how), name in degraded or not how) for name, how in sandbox.items()),
        degraded=degraded,
        versions={name: ", then ".join(found) for name, found in versions_in(records).items()},
        config=mapping(body.get("config")),
        entries=len(lines),
        unreadable=records.unreadable,
        head=lines[-1].hash if lines else "",
    )


def versions_in(records: Records) -> dict[str, list[str]]:
    """Versions of each package in order of the sittings, one where all had the same."""
    found: dict[str, list[str]] = {}
    for line in records.lines:
        if line.kind in ("run", "resume"):
            for name, version in mapping(line.body.get("versions")).items():
                known = found.setdefault(name, [])
                if known[-1:] != [said := shown(version)]:
                    known.append(said)
    return found


def degraded_in(records: Records) -> tuple[str, ...]:
    """Properties of containment that were given up in any sitting, or on any node of a cluster."""
    bodies = (line.body for line in records.lines if line.kind in ("run", "resume", "node"))
    return tuple(dict.fromkeys(name for body in bodies for name in texts(body.get("degraded"))))


def run_state(records: Records) -> tuple[str, str]:
    """The state after the last record that changes it; nothing changes it after the end of the run.

    Without such a record the run is going on if a process writes to it.
    """
    open_end = ("running", "") if records.under_way else ("paused", "interrupted; selfimprove resume goes on")
    state, reason = open_end
    for line in records.lines:
        given = text(line.body.get("reason"))
        if line.kind == "finish":
            return text(line.body.get("state")) or "finished", given
        if line.kind == "halt":
            state, reason = "halted", given or "the kill switch was used"
        elif line.kind == "tripwire" and (tripped := trip_text(line.body)):
            state, reason = "paused", f"tripwire after generation {shown(line.body.get('generation'))}: {tripped}"
        elif line.kind == "approval":
            state, reason = "paused", f"approved by {shown(line.body.get('who'))}: {given}; not resumed yet"
        elif line.kind in ("resume", "clear_halt"):
            state, reason = open_end
    if not records.lines:
        reason = "the ledger holds no record yet"
    return state, reason


def _seconds(records: Records) -> float | None:
    """Wall time of all sittings, as the loop counts it; None where a time cannot be read."""
    try:
        return seconds_before(line for line in records.lines if line.time)
    except (ValueError, TypeError):
        return None
