"""Attacks from inside a worker, by category. Imported in contained workers: nothing of the trusted side comes along."""

from __future__ import annotations

from typing import Final

from selfimprove.containment.redteam.attack import WorkerAttack
from selfimprove.containment.redteam.inside import (
    clocks,
    deceiving,
    floods,
    handles,
    kernel,
    memory,
    network,
    outputs,
    reading,
    supervision,
    survival,
    tampering,
)

CATEGORIES: Final[dict[str, tuple[WorkerAttack, ...]]] = {
    "network": network.ATTACKS,
    "tamper": tampering.ATTACKS,
    "read": reading.ATTACKS,
    "handles": handles.ATTACKS,
    "output": outputs.ATTACKS,
    "supervisor": supervision.ATTACKS,
    "survival": survival.ATTACKS,
    "memory": memory.ATTACKS,
    "time": clocks.ATTACKS,
    "floods": floods.ATTACKS,
    "kernel": kernel.ATTACKS,
    "checkpoint": deceiving.CHECKPOINT,
    "ledger": deceiving.LEDGER,
    "permit": deceiving.PERMIT,
    "protocol": deceiving.PROTOCOL,
}

INSIDE: Final = {f"{category}/{attack.name}": attack for category, found in CATEGORIES.items() for attack in found}
