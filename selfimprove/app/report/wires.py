"""What the tripwires read, generation by generation, and whether one of them waits for an approval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfimprove.app.folder import command
from selfimprove.app.report.records import Records, integer, mapping, shown, text
from selfimprove.canonical import finite

UNITS = {
    "gain": "skill gained by the champion, at the gate",
    "acceleration": "generations in a row whose gains accelerate",
    "inspection": "findings that the leading candidate's inspection lacks",
    "retention_fall": "share of halt prompts, below an earlier champion",
    "retention_floor": "share of halt prompts that the new champion keeps, at most",
    "denials": "share of the proposals that were refused",
    "entropy": "nats per token that the controller chooses with",
}
FLOORS = frozenset({"retention_floor", "entropy"})


@dataclass(frozen=True)
class WireRow:
    """One wire over the whole run: its bound, its last reading, and the generations after which it tripped."""

    name: str
    unit: str
    bound: str
    last: str
    tripped: tuple[int, ...]


@dataclass(frozen=True)
class Waiting:
    """A trip that nobody has approved.

    Args:
        generation: after which the run paused.
        trips: each wire's name and reason.
        commands: what goes on, in this order.
    """

    generation: int
    trips: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]


def read_wires(records: Records) -> tuple[WireRow, ...]:
    """One row a wire, in the order of the last reading."""
    readings = [line.body for line in records.of("tripwire") if integer(line.body.get("generation")) is not None]
    tripped: dict[str, list[int]] = {}
    for body in readings:
        for trip in _items(body.get("trips")):
            tripped.setdefault(text(trip.get("name")), []).append(integer(body.get("generation")) or 0)
    rows = []
    for one in _items(readings[-1].get("readings")) if readings else ():
        name = text(one.get("name"))
        limit = f"{'at least' if name in FLOORS else 'at most'} {shown(one.get('bound'))}"
        value = finite(one.get("value"))
        last = "nothing to read" if value is None else f"{value:.4g}"
        rows.append(WireRow(name, UNITS.get(name, ""), limit, last, tuple(tripped.get(name, ()))))
    return tuple(rows)


def read_waiting(records: Records, place: str) -> Waiting | None:
    """The trip that waits for an approval; ``place`` is the run folder as a person would type it."""
    waiting = None
    for line in records.lines:
        trips = _items(line.body.get("trips")) if line.kind == "tripwire" else ()
        if trips:
            waiting = line.body
        elif line.kind == "approval":
            waiting = None
    if waiting is None:
        return None
    found = tuple((text(trip.get("name")), text(trip.get("reason"))) for trip in _items(waiting.get("trips")))
    commands = (command("approve", place, '--reason "..."'), command("resume", place))
    return Waiting(integer(waiting.get("generation")) or 0, found, commands)


def trip_text(body: Mapping[str, Any]) -> str:
    """What tripped after a generation, for the list of events; empty if nothing did."""
    return "; ".join(f"{text(trip.get('name'))}: {text(trip.get('reason'))}" for trip in _items(body.get("trips")))


def _items(value: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(map(mapping, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()
