"""The node's program, as a real process with real contained workers of a torch-free entry."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.containment.jobs import Completed, Crashed, Job, Outcome
from selfimprove.containment.permit import Permit
from selfimprove.executors.box import Box
from selfimprove.executors.messages import (
    BEAT,
    ENDED,
    HALT,
    MESSAGE_BYTES,
    ORDER,
    OUTCOME,
    READY,
    STARTED,
    STOP,
    Order,
    Task,
    decode,
    prefix_of,
    read_about,
    read_outcome,
    write_pack,
)  # fmt: skip
from selfimprove.executors.versions import SOURCES
from tests.executors.played import KEY, ORDER_OF_TESTS, job, permit

PATIENCE = 40.0


class Head:
    """The other end of one node's folder."""

    def __init__(self, folder: Path, order: Order = ORDER_OF_TESTS, *, lead: Callable[[], None] | None = None) -> None:
        self.box = Box(folder)
        self.box.send({ORDER: order.encode(), BEAT: b"0"})
        self.files: dict[str, bytes] = {}
        self._known: set[str] = set()
        self._packs = 0
        command = [sys.executable, "-m", "selfimprove.executors.node", str(folder)]
        self.process = subprocess.Popen(command, preexec_fn=lead, stderr=subprocess.PIPE)

    def hear(self) -> Mapping[str, bytes]:
        self.files |= self.box.collect(self._known, MESSAGE_BYTES)
        return self.files

    def until(self, found: Callable[[], bool], *, beat: bool = True) -> None:
        """Wait for something that the node says, and meanwhile be there for it."""
        deadline = time.monotonic() + PATIENCE
        while not found():
            assert time.monotonic() < deadline, self.files
            if beat:
                self.box.send({BEAT: str(time.monotonic()).encode()})
            time.sleep(0.05)
            self.hear()

    def hand(self, *jobs: Job, permits: Any = None) -> list[str]:
        """Give it a pack; returns the prefixes of its tasks."""
        signed: list[Permit] = permits or [permit(of) for of in jobs]
        self._packs += 1
        self.box.send(write_pack(self._packs, [Task(*pair) for pair in zip(jobs, signed, strict=True)]))
        return [prefix_of(self._packs, place) for place in range(len(jobs))]

    def outcomes(self, prefixes: list[str], jobs: list[Job]) -> list[Outcome]:
        def found() -> list[Outcome | None]:
            return [read_outcome(prefix, of, self.files) for prefix, of in zip(prefixes, jobs, strict=True)]

        self.until(lambda: None not in found() or ENDED in self.files)
        return [outcome for outcome in found() if outcome is not None]

    def ended(self, *, beat: bool = True) -> dict[str, Any]:
        """What it says of its end, once it is dead."""
        self.until(lambda: ENDED in self.files, beat=beat)
        self.process.wait(PATIENCE)
        return decode(self.files[ENDED])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A node that is ready."""
    head = Head(tmp_path_factory.mktemp("node"))
    head.until(lambda: READY in head.files)
    yield head
    head.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Head]]:
    heads: list[Head] = []

    def of(**changes: Any) -> Head:
        lead = changes.pop("lead", None)
        heads.append(Head(tmp_path / str(len(heads)), replace(ORDER_OF_TESTS, **changes), lead=lead))
        return heads[-1]

    yield of
    for head in heads:
        head.close()


def test_it_runs_a_pack_in_contained_workers_and_hands_back_what_they_made(shared: Head, tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(b"abc")
    inputs = {"weights": tmp_path / "before"}
    jobs = [job("g001/c00/s0", "copy", inputs=inputs), job("g001/c01/s0", "echo", say=1)]
    first, second = shared.outcomes(shared.hand(*jobs), jobs)
    assert isinstance(first, Completed)
    assert first.usage.wall_seconds > 0
    assert first.outputs == {"weights": b"ABC"}
    assert isinstance(second, Completed)
    assert second.result["said"] == 1
    about = read_about(shared.files[READY])
    assert about["backend"] == "lockdown"
    assert all(about["sandbox"].values())
    assert about["degraded"] == []


FORGERIES: dict[str, Callable[[Job], Permit]] = {
    "signed by nobody": lambda of: replace(permit(of), flops=2),
    "of another job": lambda of: permit(of, key="g001/c07/s0@1/1"),
    "of fewer steps": lambda of: permit(of, steps=3),
    "signed by nobody and run out": lambda of: replace(permit(of, lifetime_seconds=-10.0), flops=2),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_it_trains_nothing_that_a_permit_of_the_head_does_not_cover(shared: Head, forgery: str) -> None:
    jobs = [job("g001/c00/s0"), job("g001/c01/s0")]
    prefixes = shared.hand(*jobs, permits=[FORGERIES[forgery](jobs[0]), permit(jobs[1])])
    refused, done = shared.outcomes(prefixes, jobs)
    assert isinstance(refused, Crashed)
    assert "refuses" in refused.reason
    assert f"{prefixes[0]}{STARTED}" not in shared.files
    assert isinstance(done, Completed)
    assert f"{prefixes[1]}{STARTED}" in shared.files


def test_a_permit_that_has_run_out_on_arrival_ends_the_node_and_nothing_of_its_pack_begins(
    start: Callable[..., Head],
) -> None:
    """By its clock, which may be wrong; it must not go on to refuse what others could train."""
    head = start()
    head.until(lambda: READY in head.files)
    jobs = [job("g001/c00/s0"), job("g001/c01/s0")]
    head.hand(*jobs, permits=[permit(jobs[0]), permit(jobs[1], lifetime_seconds=-10.0)])
    end = head.ended()
    assert end["code"] == "failed"
    assert "clock" in end["reason"]
    assert not any(name.endswith((STARTED, OUTCOME)) for name in head.files)


def test_a_permit_is_good_for_one_training(shared: Head) -> None:
    again, other = job("g001/c00/s0"), job("g001/c01/s0")
    used = permit(again)
    first, second = shared.outcomes(shared.hand(again, again, permits=[used, used]), [again, again])
    assert isinstance(first, Completed)
    later, done = shared.outcomes(shared.hand(again, other, permits=[used, permit(other)]), [again, other])
    assert isinstance(done, Completed)
    for refused in (second, later):
        assert isinstance(refused, Crashed)
        assert "a permit that was not used yet" in refused.reason


def test_a_worker_that_fails_costs_itself_alone(shared: Head) -> None:
    jobs = [job("g001/c00/s0", "fail"), job("g001/c01/s0")]
    first, second = shared.outcomes(shared.hand(*jobs), jobs)
    assert isinstance(first, Crashed)
    assert not first.killed
    assert isinstance(second, Completed)


def busy(start: Callable[..., Head], **changes: Any) -> tuple[Head, psutil.Process]:
    """A node with a worker in it that sleeps."""
    head = start(**changes)
    head.until(lambda: READY in head.files)
    [prefix] = head.hand(job("g001/c00/s0", "sleep", seconds=60))
    head.until(lambda: f"{prefix}{STARTED}" in head.files)
    return head, psutil.Process(head.process.pid)


def gone(children: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(children, timeout=5)
    return not alive


ENDS: dict[str, tuple[str, Callable[[Head], object]]] = {
    "the head falls silent": ("orphaned", lambda head: None),
    "the head halts it": ("halted", lambda head: head.box.send({HALT: b"halt"})),
    "the run is halted": ("halted", lambda head: Path(str(head.box.inward) + "-HALT").touch()),
    "its machine is taken away": ("evicted", lambda head: head.process.send_signal(signal.SIGTERM)),
}


@pytest.mark.parametrize("how", ENDS)
def test_it_ends_with_all_that_it_runs_when(start: Callable[..., Head], tmp_path: Path, how: str) -> None:
    code, cause = ENDS[how]
    head, node = busy(start, halt_file=str(tmp_path / "0" / "in-HALT"), silence_seconds=2.0)
    children = node.children(recursive=True)
    assert children
    cause(head)
    started = time.monotonic()
    assert head.ended(beat=code != "orphaned")["code"] == code
    assert gone(children)
    assert time.monotonic() - started < 8


def test_asked_to_stop_it_finishes_what_runs_starts_nothing_further_and_ends(start: Callable[..., Head]) -> None:
    head = start(workers=1)
    head.until(lambda: READY in head.files)
    jobs = [job(f"g001/c{index:02d}/s0", "sleep", seconds=3) for index in range(4)]
    prefixes = head.hand(*jobs)
    head.until(lambda: f"{prefixes[0]}{STARTED}" in head.files)
    head.box.send({STOP: b"stop"})
    assert head.ended()["code"] == "stopped"
    assert head.process.returncode == 0
    assert isinstance(read_outcome(prefixes[0], jobs[0], head.files), Completed)
    assert [name for name in head.files if name.endswith(STARTED)] == [f"{prefixes[0]}{STARTED}"]


def test_asked_to_stop_before_it_looked_at_a_pack_it_starts_nothing_of_it(start: Callable[..., Head]) -> None:
    head = start()
    head.box.send({STOP: b"stop"})
    head.hand(job("g001/c00/s0"))
    assert head.ended()["code"] == "stopped"
    assert not any(name.endswith(STARTED) for name in head.files)


def test_it_refuses_to_serve_where_workers_cannot_be_contained(start: Callable[..., Head]) -> None:
    end = start(allow_degraded=("network",)).ended()
    assert end["code"] == "refused"
    assert "network" in end["reason"]


@pytest.mark.parametrize("name", ["torch", SOURCES])
def test_it_refuses_to_serve_with_another_version_of_what_moves_a_result(start: Callable[..., Head], name: str) -> None:
    end = start(versions={**ORDER_OF_TESTS.versions, name: "1.0"}).ended()
    assert end["code"] == "differs"
    assert name in end["reason"]


def test_without_work_it_ends_by_itself(start: Callable[..., Head]) -> None:
    head = start(idle_seconds=0.5)
    assert head.ended()["code"] == "closed"
    assert head.process.returncode == 0


def test_a_disk_that_is_full_ends_it_and_nothing_else(start: Callable[..., Head]) -> None:
    """No file may grow: what it would write fails, as on a full disk."""

    def lead() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    head = start(lead=lead)
    head.process.wait(PATIENCE)
    assert head.process.returncode == 1
    assert ENDED not in head.hear()


def test_it_never_sees_the_signing_key(shared: Head) -> None:
    order = (shared.box.inward / ORDER).read_text()
    assert KEY.public_key_hex in order
    assert KEY._key.private_bytes_raw().hex() not in order
