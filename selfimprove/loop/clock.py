"""What a run has used of its time: the earlier sittings by the ledger, this one by the machine.

Wall time is that of a clock that stands while the machine sleeps and that nobody sets. The time of the workers is
metered by the supervisor. Every record that follows a worker's doing carries both so far, of all sittings, as
``spent``: no part of the lineage, and what a resumed run counts on from. What a death of the supervisor, or a second
Ctrl-C, cuts off after the last such record is not counted: nobody is left to write it down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, final

from selfimprove.containment.jobs import Spent
from selfimprove.containment.policy import Limits, Used, first_passed
from selfimprove.loop.recovery import Timed, elapsed_seconds

SPENT = "spent"
_OF_WORKERS = ("cpu_seconds", "gpu_seconds")


class Metered(Timed, Protocol):
    """A record whose body may carry what was spent."""

    @property
    def body(self) -> Mapping[str, Any]:
        """What was recorded."""


@final
class Clock:
    """A run's time: wall, processor, GPU.

    Args:
        entries: the ledger as it is when the sitting begins.
        started: monotonic time at which the sitting began.
    """

    def __init__(self, entries: Iterable[Metered], started: float) -> None:
        entries = tuple(entries)
        self._elapsed = seconds_before(entries)
        self._earlier = spent_before(entries)
        self._started = started
        self._workers: Callable[[], Spent] = Spent

    def meter(self, workers: Callable[[], Spent]) -> None:
        """Count the time of this sitting's workers."""
        self._workers = workers

    def wall_seconds(self) -> float:
        """Wall time of the run so far, earlier sittings included."""
        return self._elapsed + time.monotonic() - self._started

    def used(self) -> Used:
        """What is used of the limits on time."""
        spent = self._earlier + self._workers()
        return Used(wall_seconds=self.wall_seconds(), cpu_seconds=spent.cpu_seconds, gpu_seconds=spent.gpu_seconds)

    def is_over(self, limits: Limits) -> bool:
        """Whether a limit on time is used up: then no further job may start."""
        return first_passed(limits, self.used()) is not None

    def reading(self) -> dict[str, Any]:
        """What the run used of its time so far, for a record."""
        used = self.used()
        return {SPENT: {name: round(getattr(used, name), 3) for name in ("wall_seconds", *_OF_WORKERS)}}


def spent_before(entries: Iterable[Metered]) -> Spent:
    """What workers had spent at the last reading in a ledger; nothing where there is none."""
    found = _last_reading(entries)
    return Spent(**{name: _seconds(found.get(name)) for name in _OF_WORKERS})


def seconds_before(entries: Iterable[Metered]) -> float:
    """Wall time at the last reading in a ledger; by the times of its records where its readings have none."""
    entries = tuple(entries)
    found = _last_reading(entries).get("wall_seconds")
    return elapsed_seconds(entries) if found is None else _seconds(found)


def _last_reading(entries: Iterable[Metered]) -> Mapping[str, Any]:
    readings = (entry.body.get(SPENT) for entry in reversed(tuple(entries)))
    return next((found for found in readings if isinstance(found, Mapping)), {})


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
