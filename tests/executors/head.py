"""A cluster's head over played nodes, for the tests of what it hands out and of what it believes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfimprove.containment.jobs import Job, NotBegun, Outcome
from selfimprove.containment.permit import Permit
from selfimprove.executors.cluster import ClusterExecutor
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.fleet import Fleet
from selfimprove.executors.messages import (
    Task,
)
from tests.executors.played import ORDER_OF_TESTS, Behavior, Played, PlayedNode, job, obedient, permit

CONFIG = ExecutorConfig(kind="slurm", nodes=2, pack=3, attempts=2, queue_minutes=1.0, silence_seconds=6.0)


class Head:
    """An executor over played nodes, whose seconds pass when it waits."""

    def __init__(self, folder: Path, behavior: Behavior = obedient, *, queued: int = 0, **changes: Any) -> None:
        self.time = 0.0
        self.told: list[Mapping[str, Any]] = []
        self.permits: list[tuple[int, Permit]] = []
        self.found: dict[int, Outcome] = {}
        self.returned: list[int] = []
        self.at_permit: Callable[[], None] = lambda: None
        self.halted = self.stopping = False
        self.each_wait: Callable[[], None] = lambda: None
        config = replace(CONFIG, **changes)
        self.cluster = Played(folder, behavior, queued)
        self.fleet = Fleet(config, self.cluster, ORDER_OF_TESTS.encode(), lambda: self.time, self.told.append)
        self.executor = ClusterExecutor(
            config, self.fleet, halted=lambda: self.halted, should_stop=lambda: self.stopping,
            on_unattended=lambda key, reason: None, pause=self._wait,
        )  # fmt: skip

    def _wait(self, seconds: float) -> None:
        self.time += seconds
        assert self.time < 1000, "it waits for ever"
        self.each_wait()

    def run(self, jobs: list[Job], lifetime_seconds: float = 3600.0) -> dict[int, Outcome]:
        def sign(index: int) -> Permit:
            self.at_permit()
            self.permits.append((index, permit(jobs[index], lifetime_seconds=lifetime_seconds)))
            return self.permits[-1][1]

        self.found = {}
        for index, outcome in self.executor.run(jobs, on_start=sign):
            assert index not in self.found
            if isinstance(outcome, NotBegun):
                self.returned.append(index)
            else:
                self.found[index] = outcome
        return self.found

    @property
    def lost(self) -> list[str]:
        return [str(body["reason"]) for body in self.told if body["state"] == "lost"]


def jobs_of(label: str, count: int) -> list[Job]:
    return [job(f"{label}/c{index:02d}/s0", "copy") for index in range(count)]


def once(fault: Callable[[PlayedNode, str, Task], Outcome | None], key: str = "c01") -> Behavior:
    """Obedient, but for the first time that a task of this key is met."""
    met: list[str] = []

    def behave(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        if key in task.job.key and not met:
            met.append(prefix)
            return fault(node, prefix, task)
        return obedient(node, prefix, task)

    return behave
