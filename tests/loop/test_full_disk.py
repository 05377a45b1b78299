"""A disk that fills up, at the start or in mid-run: one message that says how to go on, and no record is lost."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.cli import main

_write = os.write


class Disk:
    """Gives what is written below a folder so many bytes of room, then says that it is full.

    As a real one does, it takes the part of a write that still fits. Workers and W&B are other processes: not limited.

    Args:
        folder: what lies below it is limited.
        room: bytes.
        after: the room begins to shrink with the first write that holds this.
    """

    def __init__(self, folder: Path, room: int, after: bytes = b"") -> None:
        self.folder = folder
        self.room = room
        self.after = after
        self.shrinks = not after

    def write(self, descriptor: int, data: Any) -> int:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{self.folder}/"):
            return _write(descriptor, data)
        self.shrinks = self.shrinks or self.after in bytes(data)
        taken = min(self.room, len(data)) if self.shrinks else len(data)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= taken * self.shrinks
        return _write(descriptor, bytes(data)[:taken])


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty current folder; Hydra's logging, set up in this process, is taken down again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield tmp_path
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers[:], root.level = before


@pytest.mark.parametrize("room", [0, 2000])  # for not even the configuration; for not even the first record
def test_a_disk_that_is_full_at_the_start_is_one_message(
    elsewhere: Path, finished: Any, room: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "write", Disk(elsewhere / "full", room).write)
    assert main(["run", *finished.micro, "hydra.run.dir=full"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No space left on device" in said
    assert "start the run again" in said
    assert not (elsewhere / "full" / "ledger.jsonl").exists()


def test_a_disk_that_fills_up_in_mid_run_loses_nothing_and_resume_goes_on(
    elsewhere: Path, finished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", Disk(elsewhere / "full", 600_000, after=b'"kind":"reference"').write)
        assert main(["run", *finished.micro, "hydra.run.dir=full"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert "free space on the one that holds" in said
    assert "selfimprove resume full" in said
    before = records(elsewhere / "full")
    assert any(record["kind"] == "reference" for record in before)
    assert main(["resume", "full"]) == 0
    after = records(elsewhere / "full")
    assert after[: len(before)] == before
    trained = [record["body"]["key"] for record in after if record["kind"] == "outcome"]
    assert len(trained) == len(set(trained))  # what was done once is not done again
    capsys.readouterr()
    assert main(["status", "full", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lineage_sha256"] == finished.status("whole")["lineage_sha256"]
