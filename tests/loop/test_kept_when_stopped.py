"""A person asks to stop while a job runs: it is finished, and what it found is kept, whatever kind of job it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.keys import state_dir
from selfimprove.containment.supervisor import Job, Outcome
from selfimprove.errors import Interrupted
from selfimprove.loop import run as loop
from selfimprove.loop.standing import RunSummary
from tests.loop.played import CONFIG, KILLED, Player, Silent, nobody_learns
from tests.loop.records import bodies


class Stopped(Player):
    """Is asked to stop while a job runs; those that run beside it are finished, others never start."""

    when: ClassVar[str] = ""
    asked: ClassVar[bool] = False
    done: ClassVar[Counter[str]] = Counter()

    def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
        for first in range(0, len(jobs), 2):
            if self.asked:
                break
            type(self).asked = self.when in {job.key for job in jobs[first : first + 2]}

            def start(index: int, first: int = first) -> None:
                if on_start is not None:
                    on_start(first + index)

            for index, outcome in super().run(jobs[first : first + 2], start):
                self.done[jobs[first + index].key] += 1
                yield first + index, outcome
        if self.asked:
            raise Interrupted("run jobs")


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, when: str) -> tuple[RunSummary, Counter[str]]:
    """A run that is asked to stop then, and resumed; how often each job was run."""
    monkeypatch.setattr(loop, "Supervisor", Stopped)
    monkeypatch.setattr(Player, "killed", set())
    nobody_learns(monkeypatch)
    monkeypatch.setattr(Stopped, "when", when)
    monkeypatch.setattr(Stopped, "done", Counter())
    monkeypatch.setattr(Stopped, "asked", False)
    found = loop.run(CONFIG, folder, Silent())
    if when:
        assert (found.state, Stopped.asked) == ("paused", True)
        monkeypatch.setattr(Stopped, "asked", False)
        monkeypatch.setattr(Stopped, "when", "")
        found = loop.run(CONFIG, folder, Silent(), resume=True)
    return found, Stopped.done


@dataclass(frozen=True)
class Whole:
    """A run that nobody stopped."""

    lineage: str
    done: Counter[str]
    lost: list[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        found, done = play(patch, folder / "run", "")
    return Whole(found.lineage_sha256, done, lost(folder / "run"))


def lost(folder: Path) -> list[str]:
    return [body["key"] for body in bodies(folder, "charge") if body["account"] == "lost"]


@pytest.mark.parametrize(
    "when",
    ["g001/screen", "g001/ask", "g001/c00/s0@1/9", "g001/c01/s0/reading", "g001/c01/s0/search", "g001/tell"],
)
def test_no_job_is_run_or_paid_twice(when: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    found, done = play(monkeypatch, tmp_path / "run", when)
    assert done == whole.done
    assert found.lineage_sha256 == whole.lineage
    assert lost(tmp_path / "run") == whole.lost == [KILLED]
    assert audit(tmp_path / "run", FileAnchor(state_dir())).ok
