"""Shared fixtures: a supervisor over a torch-free entry, and the promise that no process outlives a test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from selfimprove.containment.sandbox.backend import LockdownBackend
from selfimprove.containment.supervisor import Job, JobLimits, Supervisor
from tests.containment.helpers import ENTRY, SPEC

MakeJob = Callable[..., Job]
MakeSupervisor = Callable[..., Supervisor]


@pytest.fixture(scope="module")
def make_job() -> MakeJob:
    """Build a job of the test entry: ``make_job("echo", say=1, limits={"wall_seconds": 2})``."""

    def make(
        op: str, *, key: str = "", inputs: Any = None, outputs: Any = (), limits: Any = None, **payload: Any
    ) -> Job:
        bounds = {"wall_seconds": 20.0, "cpu_seconds": 10.0, "memory_bytes": 128 * 2**20, "output_bytes": 2**20,
                  "silence_seconds": 10.0}  # fmt: skip
        return Job(
            key or op, "test", ENTRY, {"op": op, **payload}, inputs or {}, tuple(outputs),
            JobLimits(**(bounds | (limits or {}))),
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def make_supervisor() -> MakeSupervisor:
    """Build a supervisor of the test entry; every argument has a default."""

    def make(**changes: Any) -> Supervisor:
        zygotes = changes.pop("zygotes", {"test": SPEC})
        arguments: dict[str, Any] = {"backend": LockdownBackend(), "workers": 2, "halt_file": None}
        arguments["should_stop"] = lambda: False
        return Supervisor(zygotes, **(arguments | changes))

    return make


@pytest.fixture(scope="module")
def supervisor(make_supervisor: MakeSupervisor) -> Iterator[Supervisor]:
    with make_supervisor() as shared:
        yield shared


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a process behind, or a zombie."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
        if not left:
            return
        time.sleep(0.02)
    pytest.fail(f"processes left behind: {left}")
