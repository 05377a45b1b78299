"""How workers end, and that each end is a value that costs only its own job."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.containment import supervisor as supervising
from selfimprove.containment.supervisor import (
    Completed,
    Crashed,
    Exceeded,
    Invalid,
    Job,
    JobLimits,
    Supervisor,
)
from selfimprove.errors import Halted, Interrupted
from tests.containment.helpers import outcome_of


def grandchildren() -> list[psutil.Process]:
    """Return all workers; zygotes are children."""
    return [worker for zygote in psutil.Process().children() for worker in zygote.children()]


def frame(kind: bytes, body: bytes, length: int | None = None) -> str:
    return (struct.pack(">cI", kind, len(body) if length is None else length) + body).hex()


# -- how a job ends ----------------------------------------------------------------------------------------------------


def test_a_result_comes_back_with_its_usage(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("echo", say=[1, "two", {"three": 3.5}]))
    assert isinstance(outcome, Completed)
    assert outcome.result["said"] == [1, "two", {"three": 3.5}]
    assert outcome.usage.max_rss_bytes > 2**20
    assert 0 < outcome.usage.wall_seconds < 5


def test_inputs_are_read_and_outputs_come_back_as_bytes(supervisor: Supervisor, make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"first")
    (tmp_path / "b").write_bytes(b"second")
    job = make_job("copy", inputs={"b": tmp_path / "b", "a": tmp_path / "a"}, outputs=["a", "b"])
    outcome = outcome_of(supervisor, job)
    assert isinstance(outcome, Completed)
    assert outcome.outputs == {"a": b"FIRST", "b": b"SECOND"}


def test_an_exceptions_longest_message_arrives_whatever_it_is_written_in(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("fail", message="\U0001f9ea" * 5000))
    assert isinstance(outcome, Crashed)
    assert outcome.reason.startswith("ValueError: \U0001f9ea")


def test_an_exception_is_a_crash_with_its_type_and_message(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("fail", message="bad \x1b[31mred\x07\nnews\u202e"))
    assert isinstance(outcome, Crashed)
    assert outcome.reason == "ValueError: bad red news"
    assert not outcome.zygote_died


def test_an_exit_code_is_a_crash_with_the_last_words(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("leave", code=7, last_words="so long"))
    assert isinstance(outcome, Crashed)
    assert outcome.reason == "exit code 7: so long"


def test_leaving_without_a_result_is_invalid(supervisor: Supervisor, make_job: Any) -> None:
    assert isinstance(outcome_of(supervisor, make_job("leave", code=0)), Invalid)


def test_a_result_over_its_cap_is_a_crash(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("return_much", bytes=9 * 2**20))
    assert isinstance(outcome, Crashed)
    assert "allowed: 8388608" in outcome.reason


@pytest.mark.parametrize(
    "message",
    [
        "00" * 5,
        frame(b"R", b"not json"),
        frame(b"R", b"[1]"),
        frame(b"R", b"{}", length=2**31),
        frame(b"R", b'{"a": 1, "a": 2}'),
        frame(b"R", b'{"a": NaN}'),
        frame(b"R", b'{"a": 1e999}'),
        frame(b"R", b'{"a": ' + b"9" * 5000 + b"}"),
        frame(b"R", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        frame(b"R", b'{"\\u001b[2J": 1}'),
        frame(b"R", b"\xff\xfe"),
        frame(b"R", b'{"a": "' + b"x" * 70_000 + b'"}'),
        frame(b"R", b"{}") + frame(b"R", b"{}"),
        frame(b"R", b"{}")[:-2],
    ],
)  # fmt: skip
def test_a_message_that_breaks_the_protocol_is_invalid(message: str, supervisor: Supervisor, make_job: Any) -> None:
    assert isinstance(outcome_of(supervisor, make_job("raw", hex=message)), Invalid)


def test_text_of_a_result_loses_its_terminal_escapes(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("echo", say="a\x1b]0;title\x07b\x1b[2Jc\r\u202ed"))
    assert isinstance(outcome, Completed)
    assert outcome.result["said"] == "abcd"


def test_an_input_that_is_a_link_is_refused(supervisor: Supervisor, make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        list(supervisor.run([make_job("echo", inputs={"in": tmp_path / "link"})]))


def test_the_time_of_every_worker_is_added_up_however_it_ended(make_supervisor: Any, make_job: Any) -> None:
    ends = {
        "completed": make_job("echo"), "crashed": make_job("fail", message="x"),
        "exceeded": make_job("burn", limits={"cpu_seconds": 0.2}),
    }  # fmt: skip
    with make_supervisor(workers=1) as supervisor:
        supervisor.prove()
        spent = supervisor.spent
        assert spent.cpu_seconds > 0  # the canary's
        for job in ends.values():
            outcome = outcome_of(supervisor, job)
            now = supervisor.spent
            assert now.cpu_seconds - spent.cpu_seconds == pytest.approx(outcome.usage.cpu_seconds)
            assert now.gpu_seconds == 0
            spent = now
        live: list[float] = []
        list(
            supervisor.run(
                [make_job("burn", limits={"cpu_seconds": 0.3})],
                on_event=lambda *_: live.append(supervisor.spent.cpu_seconds),
            )
        )
        assert live == sorted(live)
        assert spent.cpu_seconds < live[-1] <= supervisor.spent.cpu_seconds  # it counts while it runs


def test_a_worker_killed_from_outside_is_told_from_one_that_the_supervisor_killed(
    make_supervisor: Any, make_job: Any
) -> None:
    def kill(index: int, event: dict[str, Any]) -> None:
        for worker in grandchildren():
            worker.kill()

    with make_supervisor(workers=1) as supervisor:
        supervisor.prove()
        [(_, outcome)] = supervisor.run([make_job("burn")], on_event=kill)
        [(_, exceeded)] = supervisor.run([make_job("burn", limits={"wall_seconds": 0.3})])
    assert isinstance(outcome, Crashed)
    assert outcome.killed
    assert isinstance(exceeded, Exceeded)


# -- several jobs ------------------------------------------------------------------------------------------------------


def test_a_bad_job_costs_only_itself(supervisor: Supervisor, make_job: Any) -> None:
    jobs = [make_job("echo"), make_job("leave", code=1), make_job("fail", message=""), make_job("echo")]
    outcomes = dict(supervisor.run(jobs))
    assert [type(outcomes[i]) for i in range(4)] == [Completed, Crashed, Crashed, Completed]


def test_outcomes_arrive_as_they_end_with_the_index_of_their_job(supervisor: Supervisor, make_job: Any) -> None:
    jobs = [make_job("sleep", seconds=0.5), make_job("echo"), make_job("echo")]
    assert [index for index, _ in supervisor.run(jobs)] == [1, 2, 0]


def test_no_more_workers_run_at_once_than_allowed(make_supervisor: Any, make_job: Any) -> None:
    with make_supervisor(workers=2) as supervisor:
        supervisor.prove()
        started = time.monotonic()
        assert len(list(supervisor.run([make_job("sleep", seconds=0.2) for _ in range(4)]))) == 4
        assert time.monotonic() - started > 0.39


def test_jobs_that_end_together_lose_nothing_while_the_caller_holds_their_outcomes(
    make_supervisor: Any, make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their reports wait in one zygote's socket meanwhile, and the last of them for longer than one may be late."""
    monkeypatch.setattr(supervising, "REPORT_SECONDS", 0.5)
    outcomes = []
    with make_supervisor(workers=6) as supervisor:
        supervisor.prove()
        for _, outcome in supervisor.run([make_job("sleep", seconds=0.5) for _ in range(6)]):
            outcomes.append(outcome)
            time.sleep(0.3)
    assert [type(outcome) for outcome in outcomes] == [Completed] * 6


