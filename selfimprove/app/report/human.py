"""A run beside the frozen human ladder: eleven known discoveries, each measured one edit away from the seed genome.

``selfimprove benchmark ladder`` measured it (its summary is ``benchmarks/results/ladder``); it is read, never changed.
The gain of its best rung is what one good human idea is worth at this scale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from selfimprove.app.report.records import Records, integer, mapping, texts
from selfimprove.loop.anytime import Steps, threshold

_PLACES = (
    Path(__file__).with_name("ladder.json"),
    Path(__file__).parents[3] / "benchmarks" / "results" / "ladder" / "summary.json",
)
"""Of the summary: in an installed package, and in a checkout."""


@dataclass(frozen=True)
class Ladder:
    """The best rung, and what it was measured on.

    Attributes:
        discovery: its name.
        gain: mean paired difference of skill to the seed genome.
        n: seeds.
        allowance: FLOPs of a training.
        levels: of the families.
    """

    discovery: str
    gain: float
    n: int
    allowance: int
    levels: Mapping[str, int]


@dataclass(frozen=True)
class Standing:
    """How far a run came on the human ladder.

    Attributes:
        ladder: what it is measured against; None where there is none.
        recovered: confirmed gain as a share of the ladder's; None where the two cannot be compared.
        passed: charged FLOPs at which the confirmed gain reached the ladder's; None: not reached.
        reason: why the two cannot be compared; empty where they can.
    """

    ladder: Ladder | None
    recovered: float | None = None
    passed: float | None = None
    reason: str = ""


@cache
def frozen_ladder() -> Ladder | None:
    """The ladder that ships with this version; None where its file is not there."""
    path = next((place for place in _PLACES if place.is_file()), None)
    return None if path is None else read_ladder(json.loads(path.read_text(encoding="utf-8")))


def read_ladder(summary: Mapping[str, Any]) -> Ladder | None:
    """The best of the discoveries that help the seed genome as it is; None where none does."""
    rows = [row for row in summary["discoveries"] if row["verdict"] == "helps" and not row["base"]]
    if not rows:
        return None
    best = max(rows, key=lambda row: float(row["difference"]))
    name, gain, n = best["discovery"], best["difference"], best["n"]
    return Ladder(name, float(gain), int(n), int(summary["allowance_flops"]), dict(summary["tasks"]))


def compare_with_ladder(records: Records, confirmed: Steps, ladder: Ladder | None = None) -> Standing:
    """A run's confirmed gain beside the ladder's.

    Gains count as long as the families stand at the levels of the ladder: what is gained at a harder one is another
    quantity.

    Args:
        records: of the run.
        confirmed: its confirmed gains, added up, against charged FLOPs.
        ladder: the frozen one, unless another is given.
    """
    ladder = ladder or frozen_ladder()
    if ladder is None:
        return Standing(None, reason="this version has no ladder")
    if reason := _incomparable(records, ladder):
        return Standing(ladder, reason=reason)
    if not confirmed.values:
        return Standing(ladder, reason="nothing was scored")
    end = _first_rise(records)
    kept = [(x, y) for x, y in zip(confirmed.charged, confirmed.values, strict=True) if end is None or x <= end]
    reached = Steps(tuple(x for x, _ in kept), tuple(y for _, y in kept))
    return Standing(ladder, max(reached.values, default=0.0) / ladder.gain, threshold(reached, ladder.gain))


def _incomparable(records: Records, ladder: Ladder) -> str:
    config = mapping(records.last("run").get("config"))
    tasks, allowance = mapping(config.get("tasks")), integer(config.get("allowance_flops"))
    families, levels = texts(tasks.get("families")), mapping(tasks.get("levels"))
    ours = {name: integer(levels.get(name, 0)) for name in families}
    if allowance != ladder.allowance:
        return "the ladder was measured at another allowance of FLOPs a training"
    return "" if ours == ladder.levels else "the ladder was measured on other families or levels"


def _first_rise(records: Records) -> int | None:
    """FLOPs that were charged when a family first rose by a level; None: none did."""
    charged = 0
    for line in records.lines:
        if line.kind == "charge":
            charged = max(charged, integer(line.body.get("total")) or 0)
        elif line.kind == "climb" and line.body.get("risen"):
            return charged
    return None
