"""Tripwires in the loop: what they read, and a run that trips, is approved, and goes on as if nothing had been."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import Entry, Ledger, read
from selfimprove.containment.tripwires import Tripwires
from selfimprove.errors import RunError, Tripped
from selfimprove.loop import run as loop
from selfimprove.loop.config import ContainmentConfig, RunConfig
from selfimprove.loop.journal import Journal
from selfimprove.loop.recovery import elapsed_seconds
from selfimprove.loop.watching import approval_of, pending, watch
from tests.loop.records import bodies

NAME = "tripped"


# -- what is read ------------------------------------------------------------------------------------------------------


class Memory:
    """A ledger that is kept nowhere."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def append(self, kind: str, body: dict[str, Any]) -> Entry:
        self.entries.append(Entry(len(self.entries), "", kind, body, "", "", ""))
        return self.entries[-1]


def journal_of(*records: tuple[str, dict[str, Any]]) -> Journal:
    memory = Memory()
    for kind, body in records:
        memory.append(kind, body)
    return Journal(cast(Ledger, memory), Mock())


def config(**wires: float) -> RunConfig:
    wide = Tripwires(
        gain=9.0, accelerating=99, unread=99, retention_fall=1.0, retention_floor=0.0, denied_share=1.0, entropy=0.0
    )
    return RunConfig(
        "test", 0, "cpu", generations=2, candidates=2, search_seeds=1, confirm_seeds=2, alpha=0.3, workers=1,
        allowance_flops=10**9, containment=ContainmentConfig(tripwires=replace(wide, **wires)),
    )  # fmt: skip


def generation(n: int, *, denials: tuple[str | None, ...] = (), **changes: Any) -> list[tuple[str, dict[str, Any]]]:
    """What the loop records about a generation whose one leader was promoted."""
    place = {"generation": n, "index": 0, "genome": f"{n}" * 64}
    found: dict[str, Any] = {"promoted": True, "difference": 0.25, "low": 0.97, "high": 0.99, "entropy": 0.8, **changes}
    verdicts = {name: {"verdict": "read", "reason": ""} for name in INSTRUMENTS} | found.get("instruments", {})
    return [
        *(("proposal", {"generation": n, "index": i, "status": "valid"}) for i in range(max(1, len(denials)))),
        *(("denial", {"generation": n, "index": i, "limit": limit}) for i, limit in enumerate(denials)),
        ("inspection", {**place, "status": "complete", "instruments": verdicts}),
        ("confirmation", {**place, "difference": found["difference"], "retention": found}),
        ("decision", {**place, "promoted": found["promoted"]}),
        ("controller", {"generation": n, "entropy": found["entropy"]}),
    ]


INSTRUMENTS = config().inspection.instruments
SEED = ("score", {"generation": 0, "index": -1, "retention": {"low": 0.98, "high": 0.995}})


def readings(journal: Journal, n: int, **wires: float) -> dict[str, Any]:
    """Wire by wire, what a generation's record says."""
    with pytest.raises(Tripped) if wires else nothing():
        watch(journal, config(**wires), n)
    body = journal.find("tripwire", n)
    assert body is not None
    return {one["name"]: one["value"] for one in body["readings"]}


@contextmanager
def nothing() -> Iterator[None]:
    yield


def test_the_ledger_of_a_generation_becomes_what_the_wires_read() -> None:
    lost = {"probes": {"verdict": "failed", "reason": "no such hook"}}
    records = [SEED, *generation(1, denials=("parameters", None, "flops"), instruments=lost)]
    found = readings(journal_of(*records), 1)
    assert found == {
        "gain": 0.25,
        "acceleration": 1,
        "inspection": 1,
        "retention_fall": pytest.approx(0.98 - 0.99),
        "retention_floor": 0.99,
        "denials": pytest.approx(2 / 3),  # what only the end of the budget denies is nobody's doing
        "entropy": 0.8,
    }


def test_without_a_promotion_nothing_is_gained_and_no_new_champion_is_judged() -> None:
    found = readings(journal_of(SEED, *generation(1, promoted=False)), 1)
    assert (found["gain"], found["retention_fall"], found["retention_floor"]) == (0.0, None, None)


