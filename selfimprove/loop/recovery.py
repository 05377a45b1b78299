"""What a sitting has to put in order before it goes on: permits that an earlier one left open, and the time it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Protocol

from selfimprove.containment.budget import Budget
from selfimprove.loop.journal import Journal
from selfimprove.loop.reign import CONTENDER, INCUMBENT

_CONTROLLER_RECORDS = {"ask": "ask", "tell": "controller"}  # verb of the key -> kind of the record that it ends in
_FIRST_OF_A_SITTING = frozenset({"run", "resume", "recovery"})


def settle_open(journal: Journal, budget: Budget) -> None:
    """Charge every permit that was not charged: to its account if its effect is on record, else to ``lost``.

    A charge follows the record of what it paid for. So work is never paid twice: a crash between the two costs nothing,
    and one before them costs exactly the work that has to be done again.
    """
    charged = Counter(body["key"] for body in journal.all("charge"))
    for body in journal.all("permit"):
        key, account, flops = body["key"], body["account"], body["flops"]
        if charged[key]:
            charged[key] -= 1
            continue
        settle = budget.honor if _is_done(journal, key) else budget.abandon
        journal.record("charge", asdict(settle(key, account, flops)))


def _is_done(journal: Journal, key: str) -> bool:
    generation, _, verb = key.partition("/")
    if verb in (CONTENDER, INCUMBENT):
        return journal.find("trial", int(generation[1:]), verb) is not None
    if verb in _CONTROLLER_RECORDS:
        return journal.find(_CONTROLLER_RECORDS[verb], int(generation[1:])) is not None
    slot, _, stage = key.rpartition("@")
    return journal.find("stage", slot, stage) is not None or journal.find("outcome", slot) is not None


class Timed(Protocol):
    """A record with its kind and the time at which it was written, in ISO 8601."""

    @property
    def kind(self) -> str:
        """What it records."""

    @property
    def time(self) -> str:
        """When."""


def elapsed_seconds(entries: Iterable[Timed]) -> float:
    """Wall time of the sittings so far, each from its first record to its last; a clock set back counts as nothing.

    The time that a tripped run waits for its approval is no sitting.
    """
    total, started, last = 0.0, None, None
    for entry in entries:
        if entry.kind == "approval":
            continue
        now = datetime.fromisoformat(entry.time)
        if started is None or last is None or entry.kind in _FIRST_OF_A_SITTING:
            total += _seconds(started, last)
            started = now
        last = now
    return total + _seconds(started, last)


def _seconds(started: datetime | None, last: datetime | None) -> float:
    return max(0.0, (last - started).total_seconds()) if started is not None and last is not None else 0.0
