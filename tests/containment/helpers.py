"""What several tests of containment need: the torch-free entry, processes in namespaces, a backend of mere promises."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from selfimprove.containment.sandbox.backend import PROPERTIES, NoBackend, ZygoteSpec
from selfimprove.containment.sandbox.cgroup import Group, Ungrouped
from selfimprove.containment.supervisor import Job, Outcome, Supervisor

ENTRIES = Path(__file__).parent / "entries"
ENTRY = "containment_entry"
SPEC = ZygoteSpec((ENTRY,), path=(ENTRIES,))
KINDS = {"fork": SPEC, "once": ZygoteSpec((ENTRY,), fork=False, path=(ENTRIES,))}  # how a zygote makes workers


def family() -> list[psutil.Process]:
    """Every process below this one that is not dead: a supervisor lets us adopt orphans, other tests' zombies too."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def from_outside(pid: int) -> psutil.Process:
    """The process below this one that knows itself by a process id, in whatever namespace."""
    for process in family():
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if int(next(line for line in status if line.startswith("NSpid:")).split()[-1]) == pid:
            return process
    raise LookupError(pid)


def at_first(act: Callable[[dict[str, Any]], None], *, of: int | None = None) -> Callable[[int, dict[str, Any]], None]:
    """A listener that acts on the first event (of the job with that index), and never again."""
    acted: list[int] = []

    def listen(index: int, event: dict[str, Any]) -> None:
        if not acted and of in (None, index):
            acted.append(index)
            act(event)

    return listen


class Pretender:
    """A backend that promises containment and gives none."""

    name = "pretender"
    contains = True
    degraded: frozenset[str] = frozenset()

    def __init__(self, allow_degraded: Sequence[str] = (), *, device: str = "cpu") -> None: ...

    def probe(self) -> dict[str, str | None]:
        return dict.fromkeys(PROPERTIES, "a promise")

    def command(self, arguments: Sequence[str]) -> list[str]:
        return NoBackend().command(arguments)

    def enclose(self, roles: int, workers: int) -> Group:
        return Ungrouped()


def outcome_of(supervisor: Supervisor, job: Job) -> Outcome:
    """How one job ends."""
    [(_, outcome)] = supervisor.run([job])
    return outcome
