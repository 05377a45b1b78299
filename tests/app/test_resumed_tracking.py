"""Tracking of a run that goes on: it hears the whole past, late if need be, and nothing before the run is its own."""

from __future__ import annotations

import pytest

from selfimprove.app import session
from selfimprove.app.folder import records
from selfimprove.app.tracking import TrackingReport


class Told:
    """A tracker that remembers what it was told, and how long each record might have waited."""

    def __init__(self):
        self.past, self.records, self.closed = [], [], 0

    def catch_up(self, past, *, should_stop):
        assert not self.records
        self.past += past

    def on_event(self, kind, body):
        self.records.append((kind, dict(body)))

    def close(self, seconds):
        self.closed += 1
        return TrackingReport(0, "played", 0.0)


@pytest.fixture
def cut(cli, tmp_path):
    """The folder of a run of two generations that was killed in the middle of the second one."""
    answer = cli("run", "debug=micro", "tracking=wandb", "hydra.run.dir=runs/cut")
    assert answer.code == 0, answer.err
    ledger = tmp_path / "runs" / "cut" / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    first = next(place for place, line in enumerate(lines) if '"kind": "generation"' in line)
    ledger.write_text("\n".join(lines[: first + 2]) + "\n")
    return ledger.parent


@pytest.fixture
def started(monkeypatch):
    """The trackers that sessions started."""
    found = []

    def start(config, run_dir):
        found.append(Told())
        return found[-1]

    monkeypatch.setattr(session, "start_tracking", start)
    return found


def test_a_resumed_run_tells_its_tracker_every_record_once_and_in_order(cut, cli, started):
    before = list(records(cut))
    assert cli("resume", "cut").code == 0
    (told,) = started
    assert told.past == before
    live = [one for one in told.records if one[0] != "progress"]
    *rest, end = list(records(cut))[len(before) :]
    assert live == [*rest, end, end]  # how the run stands comes last, whatever it stopped for
    assert told.closed == 1


def test_a_run_that_ended_is_told_its_tracker_as_ended_when_it_is_resumed(cut, cli, started):
    assert [cli("resume", "cut").code, cli("resume", "cut").code] == [0, 0]
    again = started[1]
    assert "finish" not in [kind for kind, _ in again.past]  # an alert, or a summary, is of the last one alone
    assert again.records[-1] == ("finish", {"state": "finished", "reason": ""})


def test_a_resume_that_is_refused_starts_no_tracker(cut, cli, started):
    (cut / "HALT").write_text("a reason\n")
    assert cli("resume", "cut").code == 2
    assert started == []
    assert cli("resume", "cut", "--clear-halt").code == 0
    assert len(started) == 1