def test_jobs_start_in_order(make_supervisor: Any, make_job: Any) -> None:
    with make_supervisor(workers=1) as supervisor:
        times = [o.result["at"] for _, o in supervisor.run([make_job("echo") for _ in range(5)])]
    assert times == sorted(times)


def test_each_job_has_a_process_of_its_own(supervisor: Supervisor, make_job: Any) -> None:
    pids = {o.result["pid"] for _, o in supervisor.run([make_job("echo") for _ in range(5)])}
    assert len(pids) == 5


def test_progress_is_reported_while_a_job_runs(supervisor: Supervisor, make_job: Any) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []
    jobs = [make_job("tell", events=[{"step": 1}, {"step": 2}])]
    list(supervisor.run(jobs, on_event=lambda index, event: seen.append((index, event))))
    assert seen == [(0, {"step": 1}), (0, {"step": 2})]


@pytest.mark.parametrize(("field", "value"), [("zygote", "tset"), ("entry", "os")])
def test_an_unknown_zygote_or_entry_is_refused_before_anything_starts(
    field: str, value: str, supervisor: Supervisor, make_job: Any
) -> None:
    job = make_job("echo")
    with pytest.raises(ValueError, match=value):
        supervisor.run([Job(**(vars(job) | {field: value}))])


def test_limits_must_be_positive_and_finite() -> None:
    with pytest.raises(ValueError, match="wall_seconds"):
        JobLimits(float("inf"), 1, 1, 1, 1)


