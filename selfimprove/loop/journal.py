"""The ledger as a memory of effects: what was recorded is never done again.

The loop is written as if nothing could interrupt it. Each effect (a worker's answer, a score, a decision) is recorded
under an identity; when a run is resumed, the same code runs from the start and finds every recorded effect instead of
causing it again. So a resumed run equals an uninterrupted one, and a clock's verdict is replayed, never decided anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from selfimprove.archive.ledger import Entry, Ledger

IDENTITY: dict[str, tuple[str, ...]] = {
    "genome": ("sha256",),
    "ask": ("generation",),
    "screen": ("generation",),
    "proposal": ("generation", "index"),
    "admission": ("generation",),
    "denial": ("generation", "index"),
    "permit": ("key",),  # of several that were issued again and again, the first
    "stage": ("key", "stage"),
    "reading": ("key", "stage"),
    "outcome": ("key",),
    "evaluation": ("key",),
    "rung": ("generation", "stage"),
    "score": ("generation", "index"),
    "reference": ("generation",),
    "checkpoint": ("generation", "index"),
    "stage_checkpoint": ("generation", "index", "stage"),
    "inspection": ("generation", "index"),
    "confirmation": ("generation", "index"),
    "decision": ("generation", "index"),
    "climb": ("generation",),
    "level_score": ("generation", "genome"),
    "contender": ("generation",),
    "trial": ("generation", "role"),
    "handover": ("generation",),
    "controller": ("generation",),
    "controller_inspection": ("generation",),
    "generation": ("generation",),
    "tripwire": ("generation",),
    "approval": ("generation",),
    "sealed": (),
    "held_out": (),
}
"""What makes a record of each kind the same record. Kinds that are not here may repeat."""

METERED = frozenset(
    {
        *("ask", "screen", "stage", "reading", "outcome", "evaluation", "inspection", "controller"),
        *("contender", "trial", "handover", "controller_inspection", "charge", "unattended", "halt", "finish"),
    }
)
"""Kinds that follow a worker's doing, or end a sitting: they say what all workers spent until then."""

Body = dict[str, Any]


class Observer(Protocol):
    """Watches a run; must return at once."""

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        """A ledger record was appended, or (kind ``progress``) something moved."""


class Journal:
    """Looks effects up by identity; appends what is new and tells the observer.

    Args:
        ledger: what is remembered.
        observer: is told.
        reading: what is spent so far, to be added to every metered record.
    """

    def __init__(self, ledger: Ledger, observer: Observer, reading: Callable[[], Body] = dict) -> None:
        self._ledger = ledger
        self._observer = observer
        self._reading = reading
        self._by_kind: defaultdict[str, list[Body]] = defaultdict(list)
        self._known: dict[tuple[object, ...], Body] = {}
        for entry in ledger.entries:
            self._remember(entry.kind, entry.body)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The whole ledger."""
        return self._ledger.entries

    def all(self, kind: str) -> list[Body]:
        """Every body of a kind, oldest first."""
        return list(self._by_kind[kind])

    def find(self, kind: str, *identity: object) -> Body | None:
        """The record with this identity, if it exists."""
        return self._known.get((kind, *identity))

    def record(self, kind: str, body: Body) -> Body:
        """Append a record; returns the body as a reader will see it."""
        written = self._ledger.append(kind, body | self._reading() if kind in METERED else body).body
        self._remember(kind, written)
        self._observer.on_event(kind, written)
        return written

    def once(self, kind: str, identity: tuple[object, ...], make: Callable[[], Body]) -> Body:
        """The recorded effect, or ``make()``, recorded."""
        known = self.find(kind, *identity)
        return known if known is not None else self.record(kind, make())

    def progress(self, **body: object) -> None:
        """Tell the observer, and only the observer, that something moved."""
        self._observer.on_event("progress", body)

    def _remember(self, kind: str, body: Body) -> None:
        self._by_kind[kind].append(body)
        if kind in IDENTITY:
            self._known.setdefault((kind, *(body[name] for name in IDENTITY[kind])), body)
