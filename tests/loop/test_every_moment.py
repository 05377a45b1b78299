"""The process dies just before any one of its durable steps; the resumed run must equal the one that did not die.

Real loop, ledger, budget and files; only the workers are played, so that a whole run takes a second and every kind of
moment can be tried. What a process leaves that dies at a step is what lies on the disk there: all moments are copied
from one run as it passes them.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, Entry, Ledger, read
from selfimprove.containment.keys import SigningKey
from selfimprove.controller.config import ControllerConfig
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from tests.loop.played import CONFIG, KILLED, Player, Silent

TIGHT = replace(
    CONFIG,
    generations=4,
    controller=ControllerConfig(name="random"),
    limits=replace(CONFIG.limits, flops=25 * 10**9),  # a tenth may be lost: two workers
)
STEPS = ("replace", "rename", "unlink", "fdatasync")  # each makes something durable, or lets go of it


@dataclass(frozen=True)
class Disk:
    """What outlives a process: the run's folder, and beside it that of keys and anchors."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def state(self) -> Path:
        return self.path / "state"


class Steps:
    """Notes the durable steps of a sitting, and calls ``keep`` just before chosen ones."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.labels: list[str] = []  # of the steps so far: what was made durable
        self.at: Collection[int] = ()
        self.keep: Callable[[int], object] = lambda _: None
        self._record = ""
        self._patch = patch
        for name in STEPS:
            patch.setattr(os, name, self._metered(getattr(os, name)))
        append = Ledger.append

        def noted(ledger: Ledger, kind: str, body: dict[str, Any]) -> Entry:
            self._record = kind
            return append(ledger, kind, body)

        patch.setattr(Ledger, "append", noted)

    def sitting(self, config: RunConfig, disk: Disk) -> None:
        """Run, or go on, to the end."""
        self._patch.setenv("SELFIMPROVE_STATE_DIR", str(disk.state))
        SigningKey.load(disk.state)
        self.labels, self._record = [], ""
        Player.killed = {KILLED} if config is TIGHT else set()
        loop.run(config, disk.run, Silent(), resume=(disk.run / LEDGER_NAME).exists())

    def _metered(self, step: Callable[..., None]) -> Callable[..., None]:
        def metered(*arguments: Any, **options: Any) -> None:
            if len(self.labels) in self.at:
                self.keep(len(self.labels))
            if step.__name__ == "fdatasync":
                self.labels.append(f"record {self._record}")
                return
            target = Path(arguments[-1])
            self.labels.append(f"{step.__name__} {target.parent.name}/*{target.suffix} after {self._record}")
            step(*arguments, **options)

        return metered


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of small files are written."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    monkeypatch.setattr(loop, "Supervisor", Player)
    monkeypatch.setattr("selfimprove.controller.transformer.lessons", lambda *_, **__: [])  # nobody learns from them
    return Steps(monkeypatch)


@dataclass(frozen=True)
class Ending:
    """What a finished run shows; equal, but for what was lost, for two runs that found the same."""

    summary: dict[str, Any]
    paid: dict[str, int]
    lost: int
    problems: list[str]

    @classmethod
    def of(cls, disk: Disk) -> Ending:
        folder, report = disk.run, audit(disk.run, FileAnchor(disk.state))
        problems = [str(finding) for finding in report.findings] + ([] if report.anchored else ["not anchored"])
        summary, paid = asdict(loop.status(folder)), dict.fromkeys(("search", "confirm", "controller", "lost"), 0)
        if summary.pop("charged_flops") > summary["limit_flops"]:
            problems.append("more was charged than the limit allows")
        for body in (entry.body for entry in read(folder / LEDGER_NAME) if entry.kind == "charge"):
            paid[body["account"]] += body["flops"]
        return cls(summary, paid, paid.pop("lost"), problems)


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
    first, again = Disk(place / "first"), Disk(place / "again")
    steps.sitting(config, first)
    assert is_eventful(first.run)
    labels, draw, expected = list(steps.labels), random.Random(0), Ending.of(first)
    steps.at = cuts = moments(labels, half, draw)
    steps.keep = lambda cut: shutil.copytree(again.path, place / f"cut-{cut}")
    steps.sitting(config, again)
    assert steps.labels == labels
    steps.at = ()
    for cut in cuts:
        disk, where = Disk(place / f"cut-{cut}"), f"cut before step {cut} of {len(labels)}: {labels[cut]}"
        if "anchors" in labels[cut] and draw.random() < 0.3:
            tear(disk.run / LEDGER_NAME, draw)
        steps.sitting(config, disk)
        found = Ending.of(disk)
        assert (found.summary, found.paid, found.problems) == (expected.summary, expected.paid, []), where
        assert found.lost - expected.lost <= 2 * 2 * CONFIG.allowance_flops, where
