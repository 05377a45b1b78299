"""The dead-man's switch: a supervisor that does not look after its workers has none for long."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import psutil
import pytest

from selfimprove.containment.jobs import Completed, Crashed, Job, Outcome, Usage
from selfimprove.containment.launcher import ZygoteHandle
from selfimprove.containment.proof import Proofs
from selfimprove.containment.pulse import Pulse
from selfimprove.containment.sandbox.backend import LockdownBackend
from selfimprove.containment.sandbox.heartbeat import Heart
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import LimitReached
from selfimprove.loop.attempts import attempt
from tests.containment.helpers import ENTRIES, KINDS

HEARTBEAT = 1.0
SLACK = 5.0  # seconds that a busy machine may take to do what is due
UNATTENDED = Crashed("the supervisor was silent", Usage(), killed=True, unattended=True)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


# -- whole processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_supervisor_has_no_worker_after_one_heartbeat_and_goes_on_when_it_is_continued(kind: str) -> None:
    command = [sys.executable, str(ENTRIES / "stoppable_supervisor.py"), str(HEARTBEAT), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = psutil.Process(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        while is_alive(worker) and time.monotonic() < stopped + HEARTBEAT + SLACK:
            time.sleep(0.02)
        assert not is_alive(worker)
        assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        time.sleep(max(0.0, stopped + HEARTBEAT - time.monotonic()))
        process.send_signal(signal.SIGCONT)
        told, burned, echoed = map(json.loads, process.stdout)
    assert told[0] == "burn"
    assert "the supervisor was silent for" in told[1]
    assert (burned, echoed) == (["Crashed", True], ["Completed", False])
    assert process.returncode == 0


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("kind", KINDS)
def test_a_supervisor_that_hangs_loses_its_workers_and_blames_none(
    kind: str, make_supervisor: Any, make_job: Any
) -> None:
    hung: list[int] = []

    def hang(index: int, event: dict[str, Any]) -> None:
        if not hung:
            hung.append(event["pid"])
            time.sleep(HEARTBEAT + 0.5)

    told: list[str] = []
    with make_supervisor(
        zygotes={"test": KINDS[kind]},
        workers=1,
        heartbeat_seconds=HEARTBEAT,
        on_unattended=lambda key, _: told.append(key),
    ) as supervisor:
        outcomes = dict(supervisor.run([make_job("burn"), make_job("echo")], on_event=hang))
    assert isinstance(outcomes[0], Crashed)
    assert (outcomes[0].killed, outcomes[0].unattended, outcomes[0].zygote_died) == (True, True, False)
    assert told == ["burn"]
    assert isinstance(outcomes[1], Completed)


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_is_looked_after_outlives_many_heartbeats(kind: str, make_supervisor: Any, make_job: Any) -> None:
    with make_supervisor(zygotes={"test": KINDS[kind]}, heartbeat_seconds=HEARTBEAT) as supervisor:
        [(_, outcome)] = supervisor.run([make_job("sleep", seconds=2.5 * HEARTBEAT, beat=True)])
    assert isinstance(outcome, Completed), outcome


@pytest.mark.usefixtures("no_process_left")
def test_an_idle_zygote_needs_no_heartbeat(make_supervisor: Any, make_job: Any) -> None:
    others = set(psutil.Process().children())  # of the tests before
    with make_supervisor(heartbeat_seconds=0.3) as supervisor:
        [(_, first)] = supervisor.run([make_job("echo")])
        [zygote] = set(psutil.Process().children()) - others
        time.sleep(0.8)
        [(_, second)] = supervisor.run([make_job("echo")])
        assert set(psutil.Process().children()) - others == {zygote}
    assert isinstance(first, Completed)
    assert isinstance(second, Completed)


# -- its parts ---------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_heart_is_patient_from_beat_to_beat_and_notices_a_supervisor_that_is_gone() -> None:
    clock = Clock()
    read, write = os.pipe()
    heart = Heart(read, 2.0, clock)
    clock.now += 3.0
    assert heart.patience == -1.0
    os.write(write, b"..")
    assert heart.listen()
    assert heart.patience == 2.0
    assert heart.listen()  # nothing new: it is silent, and not gone
    os.close(write)
    assert not heart.listen()
    os.close(read)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_heartbeat_must_come_in_finite_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="heartbeat_seconds"):
        Pulse(seconds)


def test_a_canary_that_the_switch_killed_is_neither_a_proof_nor_an_escape() -> None:
    class Zygote:
        name, spec, buried = "test", KINDS["fork"], False

        def bury(self) -> None:
            self.buried = True

    zygote, proofs = Zygote(), Proofs(LockdownBackend())
    proofs.begin(cast(ZygoteHandle, zygote))
    proofs.judge(cast(ZygoteHandle, zygote), UNATTENDED)
    assert zygote.buried
    assert proofs.needed(cast(ZygoteHandle, zygote))


class Played:
    """A supervisor whose jobs end as it was told, one after the other."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)

    def run(self, jobs: Sequence[Job], on_start: Any = None) -> Iterator[tuple[int, Outcome]]:
        for index in range(len(jobs)):
            yield index, self.outcomes.pop(0)


def test_what_the_switch_killed_is_run_until_it_ends_by_itself(make_job: Any) -> None:
    done = Completed({}, {}, Usage())
    supervisor, lost = Played(UNATTENDED, UNATTENDED, UNATTENDED, done), []
    found = list(attempt(cast(Supervisor, supervisor), [make_job("echo")], on_killed=lost.append))
    assert found == [(0, done)]
    assert lost == [0, 0, 0]


def test_where_nothing_more_may_be_lost_the_run_ends_and_no_candidate_is_blamed(make_job: Any) -> None:
    def full(index: int) -> None:
        raise LimitReached("lose FLOPs", "2 FLOPs lost", "at most 1", "raise limits.lost_flops")

    with pytest.raises(LimitReached, match="lost_flops"):
        list(attempt(cast(Supervisor, Played(UNATTENDED)), [make_job("echo")], on_killed=full))
