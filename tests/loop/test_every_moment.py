"""The process dies just before any one of its durable steps; the resumed run must equal the one that did not die.

Real loop, ledger, budget and files; only the workers are played, so that a whole run takes a second and every kind of
moment can be tried. What a process leaves that dies at a step is what lies on the disk there: all moments are copied
from one run as it passes them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.controller.config import ControllerConfig
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from tests.loop.played import CONFIG, KILLED
from tests.loop.steps import Disk, Ending, Steps, place, steps

__all__ = ["place", "steps"]  # fixtures

TIGHT = replace(
    CONFIG,
    generations=4,
    controller=ControllerConfig(name="random"),
    limits=replace(CONFIG.limits, flops=25 * 10**9),  # a tenth may be lost: two workers
)


def tear(ledger: Path, draw: random.Random) -> None:
    """Cut the last line short, as a crash in the middle of an append does; the first line never stands alone."""
    data = ledger.read_bytes() if ledger.exists() else b""
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    if start:
        ledger.write_bytes(data[: draw.randrange(start + 1, len(data))])


def is_eventful(whole: Path) -> bool:
    """Whether a run has what can go wrong in a replay: promotions, failures, and an end that was meant."""
    entries = read(whole / LEDGER_NAME)
    fates = {entry.body["status"] for entry in entries if entry.kind == "outcome"}
    promoted = [entry for entry in entries if entry.kind == "decision" and entry.body["promoted"]]
    return loop.status(whole).state in ("finished", "limit") and len(fates) >= 3 and len(promoted) >= 2


def moments(labels: Sequence[str], half: int, draw: random.Random) -> list[int]:
    """One step of every second kind, drawn from all of its kind. An append is cut by its anchor, which follows it."""
    kinds: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        kinds.setdefault(label, []).append(index)
    return [draw.choice(kinds[kind]) for kind in sorted(k for k in kinds if not k.startswith("record "))[half::2]]


@pytest.mark.parametrize(("config", "half"), [(CONFIG, 0), (TIGHT, 1)], ids=["finished", "out-of-budget"])
def test_a_run_that_died_at_any_step_ends_as_if_it_had_not(
    config: RunConfig, half: int, steps: Steps, place: Path
) -> None:
    first, killed = Disk(place / "first"), {KILLED} if config is TIGHT else set[str]()
    steps.sitting(config, first, killed)
    assert is_eventful(first.run)
    labels, draw, expected = list(steps.labels), random.Random(0), Ending.of(first)
    cuts = moments(labels, half, draw)
    disks = steps.cut(config, Disk(place / "again"), cuts, killed)
    assert steps.labels == labels
    for cut, disk in zip(cuts, disks, strict=True):
        if "anchors" in labels[cut] and draw.random() < 0.3:
            tear(disk.run / LEDGER_NAME, draw)
        steps.sitting(config, disk, killed)
        where = f"cut before step {cut} of {len(labels)}: {labels[cut]}"
        found = Ending.of(disk)
        assert (found.summary, found.paid, found.problems) == (expected.summary, expected.paid, []), where
        assert found.lost - expected.lost <= 2 * 2 * CONFIG.allowance_flops, where
