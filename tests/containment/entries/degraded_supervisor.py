"""Starts a supervisor on a machine that lacks a system call, and prints how that ended.

Usage: degraded_supervisor.py MISSING_CALL [ALLOWED_PROPERTY ...] [--package FOLDER NAME]

With ``--package`` it serves the module ``NAME.entry`` of a package of somebody's own that lies in FOLDER.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from selfimprove.containment.redteam.machine import lose
from selfimprove.containment.sandbox.backend import LockdownBackend, ZygoteSpec
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import RunError, SandboxUnavailable

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("missing")
    parser.add_argument("allowed", nargs="*")
    parser.add_argument("--package", nargs=2)
    options = parser.parse_args()
    spec = ZygoteSpec(("containment_entry",), path=(Path(__file__).parent,))
    if options.package:
        folder, name = options.package
        spec = ZygoteSpec((f"{name}.entry",), search=(Path(folder),))
    lose(options.missing)
    try:
        backend = LockdownBackend(options.allowed)
        with Supervisor(
            {"test": spec}, backend=backend, workers=1, halt_file=None, should_stop=lambda: False
        ) as supervisor:
            supervisor.prove()
            print(f"started without {sorted(backend.degraded)}, proved {sorted(supervisor.proofs['test'])}")
    except (RunError, SandboxUnavailable) as error:
        print(f"refused: {error}")
