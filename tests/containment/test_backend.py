"""One suite for every backend.

A backend that cannot be used on this machine is skipped with its reason. The one without containment is the control:
what is refused elsewhere must succeed there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.containment import proof
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Job
from selfimprove.containment.launcher import environment
from selfimprove.containment.sandbox import layers
from selfimprove.containment.sandbox.backend import (
    PROPERTIES,
    NoBackend,
    SandboxBackend,
)
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.sandbox.process import ORPHANED
from selfimprove.containment.supervisor import Supervisor
from tests.containment.helpers import ENTRIES, KINDS, SPEC, at_first, family, from_outside

USES = {"lockdown": "off", "lockdown+bubblewrap": "require", "none": "none"}
KILL_SECONDS = 0.25  # from the kill to the last death
SLACK = 5.0  # seconds that a busy machine may take to do what is due


@pytest.fixture(scope="module", params=USES)
def use(request: pytest.FixtureRequest) -> str:
    """A backend's name, if it can be used here."""
    if request.param == "lockdown+bubblewrap" and not layers.outer_layers()["bubblewrap"].available:
        pytest.skip(f"no {request.param} on this machine: {layers.outer_layers()['bubblewrap'].detail}")
    return str(request.param)


@pytest.fixture(scope="module")
def backend(use: str) -> SandboxBackend:
    return NoBackend() if use == "none" else make_backend("lockdown", outer_layer=USES[use])


class Doubted:
    """A backend that is put to the test whatever it says of itself."""

    name = "doubted"
    contains = True
    degraded: frozenset[str] = frozenset()

    def __init__(self, inner: SandboxBackend) -> None:
        self.probe, self.command, self.enclose = inner.probe, inner.command, inner.enclose


def seconds_to_kill(supervisor: Supervisor, jobs: Sequence[Job]) -> float:
    """From the moment in which all jobs run and are killed, with their zygote, until nothing of them is left."""
    running: set[int] = set()
    pressed: list[float] = []

    def watch(index: int, event: dict[str, Any]) -> None:
        running.add(index)
        if len(running) == len(jobs):
            pressed.append(time.perf_counter())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(supervisor.run(jobs, on_event=watch))
    supervisor.close()
    return time.perf_counter() - pressed[0]