# -- stopping ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_process_left")
def test_the_halt_file_kills_everything_within_a_second(make_supervisor: Any, make_job: Any, tmp_path: Path) -> None:
    halt = tmp_path / "halt"
    with make_supervisor(halt_file=halt) as supervisor:
        supervisor.prove()
        pressed = []

        def press(index: int, event: dict[str, Any]) -> None:
            if not pressed:
                halt.touch()
                pressed.append(time.monotonic())

        with pytest.raises(Halted):
            list(supervisor.run([make_job("burn"), make_job("burn")], on_event=press))
        assert time.monotonic() - pressed[0] < 1
        assert not grandchildren()


def test_a_halted_supervisor_starts_nothing(make_supervisor: Any, make_job: Any, tmp_path: Path) -> None:
    (tmp_path / "halt").touch()
    with make_supervisor(halt_file=tmp_path / "halt") as supervisor, pytest.raises(Halted):
        list(supervisor.run([make_job("echo")]))


def test_a_request_to_stop_lets_running_jobs_finish_and_starts_no_more(make_supervisor: Any, make_job: Any) -> None:
    stop: list[bool] = []
    finished = []

    def collect(supervisor: Supervisor, jobs: list[Job]) -> None:
        for index, outcome in supervisor.run(jobs, on_event=lambda *_: stop.append(True)):
            finished.append((index, type(outcome)))

    with make_supervisor(workers=1, should_stop=lambda: bool(stop)) as supervisor:
        jobs = [make_job("sleep", seconds=0.3, beat=True), make_job("echo")]
        with pytest.raises(Interrupted):
            collect(supervisor, jobs)
    assert finished == [(0, Completed)]


@pytest.mark.usefixtures("no_process_left")
def test_closing_the_iterator_early_leaves_no_worker(make_supervisor: Any, make_job: Any) -> None:
    with make_supervisor() as supervisor:
        outcomes = supervisor.run([make_job("echo"), make_job("sleep", seconds=60)])
        next(outcomes)
        outcomes.close()
        assert not grandchildren()
        assert isinstance(outcome_of(supervisor, make_job("echo")), Completed)


@pytest.mark.usefixtures("no_process_left")
def test_an_exception_of_the_caller_leaves_no_worker(make_supervisor: Any, make_job: Any) -> None:
    def interrupt(index: int, event: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with make_supervisor() as supervisor, pytest.raises(KeyboardInterrupt):
        list(supervisor.run([make_job("burn")], on_event=interrupt))
