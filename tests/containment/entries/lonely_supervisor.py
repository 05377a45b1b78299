"""A supervisor with a busy worker that prints the process ids of its family and waits to be killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil

from selfimprove.containment.sandbox.backend import LockdownBackend, ZygoteSpec
from selfimprove.containment.supervisor import Job, JobLimits, Supervisor

SPEC = ZygoteSpec(("containment_entry",), path=(Path(__file__).parent,))
LIMITS = JobLimits(wall_seconds=60, cpu_seconds=60, memory_bytes=2**27, output_bytes=1, silence_seconds=60)


def show_family(index: int, event: dict[str, Any]) -> None:
    family = psutil.Process().children(recursive=True)
    if len(family) == 2:
        print(json.dumps([process.pid for process in family]), flush=True)


if __name__ == "__main__":
    with Supervisor(
        {"test": SPEC}, backend=LockdownBackend(), workers=1, halt_file=None, should_stop=lambda: False
    ) as supervisor:
        job = Job("burn", "test", "containment_entry", {"op": "burn"}, {}, (), LIMITS)
        list(supervisor.run([job], on_event=show_family))