@pytest.mark.usefixtures("no_process_left")
class TestEveryBackend:
    def test_its_name_says_what_it_is(self, use: str, backend: SandboxBackend) -> None:
        assert backend.name.removesuffix("+cgroup") == use

    def test_it_names_a_mechanism_for_every_property_or_for_none(self, backend: SandboxBackend) -> None:
        probe = backend.probe()
        assert tuple(probe) == PROPERTIES
        assert {bool(mechanism) for mechanism in probe.values()} == {backend.contains}

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_canary_gets_around_nothing_where_it_is_contained_and_around_everything_where_it_is_not(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any
    ) -> None:
        with make_supervisor(backend=Doubted(backend), zygotes={"test": KINDS[kind]}) as supervisor:
            if backend.contains:
                supervisor.prove()
                assert set(supervisor.proofs["test"]) == set(PROPERTIES)
            else:
                with pytest.raises(proof.ContainmentBroken) as caught:
                    supervisor.prove()
                assert set(caught.value.lost) == set(PROPERTIES)

    def test_files_go_in_and_come_back(
        self, backend: SandboxBackend, make_supervisor: Any, make_job: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "a").write_bytes(b"in and out")
        with make_supervisor(backend=backend) as supervisor:
            [(_, outcome)] = supervisor.run([make_job("copy", inputs={"a": tmp_path / "a"}, outputs=["a"])])
        assert isinstance(outcome, Completed)
        assert outcome.outputs == {"a": b"IN AND OUT"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_how_a_worker_ended_and_what_it_used_is_told_honestly(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        kill = at_first(lambda event: from_outside(event["pid"]).kill(), of=2)
        jobs = [make_job("leave", code=3, last_words="so long"), make_job("burn", limits={"cpu_seconds": 0.4}),
                make_job("burn")]  # fmt: skip
        with make_supervisor(backend=backend, workers=1, zygotes={"test": KINDS[kind]}) as supervisor:
            left, burned, killed = (outcome for _, outcome in sorted(supervisor.run(jobs, on_event=kill)))
        assert isinstance(left, Crashed)
        assert (left.reason, left.killed) == ("exit code 3: so long", False)
        assert isinstance(burned, Exceeded)
        assert burned.limit == "cpu_seconds"
        assert 0.4 <= burned.usage.cpu_seconds < 0.4 + SLACK
        assert isinstance(killed, Crashed)
        assert killed.killed, killed

    @pytest.mark.parametrize("kind", KINDS)
    def test_no_exit_code_passes_for_a_signal_and_the_next_job_runs(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        """128 and a signal's number is how a shell, or an outer layer, says that a signal ended a program."""
        jobs = [*(make_job("leave", code=code) for code in (137, 152, 255)), make_job("echo")]
        with make_supervisor(backend=backend, workers=1, zygotes={"test": KINDS[kind]}) as supervisor:
            *left, echoed = (outcome for _, outcome in sorted(supervisor.run(jobs)))
        assert [(type(outcome), getattr(outcome, "killed", None)) for outcome in left] == [(Crashed, False)] * 3
        assert isinstance(echoed, Completed)

    @pytest.mark.parametrize("outermost", [True, False])
    def test_a_killed_zygote_takes_its_worker_along_and_is_replaced(
        self, backend: SandboxBackend, outermost: bool, make_supervisor: Any, make_job: Any
    ) -> None:
        doomed: list[psutil.Process] = []
        strangers = set(family())

        def kill(event: dict[str, Any]) -> None:
            doomed.extend(process for process in family() if process not in strangers)
            (doomed[0] if outermost else from_outside(event["zygote"])).kill()

        with make_supervisor(backend=backend, workers=1) as supervisor:
            outcomes = dict(supervisor.run([make_job("burn"), make_job("echo")], on_event=at_first(kill)))
            assert not set(doomed) & set(family())
        assert isinstance(outcomes[0], Crashed)
        assert outcomes[0].zygote_died
        assert isinstance(outcomes[1], Completed)

    @pytest.mark.parametrize("kind", KINDS)
    def test_from_the_kill_to_the_last_death_it_takes_less_than_a_quarter_of_a_second(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        seconds, strangers = [], set(family())
        for _ in range(3):
            with make_supervisor(backend=backend, zygotes={"test": KINDS[kind]}) as supervisor:
                jobs = [make_job("burn")] * (2 if kind == "fork" else 1)
                seconds.append(seconds_to_kill(supervisor, jobs))
                assert set(family()) <= strangers
        assert statistics.median(seconds) < KILL_SECONDS

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_dead_mans_switch_reaches_in(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        sleep = at_first(lambda event: time.sleep(1.5))
        specs = {"test": KINDS[kind]}
        with make_supervisor(backend=backend, zygotes=specs, heartbeat_seconds=0.5) as supervisor:
            [(_, outcome)] = supervisor.run([make_job("burn")], on_event=sleep)
        assert isinstance(outcome, Crashed)
        assert outcome.unattended, outcome

    def test_a_zygote_whose_supervisor_died_while_it_was_started_ends_by_itself(self, backend: SandboxBackend) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        heart, gone = os.pipe()
        os.close(gone)
        arguments = ["--control", str(theirs.fileno()), "--parent", str(os.getpid()), "--heart", str(heart)]
        command = backend.command([*arguments, "--heartbeat", "60"])
        with control, theirs, subprocess.Popen(
            command, pass_fds=(theirs.fileno(), heart), env=environment(SPEC, None), cwd="/", start_new_session=True
        ) as zygote:  # fmt: skip
            os.close(heart)
            assert zygote.wait(timeout=4 * SLACK) == ORPHANED
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-zygote.pid, 0):  # what an outer layer left to us
                pass

    def test_nothing_outlives_a_supervisor_that_was_killed(self, use: str, backend: SandboxBackend) -> None:
        command = [sys.executable, str(ENTRIES / "lonely_supervisor.py"), USES[use]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            below = json.loads(process.stdout.readline())
            process.kill()
        deadline = time.monotonic() + SLACK
        while (left := [pid for pid in below if is_there(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(below) == (4 if "bubblewrap" in use else 2)
        assert left == []


def is_there(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # orphans come to us where a supervisor made us adopt them
        os.waitpid(pid, os.WNOHANG)
    return psutil.pid_exists(pid)
