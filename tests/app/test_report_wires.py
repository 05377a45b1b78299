"""The report's view of tripwires: what was read, what tripped, and what waits for a person."""

from __future__ import annotations

from typing import Any

import pytest

from selfimprove.app.report.about import run_state
from selfimprove.app.report.data import build_report
from selfimprove.app.report.page import render
from selfimprove.app.report.records import Record, Records
from selfimprove.app.report.wires import read_waiting, read_wires

REASON = "the champion gained 0.5000 of skill in one generation, more than 0.4"


def reading(generation: int, value: float | None = 0.1, *, tripped: bool = False) -> Record:
    read = [{"name": "gain", "value": value, "bound": 0.4}, {"name": "entropy", "value": None, "bound": 0.35}]
    trips = [{"name": "gain", "value": value, "bound": 0.4, "reason": REASON}] if tripped else []
    return Record("tripwire", {"generation": generation, "readings": read, "trips": trips})


APPROVAL = Record("approval", {"generation": 2, "who": "ada", "reason": "<b>seen</b>", "trips": ["gain"]})
TRIPPED = Records((reading(1), reading(2, 0.5, tripped=True)))


def test_a_wire_shows_its_bound_its_last_reading_and_where_it_tripped() -> None:
    gain, entropy = read_wires(Records((*TRIPPED.lines, APPROVAL, reading(3))))
    assert (gain.name, gain.bound, gain.last, gain.tripped) == ("gain", "at most 0.4", "0.1", (2,))
    assert (entropy.bound, entropy.last, entropy.tripped) == ("at least 0.35", "nothing to read", ())


def test_a_trip_waits_until_it_is_approved() -> None:
    waiting = read_waiting(TRIPPED, "runs/a")
    assert waiting is not None
    assert (waiting.generation, waiting.trips) == (2, (("gain", REASON),))
    assert waiting.commands == ('selfimprove approve runs/a --reason "..."', "selfimprove resume runs/a")
    spaced = read_waiting(TRIPPED, "runs/my run")
    assert spaced is not None
    assert spaced.commands[-1] == "selfimprove resume 'runs/my run'"
    assert read_waiting(Records((*TRIPPED.lines, APPROVAL)), "runs/a") is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), ("paused", REASON)),
        ((APPROVAL,), ("paused", "approved by ada")),
        ((APPROVAL, Record("resume", {"entries": 9})), ("paused", "interrupted")),
    ],
)
def test_the_state_follows_trip_approval_and_resume(more: tuple[Record, ...], words: tuple[str, str]) -> None:
    state, reason = run_state(Records((*TRIPPED.lines, *more)))
    assert state == words[0]
    assert words[1] in reason


def test_nothing_that_comes_after_the_end_of_a_run_changes_its_state() -> None:
    ended = (*TRIPPED.lines, APPROVAL, Record("finish", {"state": "limit", "reason": "flops"}))
    assert run_state(Records((*ended, Record("resume", {}), Record("clear_halt", {})))) == ("limit", "flops")


def test_the_page_warns_of_a_trip_and_lists_it_with_its_approval() -> None:
    page = render(build_report(TRIPPED, folder="runs/a"))
    assert 'id="tripped"' in page
    assert REASON in page
    assert "selfimprove resume runs/a" in page
    later = render(build_report(Records((*TRIPPED.lines, APPROVAL, reading(3)))))
    assert 'id="tripped"' not in later
    assert "by ada: &lt;b&gt;seen&lt;/b&gt;" in later


@pytest.mark.parametrize("body", [{}, {"trips": 3}, {"trips": [1, None]}, {"generation": "x", "readings": "abc"}])
def test_a_malformed_reading_breaks_nothing(body: dict[str, Any]) -> None:
    records = Records((Record("tripwire", body), Record("approval", {}), Record("unattended", {})))
    assert "<!DOCTYPE html>" in render(build_report(records))


def test_a_node_that_was_lost_is_an_event_and_one_that_is_ready_is_none() -> None:
    ready = Record("node", {"node": "n-1", "state": "ready", "host": "alpha"})
    lost = Record("node", {"node": "n-2", "state": "lost", "reason": "<b>preempted</b>"})
    page = render(build_report(Records((ready, lost))))
    assert "n-2 was lost: &lt;b&gt;preempted&lt;/b&gt;" in page
    assert "n-1" not in page
