"""Runs chosen attacks against lock-downs that each lack one layer, and prints every verdict as JSON.

Usage: weakened_redteam.py '{LAYER: [ATTACK, ...], ...}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from selfimprove.containment.redteam.registry import select
from selfimprove.containment.redteam.runner import Runner
from selfimprove.containment.sandbox.backend import PROPERTIES
from selfimprove.containment.sandbox.cgroup import Group, Ungrouped

ZYGOTE = Path(__file__).parent / "weakened_zygote.py"


class Weakened:
    """The lock-down without one of its layers. Does not ask for a canary, which would refuse to start."""

    name = "weakened"
    contains = False
    degraded: frozenset[str] = frozenset()

    def __init__(self, layer: str) -> None:
        self._layer = layer

    def probe(self) -> dict[str, str | None]:
        return dict.fromkeys(PROPERTIES, "a promise")

    def command(self, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-P", "-B", str(ZYGOTE), self._layer, *arguments]

    def enclose(self, roles: int, workers: int) -> Group:
        return Ungrouped()


if __name__ == "__main__":
    found = {}
    for layer, attacks in json.loads(sys.argv[1]).items():
        with Runner(Weakened(layer)) as runner:
            found[layer] = {row.id: row.verdict for row in runner.run(select(attacks))}
    print(json.dumps(found))
