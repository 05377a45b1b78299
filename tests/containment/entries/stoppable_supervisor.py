"""A supervisor that says what its busy worker is, and, once that was ended, how, and what it can still do.

Usage: stoppable_supervisor.py HEARTBEAT_SECONDS fork|once
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from selfimprove.containment.sandbox.backend import LockdownBackend, ZygoteSpec
from selfimprove.containment.supervisor import Job, JobLimits, Supervisor

ENTRY = "containment_entry"
LIMITS = JobLimits(wall_seconds=60, cpu_seconds=60, memory_bytes=2**27, output_bytes=1, silence_seconds=60)


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    spec = ZygoteSpec((ENTRY,), fork=sys.argv[2] == "fork", path=(Path(__file__).parent,))
    said: list[Any] = []

    def introduce(index: int, event: dict[str, Any]) -> None:
        if not said:
            said.append(event)
            say(event["pid"])

    with Supervisor(
        {"test": spec}, backend=LockdownBackend(), workers=1, halt_file=None, should_stop=lambda: False,
        heartbeat_seconds=float(sys.argv[1]), on_unattended=lambda key, reason: say([key, reason]),
    ) as supervisor:  # fmt: skip
        for op in ("burn", "echo"):
            job = Job(op, "test", ENTRY, {"op": op}, {}, (), LIMITS)
            [(_, outcome)] = supervisor.run([job], on_event=introduce)
            say([type(outcome).__name__, getattr(outcome, "unattended", False)])