def test_an_empty_generation_trips_nothing() -> None:
    found = readings(journal_of(SEED), 1)
    assert not any(found.values())


@pytest.mark.parametrize(
    ("wire", "bound", "changes"),
    [
        ("gain", 0.2, {}),
        ("inspection", 0, {"instruments": {"logit_lens": {"verdict": "unreadable", "reason": "diffuse"}}}),
        ("retention_fall", 0.02, {"low": 0.9, "high": 0.955}),
        ("retention_floor", 0.96, {"low": 0.9, "high": 0.955}),
        ("entropy", 0.9, {}),
    ],
)
def test_a_trip_is_recorded_with_its_value_and_stops_the_run(wire: str, bound: float, changes: Any) -> None:
    journal = journal_of(SEED, *generation(1, **changes))
    with pytest.raises(Tripped, match=wire):
        watch(journal, config(**{"unread" if wire == "inspection" else wire: bound}), 1)
    [trip] = journal.all("tripwire")[0]["trips"]
    assert (trip["name"], trip["bound"]) == (wire, bound)
    assert trip["reason"]


def test_where_the_gate_of_the_constraint_is_off_its_wires_are_read_and_do_not_trip() -> None:
    tight = config(retention_fall=0.02, retention_floor=0.96, entropy=0.9)
    off = replace(tight, inspection=replace(tight.inspection, retention_gate=False))
    found = []
    for settings in (tight, off):
        journal = journal_of(SEED, *generation(1, low=0.9, high=0.955))
        with pytest.raises(Tripped):
            watch(journal, settings, 1)
        found.append(journal.all("tripwire")[0])
    assert [{trip["name"] for trip in body["trips"]} for body in found] == [
        {"retention_fall", "retention_floor", "entropy"},
        {"entropy"},  # what has nothing to do with the constraint trips as ever
    ]
    assert found[0]["readings"] == found[1]["readings"]


def test_what_was_read_once_is_never_read_anew() -> None:
    journal = journal_of(SEED, *generation(1))
    before = readings(journal, 1, gain=0.2)
    with pytest.raises(Tripped):  # whatever the bounds may be by now
        watch(journal, config(), 1)
    assert readings(journal, 1, gain=0.2) == before
    assert len(journal.all("tripwire")) == 1


def test_a_generation_is_not_judged_by_what_came_after_it() -> None:
    early = journal_of(SEED, *generation(1))
    late = journal_of(SEED, *generation(1), *generation(2, difference=0.9))
    assert readings(early, 1) == readings(late, 1)


def test_an_approval_lets_its_generation_pass_and_no_other() -> None:
    journal = journal_of(SEED, *generation(1), *generation(2))
    readings(journal, 1, gain=0.2)
    journal.record("approval", approval_of(journal.all("tripwire")[0], "seen"))
    watch(journal, config(gain=0.2), 1)
    assert pending(journal.entries) is None
    readings(journal, 2, gain=0.2)
    waiting = pending(journal.entries)
    assert waiting is not None
    assert waiting["generation"] == 2


def test_an_approval_says_in_one_printable_line_what_for_by_whom_and_why() -> None:
    trip = {"generation": 3, "trips": [{"name": "gain"}, {"name": "entropy"}]}
    body = approval_of(trip, "  looked at it,\x1b[31m\nin the\u202e lens: größer als gedacht ")
    assert (body["generation"], body["trips"]) == (3, ["gain", "entropy"])
    assert body["reason"] == "looked at it, [31m in the lens: größer als gedacht"
    assert body["who"]
    with pytest.raises(RunError, match="--reason"):
        approval_of(trip, " \t\x00")


def test_a_trip_in_the_last_generation_comes_before_the_final_exam() -> None:
    lab = Mock(config=Mock(generations=1, inspection=Mock(modules=())))
    lab.quote.return_value, lab.train.return_value = [], {}
    lab.watch.side_effect = Tripped("go on after generation 1")
    with pytest.raises(Tripped):
        loop._run_generations(lab, lambda: False)
    lab.close_generation.assert_called_once_with(1)
    lab.seal.assert_not_called()


