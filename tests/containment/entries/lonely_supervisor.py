"""A supervisor with a busy worker that prints the process ids of its family and waits to be killed.

Usage: lonely_supervisor.py [off|require|none]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil

from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Job, JobLimits, Supervisor

SPEC = ZygoteSpec(("containment_entry",), path=(Path(__file__).parent,))
LIMITS = JobLimits(wall_seconds=60, cpu_seconds=60, memory_bytes=2**27, output_bytes=1, silence_seconds=60)


def show_family(index: int, event: dict[str, Any]) -> None:
    if not said:
        said.append(index)
        print(json.dumps([process.pid for process in psutil.Process().children(recursive=True)]), flush=True)


if __name__ == "__main__":
    said: list[int] = []
    use = sys.argv[1] if len(sys.argv) > 1 else "off"
    backend = make_backend("none") if use == "none" else make_backend("lockdown", outer_layer=use)
    with Supervisor(
        {"test": SPEC}, backend=backend, workers=1, halt_file=None, should_stop=lambda: False
    ) as supervisor:
        job = Job("burn", "test", "containment_entry", {"op": "burn"}, {}, (), LIMITS)
        list(supervisor.run([job], on_event=show_family))
