"""Clusters without a cluster: nodes that are played by the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selfimprove.containment.jobs import Completed, Job, JobLimits, Outcome, Usage
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import Claim, Permit, PermitBook
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.executors.box import Box
from selfimprove.executors.messages import (
    ENDED,
    HALT,
    ORDER,
    PACK,
    READY,
    STARTED,
    STOP,
    STOPPED,
    Order,
    Task,
    encode,
    prefix_of,
    read_pack,
    write_outcome,
)
from selfimprove.executors.scheduler import Phase, State
from selfimprove.executors.slurm import FolderLink
from selfimprove.genome.genome import seed_genome
from selfimprove.loop.versions import versions_on_nodes
from tests.containment.helpers import ENTRIES, ENTRY

GENOME = seed_genome()
KEY = SigningKey.generate()
BOOK = PermitBook("r", KEY)
BOUNDS = JobLimits(wall_seconds=30, cpu_seconds=10, memory_bytes=128 * 2**20, output_bytes=2**16, silence_seconds=20)
ORDER_OF_TESTS = Order(
    run_id="r",
    public_key=KEY.public_key_hex,
    versions=versions_on_nodes(),
    zygotes={"test": ZygoteSpec((ENTRY,), path=(ENTRIES,))},
    backend="lockdown",
    allow_degraded=(),
    outer_layer="off",
    device="cpu",
    workers=2,
    heartbeat_seconds=5.0,
    silence_seconds=3.0,
    idle_seconds=30.0,
)


def job(
    key: str = "g001/c00/s0", op: str = "echo", *, inputs: dict[str, Path] | None = None, steps: int = 4, **more: object
) -> Job:
    """A training of the torch-free entry: it does ``op`` and carries what a permit is compared with."""
    what = {"op": op, "genome": GENOME.to_json(), "first": 0, "last": steps, **more}
    return Job(f"{key}@1/1", "test", ENTRY, what, inputs or {}, ("weights",) if op == "copy" else (), BOUNDS)


def permit(of: Job, *, steps: int = 4, key: str = "", lifetime_seconds: float = 3600.0) -> Permit:
    claim = Claim("r", key or of.key, GENOME.sha256, "1/1")
    return BOOK.issue(
        claim, account="search", flops=1, tokens=1, steps=steps, lifetime_seconds=lifetime_seconds, reissue=False
    )


ABOUT = {"host": "played", "processor": "none", "backend": "lockdown", "sandbox": {}, "degraded": []}
"""What a played node says of itself."""

Behavior = Callable[["PlayedNode", str, Task], Outcome | None]


class PlayedNode:
    """One played node: ready at once, and does with each task what the test says; None as an outcome: nothing more.

    Args:
        name: its name.
        folder: where it talks with the head.
        behavior: what it does with a task.
    """

    sees_marks = True

    def __init__(self, name: str, folder: Path, behavior: Behavior) -> None:
        self.name = name
        self.box = Box(folder)
        self._link = FolderLink(name, folder)
        self.order: Order | None = None
        self.state = State(Phase.RUNNING)
        self.done: list[str] = []
        self.packs: list[int] = []
        self.heard: list[str] = []
        self.held: dict[str, Outcome] = {}
        """What it has begun and goes on with until it is asked to stop."""
        self._behavior = behavior
        self._known: set[str] = set()
        self._greets = True

    def send(self, files: Mapping[str, bytes]) -> None:
        self.heard += files
        self._link.send(files)

    def collect(self, cap: int) -> dict[str, bytes]:
        if self.state.phase is Phase.RUNNING:
            self._live()
        return self.box.collect(self._known, cap)

    def _live(self) -> None:
        if self._greets:
            self._greets = False
            self.order = Order.decode((self.box.inward / ORDER).read_bytes())
            self.box.answer({READY: encode(ABOUT)})
        if STOP in self.box.waiting():
            self._finish()
            return
        for name in sorted(name for name in self.box.waiting() if name.endswith(PACK)):
            tasks = read_pack(self.box.inward, name)
            (self.box.inward / name).unlink()
            self.packs.append(len(tasks))
            for place, task in enumerate(tasks):
                self._do(prefix_of(int(name.removesuffix(PACK)), place), task)

    def _do(self, prefix: str, task: Task) -> None:
        assert self.order is not None
        task.check(self.order, time.time())
        outcome = self._behavior(self, prefix, task) if self.state.phase is Phase.RUNNING else None
        if outcome is not None:
            self.done.append(task.job.key)
            self.box.answer(write_outcome(prefix, outcome))

    def _finish(self) -> None:
        while self.held:
            self.box.answer(write_outcome(*self.held.popitem()))
        self.box.answer({ENDED: encode({"code": STOPPED, "reason": "asked to"})})

    def begin(self, prefix: str) -> None:
        self.box.mark(f"{prefix}{STARTED}")

    def end(self, reason: str, *, evicted: bool = False) -> None:
        self.state = State(Phase.ENDED, reason, evicted)


class Played:
    """A scheduler of played nodes.

    Args:
        folder: where head and nodes talk.
        behavior: of every node.
        queued: how many of the nodes that are asked for first stay in the queue for ever.
    """

    def __init__(self, folder: Path, behavior: Behavior, queued: int = 0) -> None:
        self._folder = folder
        self._behavior = behavior
        self._queued = queued
        self.arrays: list[tuple[str, int]] = []
        self.nodes: list[PlayedNode] = []
        self.cancelled: list[str] = []
        self.closed = False

    def start(self, label: str, count: int, order: bytes) -> list[PlayedNode]:
        self.arrays.append((label, count))
        first = len(self.nodes)
        for number in range(first, first + count):
            node = PlayedNode(f"n{number}", self._folder / f"n{number}", self._behavior)
            node.send({ORDER: order})
            if number < self._queued:
                node.state = State(Phase.QUEUED, "Resources")
            self.nodes.append(node)
        return self.nodes[first:]

    def states(self) -> Mapping[str, State]:
        return {node.name: node.state for node in self.nodes}

    def cancel(self, names: Sequence[str]) -> None:
        self.cancelled += names
        for node in self.nodes:
            if node.name in names and node.state.phase is not Phase.ENDED:
                node.end("cancelled")

    def close(self) -> None:
        self.closed = True


def obedient(node: PlayedNode, prefix: str, task: Task) -> Outcome:
    """Begins a task and ends it well."""
    node.begin(prefix)
    outputs = {name: f"{name} of {task.job.key}".encode() for name in task.job.outputs}
    return Completed({"steps": task.job.payload["last"]}, outputs, Usage(cpu_seconds=1.0))


__all__ = ["ABOUT", "HALT", "Played", "PlayedNode", "job", "obedient", "permit"]
