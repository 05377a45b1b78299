"""A real run whose supervisor is stopped in the middle of a training: nothing trains on, and nobody is blamed."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from tests.loop.records import bodies
from tests.loop.workers import freeze_in_training, workers_of

NAME = "unattended"
HEARTBEAT = 2.0  # seconds
SLACK = 10.0  # seconds that a busy machine may take to do what is due


@dataclass(frozen=True)
class Story:
    """What became of the workers while the supervisor stood still, and of the run afterwards."""

    folder: Path
    workers: int
    left: list[psutil.Process]
    stood_still: bool
    output: str

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return bodies(self.folder, kind)


@pytest.fixture(scope="module")
def story(finished: Any) -> Story:
    place, folder = finished, finished.folder / NAME
    heartbeat = f"containment.heartbeat_seconds={HEARTBEAT}"
    process = place.start("run", *place.micro, heartbeat, f"hydra.run.dir={NAME}")
    main = psutil.Process(process.pid)
    try:
        held = freeze_in_training(process, folder / "ledger.jsonl")
        process.send_signal(signal.SIGSTOP)
        workers = workers_of(main)
        assert held in workers
        deadline = time.monotonic() + HEARTBEAT + SLACK
        while workers_of(main) and time.monotonic() < deadline:
            time.sleep(0.05)
        left, stood_still = workers_of(main), main.status() == psutil.STATUS_STOPPED
        time.sleep(HEARTBEAT)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return Story(folder, len(workers), left, stood_still, output)


def test_no_worker_outlives_one_heartbeat_of_a_stopped_supervisor(story: Story) -> None:
    assert story.workers >= 1
    assert not story.left
    assert story.stood_still


def test_the_ledger_and_the_terminal_say_what_happened_to_whom(story: Story) -> None:
    found = story.bodies("unattended")
    assert found
    for body in found:
        assert "the supervisor was silent for" in body["reason"]
        assert f"{body['key']}: the supervisor was silent" in story.output


def test_what_was_cut_off_is_lost_and_permitted_again(story: Story) -> None:
    permits = story.bodies("permit")
    cut = {body["key"] for body in story.bodies("unattended")} & {body["key"] for body in permits}
    assert cut
    assert {body["key"] for body in story.bodies("charge") if body["account"] == "lost"} >= cut
    assert {body["key"] for body in permits if body["reissue"]} >= cut


def test_no_candidate_is_blamed(story: Story, finished: Any) -> None:
    assert {body["status"] for body in story.bodies("outcome")} <= {"completed", "stopped"}  # by halving
    assert finished.status(NAME)["lineage_sha256"] == finished.status("whole")["lineage_sha256"]


def test_the_run_passes_its_audit(story: Story, finished: Any) -> None:
    report = audit(story.folder, FileAnchor(finished.folder / "state"))
    assert report.ok, report.findings
