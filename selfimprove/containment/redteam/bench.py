"""The entry of uncontained processes: control runs, and the trusted side's own code with something forged before it.

A control is the careless version of a worker: its parent's secrets are in its environment, its memory and its
descriptors, its output is an ordinary file, and whoever listens to it believes and keeps every word.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selfimprove.containment.redteam.attack import Cell, Emit, TrustedAttack
from selfimprove.containment.redteam.forged import FORGED
from selfimprove.containment.redteam.inmate import attempt, event_pipe
from selfimprove.containment.redteam.inside import INSIDE
from selfimprove.containment.redteam.target import bait


def warm_up() -> None:
    """Nothing to warm."""


def run(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Emit) -> dict[str, Any]:
    """Do the control of an attack from inside, or one side of an attack on the trusted side."""
    name = job["attack"]
    if name in INSIDE:
        return _control(job, event_pipe(emit))
    return _trusted(FORGED[name], Path(job["base"]), guarded=job["guarded"])


def _control(job: dict[str, Any], events: int) -> dict[str, Any]:
    attack, base = INSIDE[job["attack"]], Path(job["base"])
    heard: list[dict[str, Any]] = []
    out, errors = (os.open(base / name, os.O_RDWR | os.O_CREAT, 0o600) for name in ("out", "errors"))
    data = os.open(base / "data", os.O_RDONLY)
    secret = b"".join(bytes.fromhex(half) for half in job["secret"])
    with bait(secret, base):
        cell = Cell.from_job(job, data=data, out=out, events=events, errors=errors, emit=heard.append)
        found = attempt(attack.control or attack.run, cell)
    if attack.naive is not None and found.get("escaped"):
        found["escaped"] = bool(attack.naive(os.pread(out, os.fstat(out).st_size, 0)))
    return found


def _trusted(attack: TrustedAttack[Any], folder: Path, *, guarded: bool) -> dict[str, Any]:
    try:
        made = attack.make(folder)
    except Exception as error:
        return {"broken": f"{type(error).__name__}: {error}"}
    if not guarded:
        return {"escaped": bool(attack.naive(made))}
    try:
        return {"escaped": bool(attack.guarded(made))}
    except attack.refusals as error:
        return {"refused": str(error)}
