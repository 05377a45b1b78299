"""Starts a supervisor on a machine that lacks a system call, and prints how that ended.

Usage: degraded_supervisor.py MISSING_CALL [ALLOWED_PROPERTY ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from selfimprove.containment.redteam.machine import lose
from selfimprove.containment.sandbox.backend import LockdownBackend, ZygoteSpec
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import SandboxUnavailable

if __name__ == "__main__":
    spec = ZygoteSpec(("containment_entry",), path=(Path(__file__).parent,))
    lose(sys.argv[1])
    try:
        backend = LockdownBackend(sys.argv[2:])
        with Supervisor(
            {"test": spec}, backend=backend, workers=1, halt_file=None, should_stop=lambda: False
        ) as supervisor:
            supervisor.prove()
            print(f"started without {sorted(backend.degraded)}, proved {sorted(supervisor.proofs['test'])}")
    except SandboxUnavailable as error:
        print(f"refused: {error}")
