"""Finding processes from outside, through ``/proc``: to see what outlives its job."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """What is known of a process from outside."""

    pid: int
    parent: int
    session: int
    alive: bool
    """False for one that is dead and waits to be reaped."""


def _all() -> list[Process]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            found.append(Process(int(name), int(fields[1]), int(fields[3]), fields[0] not in (b"Z", b"X")))
    return found


def descendants(pid: int) -> list[int]:
    """Return the living processes below one, parents before their children."""
    below = defaultdict(list)
    for process in _all():
        if process.alive:
            below[process.parent].append(process.pid)
    found: list[int] = []
    waiting = sorted(below[pid])
    while waiting:
        here = waiting.pop(0)
        found.append(here)
        waiting += sorted(below[here])
    return found


def children(pid: int) -> list[Process]:
    """Return the direct children of a process, dead ones included."""
    return [process for process in _all() if process.parent == pid]
