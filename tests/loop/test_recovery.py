"""Second attempts, the clock of several sittings, and permits that a dead sitting left open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import Entry, Ledger
from selfimprove.containment.budget import Budget
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Job, JobLimits, NotBegun, Outcome, Usage
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.policy import Used
from selfimprove.errors import Interrupted, LimitReached
from selfimprove.loop import run as loop
from selfimprove.loop.attempts import attempt
from selfimprove.loop.clock import Clock
from selfimprove.loop.granting import forfeit, grant, release
from selfimprove.loop.journal import Journal
from selfimprove.loop.recovery import elapsed_seconds, settle_open
from tests.loop.played import CONFIG, Player, Silent, bench_of, nobody_learns
from tests.loop.records import bodies
from tests.loop.test_books import GENOME, Price

BRIEF = replace(CONFIG, generations=1)
LIMITS = JobLimits(1, 1, 1, 1, 1)
DONE = Completed({}, {}, Usage())
KILLED = Crashed("killed by SIGKILL", Usage(), killed=True)
ORPHANED = Crashed("its zygote died", Usage(), zygote_died=True)
STARVED = Exceeded("silence_seconds", 31.0, 30.0, Usage(), starved=True)
RAISED = Crashed("ValueError", Usage())
OVERRAN = Exceeded("wall_seconds", 121.0, 120.0, Usage())


class Scripted:
    """Stands where the supervisor stands; gives each job its next outcome and notes what ran together."""

    def __init__(self, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        self.outcomes = {key: list(found) for key, found in outcomes.items()}
        self.batches: list[list[str]] = []

    def run(self, jobs: Sequence[Job], on_start: Callable[[int], None] | None = None) -> Iterator[tuple[int, Outcome]]:
        self.batches.append([job.key for job in jobs])
        for index, job in enumerate(jobs):
            if on_start is not None:
                on_start(index)
            yield index, self.outcomes[job.key].pop(0)


def full() -> None:
    raise LimitReached("lose FLOPs", "2 FLOPs lost", "at most 1", "raise limits.lost_flops")


def attempted(
    outcomes: Mapping[str, Sequence[Outcome]], may_lose: bool = True
) -> tuple[dict[str, Outcome], list[list[str]], list[str]]:
    """(outcome by key, keys that ran together, keys in the order in which they started)."""
    supervisor, started = Scripted(outcomes), []
    keys = list(outcomes)
    jobs = [Job(key, "torch", "entry", {}, {}, (), LIMITS) for key in keys]
    found = dict(
        attempt(
            supervisor,  # type: ignore[arg-type]
            jobs,
            on_start=lambda index: started.append(keys[index]),
            on_killed=lambda _: None if may_lose else full(),
        )
    )
    return {keys[index]: outcome for index, outcome in found.items()}, supervisor.batches, started


@pytest.mark.parametrize("fate", [KILLED, ORPHANED, STARVED])
def test_killed_jobs_are_run_again_one_by_one_after_the_others(fate: Outcome) -> None:
    found, batches, started = attempted({"a": [fate, DONE], "b": [DONE], "c": [fate, DONE]})
    assert found == {"a": DONE, "b": DONE, "c": DONE}
    assert batches == [["a", "b", "c"], ["a"], ["c"]]
    assert started == ["a", "b", "c", "a", "c"]  # each attempt asks for a permit of its own


def test_the_second_death_is_the_outcome() -> None:
    assert attempted({"a": [KILLED, KILLED]})[0] == {"a": KILLED}


@pytest.mark.parametrize("fate", [RAISED, OVERRAN])
def test_a_job_that_failed_by_itself_has_one_attempt(fate: Outcome) -> None:
    assert attempted({"a": [fate]})[:2] == ({"a": fate}, [["a"]])


def test_nothing_is_run_again_that_the_account_of_lost_work_does_not_cover() -> None:
    assert attempted({"a": [KILLED]}, may_lose=False)[:2] == ({"a": KILLED}, [["a"]])


@pytest.mark.parametrize(
    ("flops", "lost_flops", "most", "binding"),
    [
        (1000, 50, 50, "raise limits.lost_flops and start"),
        (600, 500, 60, "raise limits.flops and start"),
        (500, 50, 50, "raise limits.lost_flops and limits.flops and start"),
    ],
)
def test_where_nothing_more_may_be_lost_it_says_how_much_would_be_and_which_limit_binds(
    flops: int, lost_flops: int, most: int, binding: str, tmp_path: Path
) -> None:
    limits = replace(CONFIG.limits, flops=flops, lost_flops=lost_flops)
    bench = bench_of(replace(CONFIG, limits=limits), tmp_path)
    bench.known_genomes.add(GENOME)
    scripted = Scripted({"a": [replace(KILLED, unattended=True)] * 2})
    attempts = attempt(
        scripted,  # type: ignore[arg-type]
        [Job("a", "torch", "entry", {}, {}, (), LIMITS)],
        on_start=lambda _: grant(bench, "a", "search", GENOME, "1/1", Price(40)),
        on_killed=lambda _: forfeit(bench, "a"),
    )
    with pytest.raises(LimitReached) as caught:
        list(attempts)
    assert [body["account"] for body in bench.journal.all("charge")] == ["lost"]
    assert str(caught.value).startswith("run a again after the supervisor was silent: got 80 FLOPs lost; allowed: ")
    assert f"at most {most}:" in caught.value.limit
    assert binding in caught.value.remedy


def test_which_of_several_killed_jobs_is_run_again_does_not_depend_on_which_ended_first() -> None:
    class Reversed(Scripted):
        def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
            return iter(list(super().run(jobs, on_start))[::-1])

    room: list[Callable[[], None]] = [lambda: None, full]
    jobs = [Job(key, "torch", "entry", {}, {}, (), LIMITS) for key in "ab"]
    scripted = Reversed({"a": [KILLED, DONE], "b": [KILLED, DONE]})
    found = dict(attempt(scripted, jobs, on_killed=lambda _: room.pop(0)()))  # type: ignore[arg-type]
    assert found == {0: DONE, 1: KILLED}


@pytest.mark.parametrize("first", [[], [KILLED]], ids=["at once", "in the second attempt"])
def test_what_never_began_gives_its_permit_back_and_is_no_attempt(first: list[Outcome], tmp_path: Path) -> None:
    class Returning(Scripted):
        def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Any]]:
            if not self.outcomes["a"][1:]:
                on_start(0)
                yield 0, NotBegun()
            yield from super().run(jobs, on_start)

    bench = bench_of(CONFIG, tmp_path)
    bench.known_genomes.add(GENOME)
    found = attempt(
        Returning({"a": [*first, DONE]}),  # type: ignore[arg-type]
        [Job("a", "torch", "entry", {}, {}, (), LIMITS)],
        on_start=lambda _: grant(bench, "a", "search", GENOME, "1/1", Price(40)),
        on_killed=lambda _: forfeit(bench, "a"),
        on_returned=lambda _: release(bench, "a"),
    )
    assert list(found) == [(0, DONE)]
    assert [body["flops"] for body in bench.journal.all("charge")] == [40] * len(first) + [0]
    assert bench.budget.reserved == 40


class Killed(BaseException):
    """What no code expects, as a ``kill -9``."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a played run, and for what its machine keeps of it."""
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    nobody_learns(monkeypatch)
    return tmp_path


