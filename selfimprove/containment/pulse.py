"""The dead-man's switch, from outside: the supervisor's heartbeat, and who went without it.

See ``sandbox.heartbeat`` for the other end.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final, final

from selfimprove.containment.launcher import ZygoteHandle
from selfimprove.containment.worker import WorkerHandle

HEARTBEAT_SECONDS: Final = 10.0
BEATS: Final = 4  # in the time that the supervisor may be silent
SUSPECT: Final = 0.5  # share of that time from which a worker that was killed may have been killed for the silence


@final
class Pulse:
    """Beats for the zygotes whose workers depend on it.

    Args:
        seconds: the longest silence that a worker survives.

    Raises:
        ValueError: not a positive number of seconds.
    """

    def __init__(self, seconds: float) -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"heartbeat_seconds: got {seconds!r}; allowed: finite and above zero")
        self._seconds = seconds
        self._last = -math.inf

    def beat(self, now: float, zygotes: Iterable[ZygoteHandle], workers: Collection[WorkerHandle]) -> None:
        """Give a sign of life if it is time for one; note which workers were without one for long, until the next."""
        silence = now - self._last
        due = silence >= self._seconds / BEATS
        for worker in workers:
            suffered = min(silence, now - worker.requested)
            if suffered >= SUSPECT * self._seconds:
                worker.unattended_seconds = suffered
            elif due and worker.died_at is None:
                worker.unattended_seconds = 0.0
        if due:
            self._last = now
            for zygote in zygotes:
                if zygote.workers:
                    zygote.beat()
