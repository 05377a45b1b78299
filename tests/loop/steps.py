"""A run that dies at a durable step: its disk is copied just before, by a harness that notes every such step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, Entry, Ledger, read
from selfimprove.containment.keys import SigningKey
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from tests.loop.played import Player, Silent, nobody_learns

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
    """Notes the durable steps of every sitting."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.labels: list[str] = []  # of the steps so far: what was made durable
        self._at: Collection[int] = ()
        self._keep: Callable[[int], object] = lambda _: None
        self._record = ""
        self._patch = patch
        for name in STEPS:
            patch.setattr(os, name, self._metered(getattr(os, name)))
        append = Ledger.append

        def noted(ledger: Ledger, kind: str, body: dict[str, Any]) -> Entry:
            self._record = kind
            return append(ledger, kind, body)

        patch.setattr(Ledger, "append", noted)

    def sitting(self, config: RunConfig, disk: Disk, killed: Collection[str] = ()) -> None:
        """Run, or go on, to the end; the workers of jobs named in ``killed`` have been killed once already."""
        self._patch.setenv("SELFIMPROVE_STATE_DIR", str(disk.state))
        SigningKey.load(disk.state)
        self.labels, self._record = [], ""
        Player.killed = set(killed)
        loop.run(config, disk.run, Silent(), resume=(disk.run / LEDGER_NAME).exists())

    def cut(self, config: RunConfig, disk: Disk, at: Collection[int], killed: Collection[str] = ()) -> Iterator[Disk]:
        """One more run, on ``disk``; then what it had left just before each of these steps, ``at``, in their order."""
        self._at, self._keep = at, lambda step: shutil.copytree(disk.path, disk.path.with_name(f"cut-{step}"))
        self.sitting(config, disk, killed)
        self._at = ()
        return (Disk(disk.path.with_name(f"cut-{step}")) for step in at)

    def _metered(self, step: Callable[..., None]) -> Callable[..., None]:
        def metered(*arguments: Any, **options: Any) -> None:
            if len(self.labels) in self._at:
                self._keep(len(self.labels))
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
    nobody_learns(monkeypatch)
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
