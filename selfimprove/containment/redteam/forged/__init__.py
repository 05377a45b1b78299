"""Attacks on the code of the trusted side, by category."""

from __future__ import annotations

from typing import Any, Final

from selfimprove.containment.redteam.attack import TrustedAttack
from selfimprove.containment.redteam.forged import budgets, checkpoints, ledgers, machines, messages, permits, traps

CATEGORIES: Final[dict[str, tuple[TrustedAttack[Any], ...]]] = {
    "output": traps.ATTACKS,
    "survival": machines.SURVIVAL,
    "checkpoint": checkpoints.ATTACKS,
    "ledger": ledgers.ATTACKS,
    "permit": permits.ATTACKS + budgets.ATTACKS,
    "protocol": messages.ATTACKS,
    "degraded": machines.DEGRADED,
}

FORGED: Final = {f"{category}/{attack.name}": attack for category, found in CATEGORIES.items() for attack in found}
