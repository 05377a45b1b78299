"""The limits of a run as a whole, each hit by a run whose workers are played; see also ``test_run``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.report.page import write_report
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, Entry, read
from selfimprove.containment.jobs import Job, Outcome, Spent
from selfimprove.containment.keys import SigningKey
from selfimprove.errors import Interrupted
from selfimprove.executors.versions import SOURCES
from selfimprove.loop import run as loop
from selfimprove.loop.clock import Clock, seconds_before, spent_before
from selfimprove.loop.config import RunConfig
from selfimprove.loop.journal import METERED
from tests.loop.played import CONFIG, Player, Silent, nobody_learns
from tests.loop.records import bodies


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    SigningKey.load(tmp_path / "state")
    nobody_learns(monkeypatch)
    play(monkeypatch, Player)


def play(monkeypatch: pytest.MonkeyPatch, player: type[Player], pace: Spent = Player.pace) -> None:
    monkeypatch.setattr(loop, "Supervisor", player)
    monkeypatch.setattr(Player, "pace", pace)


def limited(**limits: Any) -> RunConfig:
    return replace(CONFIG, limits=replace(CONFIG.limits, **limits))


def outcome(**body: Any) -> Entry:
    return Entry(0, "2026-01-01T00:00:00Z", "outcome", body, "", "", "")


class Stopping(Player):
    """Is asked to stop after some jobs; what ran is finished."""

    jobs = 6

    def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
        for found in super().run(jobs, on_start):
            self.jobs -= 1
            yield found
            if self.jobs < 0:
                raise Interrupted("run jobs")


class Obeying(Player):
    """Starts no job once it should stop, as the supervisor does; what runs is finished."""

    def __init__(self, *_: object, should_stop: Callable[[], bool], **__: object) -> None:
        super().__init__()
        self._should_stop = should_stop

    def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
        for index, job in enumerate(jobs):
            if self._should_stop():
                break
            if on_start is not None:
                on_start(index)
            for _, found in super().run([job]):
                yield index, found
        if self._should_stop():
            raise Interrupted("run jobs")


@pytest.mark.parametrize(
    "limits",
    [
        {"generations": 1},
        {"candidates": CONFIG.candidates},
        {"wall_seconds": 0.001},
        {"cpu_seconds": 4.0},
        {"gpu_seconds": 3.0},
        {"disk_bytes": 1000},
    ],
    ids=lambda limits: next(iter(limits)),
)
def test_a_limit_of_the_run_ends_it_cleanly_and_says_which(
    limits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, Player, Spent(0.5, 0.5))
    found = loop.run(limited(**limits), tmp_path / "run", Silent())
    assert found.state == "limit"
    assert f"limits.{next(iter(limits))}" in found.reason
    assert found.generation < CONFIG.generations
    assert f"limits.{next(iter(limits))}" in write_report(tmp_path / "run").read_text()
    assert audit(tmp_path / "run", FileAnchor(tmp_path / "state")).ok


@pytest.mark.parametrize(("seconds", "within"), [(2.0, "g000/"), (12.0, "g001/")], ids=["seed", "generation 1"])
def test_a_limit_on_time_stops_the_workers_and_nothing_is_permitted_once_it_is_passed(
    seconds: float, within: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, Obeying, Spent(1.0, 0.0))
    found = loop.run(limited(cpu_seconds=seconds), tmp_path / "run", Silent())
    assert found.state == "limit"
    assert "limits.cpu_seconds" in found.reason
    records = read(tmp_path / "run" / LEDGER_NAME)
    permits = [n for n, record in enumerate(records) if record.kind == "permit"]
    passed = [n for n, record in enumerate(records) if record.body.get("spent", {}).get("cpu_seconds", 0) > seconds]
    assert permits[-1] < passed[0]
    assert records[permits[-1]].body["key"].startswith(within)
    assert not [body for body in bodies(tmp_path / "run", "score") if f"g{body['generation']:03d}/" == within]


@pytest.mark.parametrize("limits", [{"generations": 1}, {"candidates": CONFIG.candidates}], ids=str)
def test_a_run_has_exactly_as_many_generations_and_candidates_as_it_may(limits: dict[str, Any], tmp_path: Path) -> None:
    found = loop.run(limited(**limits), tmp_path / "run", Silent())
    assert (found.generation, found.candidates) == (1, CONFIG.candidates)


def test_a_folder_that_fills_up_within_a_generation_ends_the_run_before_the_next_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Filling(Player):
        """A candidate of the first generation that has been trained once leaves a large file behind, of holes."""

        def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
            for index, found in super().run(jobs, on_start):
                if jobs[index].key.startswith("g001/c"):
                    (tmp_path / "run" / "left").touch()
                    os.truncate(tmp_path / "run" / "left", 2**30)
                yield index, found

    play(monkeypatch, Filling)
    found = loop.run(limited(disk_bytes=2**30), tmp_path / "run", Silent())
    assert found.state == "limit"
    assert "limits.disk_bytes" in found.reason
    trained = [body["stage"] for body in bodies(tmp_path / "run", "stage") if body["key"].startswith("g001/c")]
    assert len(set(trained)) == 1


def test_every_record_that_follows_a_worker_says_what_all_workers_spent(tmp_path: Path) -> None:
    loop.run(CONFIG, tmp_path / "run", Silent())
    found = read(tmp_path / "run" / LEDGER_NAME)
    elsewhere = {"unattended", "halt", "contender", "trial", "handover"}  # of other runs than this one
    assert {record.kind for record in found if "spent" in record.body} == METERED - elsewhere
    readings = [record.body["spent"]["cpu_seconds"] for record in found if "spent" in record.body]
    assert readings == sorted(readings)
    assert readings[0] > 0
    walls = [record.body["spent"]["wall_seconds"] for record in found if "spent" in record.body]
    assert 0 < walls[0] <= walls[-1]
    assert walls == sorted(walls)


def test_a_resumed_run_counts_on_from_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loop.run(CONFIG, tmp_path / "whole", Silent())
    play(monkeypatch, Stopping, Spent(0.5, 0.25))
    assert loop.run(CONFIG, tmp_path / "run", Silent()).state == "paused"
    before = spent_before(read(tmp_path / "run" / LEDGER_NAME))
    play(monkeypatch, Player, Spent(0.5, 0.25))
    assert loop.run(CONFIG, tmp_path / "run", Silent(), resume=True).lineage_sha256 == whole.lineage_sha256
    found = read(tmp_path / "run" / LEDGER_NAME)
    resumed = next(index for index, record in enumerate(found) if record.kind == "resume")
    readings = [record.body["spent"] for record in found[resumed:] if "spent" in record.body]
    assert readings[0]["cpu_seconds"] > before.cpu_seconds > 0
    assert readings[0]["gpu_seconds"] > before.gpu_seconds > 0
    assert found[resumed].body["versions"] == found[0].body["versions"]


def test_a_sitting_under_changed_sources_says_so_and_leads_to_the_same_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = loop.run(CONFIG, tmp_path / "whole", Silent())
    play(monkeypatch, Stopping)
    loop.run(CONFIG, tmp_path / "run", Silent())
    play(monkeypatch, Player)
    monkeypatch.setattr("selfimprove.loop.versions.sources_sha256", lambda: "f" * 64)
    assert loop.run(CONFIG, tmp_path / "run", Silent(), resume=True).lineage_sha256 == whole.lineage_sha256
    [first], [resumed] = (bodies(tmp_path / "run", kind) for kind in ("run", "resume"))
    assert {name for name, there in first["versions"].items() if resumed["versions"][name] != there} == {SOURCES}


def test_several_sittings_reach_a_limit_that_none_of_them_reaches_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, Stopping, Spent(1.0, 0.0))
    config, states = limited(cpu_seconds=15.0), []
    for sitting in range(6):
        states.append(loop.run(config, tmp_path / "run", Silent(), resume=sitting > 0))
        assert spent_before(read(tmp_path / "run" / LEDGER_NAME)).cpu_seconds < 15.0 + 2 * Stopping.jobs
        if states[-1].state != "paused":
            break
    assert len(states) > 2
    assert "limits.cpu_seconds" in states[-1].reason


def test_time_of_the_workers_is_no_part_of_the_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for pace in (0.1, 0.9):
        play(monkeypatch, Player, Spent(pace, pace))
        found.append(loop.run(CONFIG, tmp_path / str(pace), Silent()).lineage_sha256)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("first", "last", "seconds"),
    [("2026-01-01T20:00:00Z", "2026-01-02T08:00:00Z", 180.0), ("2026-01-01T20:50:00Z", "2026-01-01T19:55:00Z", 3300.0)],
    ids=["a machine that slept", "a clock set back"],
)
def test_wall_time_of_earlier_sittings_is_what_they_measured(first: str, last: str, seconds: float) -> None:
    entries = [
        replace(outcome(), kind="run", time=first),
        replace(outcome(spent={"cpu_seconds": 1.0, "wall_seconds": seconds}), time=last),
        replace(outcome(), kind="resume", time=last),
    ]
    assert seconds_before(entries) == seconds
    assert seconds <= Clock(entries, time.monotonic()).wall_seconds() < seconds + 5


def test_a_ledger_without_readings_of_wall_time_is_counted_by_its_records() -> None:
    begun = replace(outcome(), kind="run", time="2026-01-01T20:00:00Z")
    ended = replace(outcome(spent={"cpu_seconds": 1.0, "gpu_seconds": 0.0}), time="2026-01-01T20:01:00Z")
    assert seconds_before([begun, ended]) == 60.0


@pytest.mark.parametrize("body", [{}, {"spent": 3}, {"spent": {}}, {"spent": {"cpu_seconds": "7"}}])
def test_a_ledger_without_readings_starts_at_nothing(body: dict[str, Any]) -> None:
    assert spent_before([outcome(**body)]) == Spent()


def test_a_limit_on_time_is_looked_at_while_workers_run() -> None:
    entries = [outcome(spent={"cpu_seconds": 5.0, "gpu_seconds": 1.0})]
    clock, running = Clock(entries, float("inf")), [Spent()]
    clock.meter(lambda: running[0])
    limits = limited(cpu_seconds=6.0).limits
    assert not clock.is_over(limits)
    running[0] = Spent(1.1, 0.0)
    assert clock.is_over(limits)


def test_the_report_shows_what_was_used_of_the_time_of_workers(tmp_path: Path) -> None:
    loop.run(CONFIG, tmp_path / "run", Silent())
    page = write_report(tmp_path / "run").read_text()
    for name in ("cpu seconds", "gpu seconds", "gpu memory bytes"):
        assert f'<th scope="row">{name}</th>' in page


@pytest.mark.parametrize("rate", [1e7, 1e9])
def test_a_training_worker_has_processor_time_for_its_slice_and_little_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    granted: dict[str, float] = {}

    class Noting(Player):
        def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
            granted.update({job.key: job.limits.cpu_seconds for job in jobs if job.payload["op"] == "train"})
            return super().run(jobs, on_start)

    play(monkeypatch, Noting)
    containment = replace(CONFIG.containment, flops_per_cpu_second=rate)
    loop.run(replace(CONFIG, containment=containment), tmp_path / "run", Silent())
    flops = {body["key"]: body["flops"] for body in bodies(tmp_path / "run", "permit")}
    assert granted
    for key, seconds in granted.items():
        assert seconds == min(containment.job_cpu_seconds, 10 + flops[key] / rate)