def killed_before(kind: str, run: Path, *, behind: bool = False) -> None:
    """A run of one generation, whose sitting dies before its first record of this kind after the seed, or behind it."""
    append = Ledger.append

    def dying(ledger: Ledger, due: str, body: dict[str, Any]) -> Entry:
        is_due = due == kind and body.get("generation") != 0
        if behind and is_due:
            append(ledger, due, body)
        if is_due:
            raise Killed
        return append(ledger, due, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "append", dying)
        with pytest.raises(Killed):
            loop.run(BRIEF, run, Silent())


class Over(Player):
    """Starts nothing: a limit on time is used up."""

    def run(self, *_: Any, **__: Any) -> Any:
        raise Interrupted("run jobs")


@pytest.mark.parametrize(("kind", "files"), [("inspection", 1), ("controller", 2)])
def test_what_a_killed_sitting_stored_has_a_name_even_if_a_limit_ends_the_next_one_at_once(
    kind: str, files: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_before(kind, place / "run")
    monkeypatch.setattr(loop, "Supervisor", Over)
    monkeypatch.setattr(Clock, "used", lambda clock: Used(wall_seconds=10**6))
    assert loop.run(BRIEF, place / "run", Silent(), resume=True).state == "limit"
    assert len(bodies(place / "run", "recovery")) == files
    assert audit(place / "run", FileAnchor(place / "state")).ok


def test_of_a_file_that_is_stored_again_its_own_record_counts(place: Path) -> None:
    killed_before("controller", place / "run")
    (place / "run" / "controller" / "g001.json").write_text("another one")
    assert loop.run(BRIEF, place / "run", Silent(), resume=True).state == "finished"
    assert len(bodies(place / "run", "recovery")) == 2
    assert audit(place / "run", FileAnchor(place / "state")).ok


def test_what_somebody_else_put_into_the_folder_gets_no_name(place: Path) -> None:
    killed_before("controller", place / "run")
    strange = [place / "run" / name for name in ("checkpoints/g007-c00.safetensors", "g001.safetensors")]
    for path in strange:
        path.write_bytes(b"strange")
    loop.run(BRIEF, place / "run", Silent(), resume=True)
    found = audit(place / "run", FileAnchor(place / "state")).findings
    assert {finding.file for finding in found} == {path.relative_to(place / "run").as_posix() for path in strange}


@pytest.mark.parametrize("exam", ["sealed", "held_out"])
def test_weights_of_an_exam_do_not_stay_behind_where_the_sitting_died_behind_its_record(exam: str, place: Path) -> None:
    killed_before(exam, place / "run", behind=True)
    scratch = place / "run" / "scratch"
    assert list(scratch.iterdir())
    assert loop.run(BRIEF, place / "run", Silent(), resume=True).state == "finished"
    assert not list(scratch.iterdir())


def entry(kind: str, second: float) -> Entry:
    return Entry(0, f"2026-01-01T00:00:{second:09.6f}Z", kind, {}, "", "", "")


@pytest.mark.parametrize(
    ("history", "seconds"),
    [
        ([], 0),
        ([("run", 10)], 0),
        ([("run", 10), ("score", 12.5)], 2.5),
        ([("run", 10), ("score", 12), ("resume", 30), ("score", 31)], 3),  # nothing ran in between
        ([("run", 10), ("score", 12), ("recovery", 30), ("resume", 30.5), ("score", 31)], 2.5),
        ([("run", 10), ("score", 5), ("resume", 30), ("score", 33)], 3),  # the clock was set back
    ],
)
def test_wall_time_adds_up_over_the_sittings(history: list[tuple[str, float]], seconds: float) -> None:
    assert elapsed_seconds([entry(*place) for place in history]) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("key", "effect", "account"),
    [
        ("g001/c00/s0@1/3", None, "lost"),
        ("g001/c00/s0@1/3", ("stage", {"key": "g001/c00/s0", "stage": "1/9"}), "lost"),
        ("g001/c00/s0@1/3", ("stage", {"key": "g001/c00/s0", "stage": "1/3"}), "search"),
        ("g001/c00/s0@1/3", ("outcome", {"key": "g001/c00/s0"}), "search"),
        ("g001/ask", ("controller", {"generation": 1}), "lost"),
        ("g001/ask", ("ask", {"generation": 1}), "search"),
        ("g001/tell", ("controller", {"generation": 1}), "search"),
    ],
)
def test_an_open_permit_is_charged_if_its_effect_is_on_record_and_lost_if_not(
    key: str, effect: tuple[str, dict[str, Any]] | None, account: str, tmp_path: Path
) -> None:
    with Ledger.create(tmp_path / "ledger.jsonl", SigningKey.generate(), None, {"run_id": "r"}) as ledger:
        journal = Journal(ledger, Silent())
        journal.record("permit", {"key": key, "account": "search", "flops": 7})
        if effect is not None:
            journal.record(*effect)
        settle_open(journal, Budget(100, 10))
        settle_open(journal, Budget(100, 10))  # a second time there is nothing left to settle
        assert journal.all("charge") == [{"key": key, "account": account, "flops": 7, "total": 7}]