def test_waiting_for_an_approval_is_no_time_of_the_run() -> None:
    def entry(kind: str, minute: int) -> Entry:
        return Entry(0, datetime(2030, 1, 1, 10, minute).isoformat(), kind, {}, "", "", "")

    entries = [entry("run", 0), entry("tripwire", 2), entry("approval", 40), entry("resume", 50), entry("ask", 53)]
    assert elapsed_seconds(entries) == 5 * 60


# -- a whole run -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Story:
    """A run that trips after each of its generations: what each command said."""

    folder: Path
    first: str
    first_state: dict[str, Any]
    report: str
    refused: str
    without_reason: str
    while_running: str
    nowhere: str
    approved: str
    again: str
    second_state: dict[str, Any]
    end: dict[str, Any]


@pytest.fixture(scope="module")
def story(finished: Any) -> Story:
    place, folder = finished, finished.folder / NAME
    first = place.call("run", *place.micro, "containment.tripwires.entropy=20", f"hydra.run.dir={NAME}", expect=3)
    first_state, report = place.status(NAME), (folder / "report.html").read_text()
    refused = place.call("resume", NAME, expect=2)
    without_reason = place.call("approve", NAME, "--reason", " ", expect=2)
    with (folder / "ledger.jsonl").open() as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)  # as a run that goes on does
        while_running = place.call("approve", NAME, "--reason", "in a hurry", expect=2)
    nowhere = place.call("approve", "nowhere", "--reason", "seen", expect=2)
    approved = place.call("approve", NAME, "--reason", "the entropy is as expected")
    again = place.call("approve", NAME, "--reason", "once more", expect=2)
    place.call("resume", NAME, expect=3)
    second_state = place.status(NAME)
    place.call("approve", NAME, "--reason", "as before")
    place.call("resume", NAME)
    return Story(
        folder, first, first_state, report, refused, without_reason, while_running, nowhere, approved, again,
        second_state, place.status(NAME),
    )  # fmt: skip


def test_a_trip_pauses_the_run_and_says_wire_value_bound_and_what_goes_on(story: Story) -> None:
    for text in (story.first, story.first_state["reason"], story.report):
        assert "entropy" in text
        assert "nats per token, less than 20" in text
    assert story.first_state["state"] == "paused"
    assert story.first_state["generation"] == 1
    assert f'selfimprove approve {NAME} --reason "..."' in story.first
    assert f"selfimprove approve {NAME} --reason &#34;...&#34;" in story.report
    assert f"selfimprove resume {NAME}" in story.first


def test_resume_refuses_until_somebody_approved(story: Story) -> None:
    assert f"selfimprove approve {NAME}" in story.refused
    assert "entropy" in story.refused


def test_an_approval_needs_a_reason_a_trip_and_a_run_that_stands_still(story: Story) -> None:
    assert "a reason in words" in story.without_reason
    assert "it is running" in story.while_running
    assert "an existing run folder" in story.nowhere
    assert "nothing waits for an approval" in story.again


def test_trips_and_approvals_are_in_the_signed_ledger_with_who_when_and_why(story: Story, finished: Any) -> None:
    assert len(bodies(story.folder, "tripwire")) == 2
    first, second = (entry for entry in read(story.folder / "ledger.jsonl") if entry.kind == "approval")
    assert first.body["reason"] == "the entropy is as expected"
    assert (first.body["generation"], second.body["generation"]) == (1, 2)
    assert first.body["who"] in story.approved
    assert datetime.fromisoformat(first.time) < datetime.fromisoformat(second.time)
    report = audit(story.folder, FileAnchor(finished.folder / "state"))
    assert report.ok, report.findings


def test_a_trip_in_the_last_generation_pauses_too(story: Story) -> None:
    assert (story.second_state["state"], story.second_state["generation"]) == ("paused", 2)


def test_an_approved_run_ends_as_one_whose_wires_are_wider(story: Story, finished: Any) -> None:
    assert story.end["state"] == "finished"
    assert story.end["lineage_sha256"] == finished.status("whole")["lineage_sha256"]


def test_a_run_within_its_bounds_is_read_after_each_generation_and_not_stopped(finished: Any) -> None:
    read = bodies(finished.folder / "whole", "tripwire")
    assert [body["generation"] for body in read] == [1, 2]
    assert not any(body["trips"] for body in read)
