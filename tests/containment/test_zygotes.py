"""Zygotes: they are replaced once, given up with a clear error, and believed in nothing that they say of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.containment.supervisor import (
    Completed,
    Crashed,
    Job,
    JobLimits,
)
from selfimprove.errors import RunError
from tests.containment.helpers import ENTRIES, KINDS, outcome_of


def someones(place: Path, warm_up: str = "pass") -> ZygoteSpec:
    """A package of one's own below ``place``, whose only entry does this as it warms up."""
    (place / "someones").mkdir()
    (place / "someones" / "__init__.py").touch()
    (place / "someones" / "entry.py").write_text(
        f"import os\ndef warm_up():\n    {warm_up}\ndef run(job, inputs, outputs, emit): return {{}}\n"
    )
    return ZygoteSpec(("someones.entry",), search=(place,))


@pytest.mark.usefixtures("no_process_left")
def test_a_killed_zygote_takes_its_worker_along_and_is_replaced_once(make_supervisor: Any, make_job: Any) -> None:
    killed: list[int] = []

    def kill(index: int, event: dict[str, Any]) -> None:
        if not killed:
            killed.append(event["zygote"])
            os.kill(event["zygote"], signal.SIGKILL)

    with make_supervisor(workers=1) as supervisor:
        outcomes = dict(supervisor.run([make_job("burn"), make_job("echo")], on_event=kill))
    assert isinstance(outcomes[0], Crashed)
    assert outcomes[0].zygote_died
    assert isinstance(outcomes[1], Completed)


@pytest.mark.usefixtures("no_process_left")
def test_a_zygote_that_dies_twice_in_a_batch_is_a_clear_error(make_supervisor: Any, make_job: Any) -> None:
    def kill(index: int, event: dict[str, Any]) -> None:
        os.kill(event["zygote"], signal.SIGKILL)

    with make_supervisor(workers=1) as supervisor, pytest.raises(RunError, match="died twice"):
        list(supervisor.run([make_job("burn"), make_job("burn")], on_event=kill))


@pytest.mark.usefixtures("no_process_left")
def test_an_entry_that_cannot_be_warmed_up_is_a_clear_error(make_supervisor: Any) -> None:
    broken = ZygoteSpec(("containment_broken",), path=(ENTRIES,))
    with make_supervisor(zygotes={"test": broken}) as supervisor, pytest.raises(RunError, match="no such luck"):
        supervisor.prove()


@pytest.mark.parametrize("act", ["open({path!r}, 'w')", "import socket; socket.socket()"])
@pytest.mark.usefixtures("no_process_left")
def test_not_a_line_of_an_entrys_package_runs_before_the_lock_down(
    make_supervisor: Any, tmp_path: Path, act: str
) -> None:
    spec = someones(tmp_path)
    with make_supervisor(zygotes={"test": spec}) as supervisor:
        supervisor.prove()
    (tmp_path / "someones" / "__init__.py").write_text(act.format(path=str(tmp_path / "written")) + "\n")
    with make_supervisor(zygotes={"test": spec}) as supervisor, pytest.raises(RunError, match="PermissionError"):
        supervisor.prove()
    assert not (tmp_path / "written").exists()


@pytest.mark.usefixtures("no_process_left")
def test_a_zygote_that_hands_over_a_stranger_s_process_is_given_up_and_the_stranger_lives(
    make_supervisor: Any, tmp_path: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        spec = someones(tmp_path, f"os.pidfd_open = lambda pid, real=os.pidfd_open: real({stranger.pid})")
        with make_supervisor(zygotes={"test": spec}) as supervisor, pytest.raises(RunError, match="died twice"):
            supervisor.prove()
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


@pytest.mark.parametrize("status", [0x7F, 0xFFFF, -1, 10**19])
@pytest.mark.usefixtures("no_process_left")
def test_a_zygote_that_reports_an_impossible_end_is_given_up(make_supervisor: Any, tmp_path: Path, status: int) -> None:
    spec = someones(tmp_path, f"os.wait4 = lambda pid, options, real=os.wait4: (pid, {status}, real(pid, options)[2])")
    with make_supervisor(zygotes={"test": spec}) as supervisor, pytest.raises(RunError, match="died twice"):
        supervisor.prove()


@pytest.mark.usefixtures("no_process_left")
def test_a_zygote_with_a_second_thread_is_not_forked(make_supervisor: Any) -> None:
    threaded = ZygoteSpec(("containment_warm_up",), path=(ENTRIES,))
    with (
        make_supervisor(zygotes={"test": threaded}) as supervisor,
        pytest.raises(RunError, match=r"fork workers from zygote test: got 2 threads; allowed: 1"),
    ):
        supervisor.prove()


@pytest.mark.usefixtures("no_process_left")
def test_without_forking_the_time_of_the_imports_is_spent_and_no_part_of_the_job(make_supervisor: Any) -> None:
    spec = ZygoteSpec(("containment_warm_up",), fork=False, path=(ENTRIES,))
    limits = JobLimits(wall_seconds=60, cpu_seconds=0.4, memory_bytes=2**27, output_bytes=1, silence_seconds=60)
    with make_supervisor(zygotes={"test": spec}) as supervisor:
        outcome = outcome_of(supervisor, Job("warm", "test", "containment_warm_up", {}, {}, (), limits))
    assert isinstance(outcome, Completed)
    assert outcome.usage.cpu_seconds >= 0.5


@pytest.mark.usefixtures("no_process_left")
def test_without_forking_each_job_is_a_locked_down_process_of_its_own(make_supervisor: Any, make_job: Any) -> None:
    jobs = [make_job("echo"), make_job("fork"), make_job("leave", code=3)]
    with make_supervisor(zygotes={"test": KINDS["once"]}) as supervisor:
        outcomes = dict(supervisor.run(jobs))
    assert isinstance(outcomes[0], Completed)
    assert isinstance(outcomes[1], Crashed)
    assert "Operation not permitted" in outcomes[1].reason
    assert isinstance(outcomes[2], Crashed)
    assert outcomes[2].reason == "exit code 3"


def test_a_killed_supervisor_takes_zygotes_and_workers_along(tmp_path: Path) -> None:
    script = ENTRIES / "lonely_supervisor.py"
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        family = [psutil.Process(pid) for pid in json.loads(process.stdout.readline())]
        process.kill()
    _, alive = psutil.wait_procs(family, timeout=2)
    assert not alive
