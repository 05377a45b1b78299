"""The trusted parent: starts workers, meters them from outside, kills them, and turns whatever happens into a value.

The supervisor never imports torch and never runs a candidate's model. Everything that a worker says is hostile input.
A worker runs only once the supervisor holds its pidfd, so that there is no moment in which it cannot be killed; if the
supervisor itself dies, the kernel kills its zygotes and they take their workers along. If it lives and does not look
after its workers, being stopped or stuck, their zygotes miss its heartbeat and kill them.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

from selfimprove.containment import gpu, metering
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Job, JobLimits, Outcome, Spent, Usage
from selfimprove.containment.launcher import Stage, ZygoteHandle
from selfimprove.containment.nursery import Nursery
from selfimprove.containment.proof import Proofs
from selfimprove.containment.pulse import HEARTBEAT_SECONDS, Pulse
from selfimprove.containment.sandbox import process
from selfimprove.containment.sandbox.backend import SandboxBackend, ZygoteSpec
from selfimprove.containment.worker import ExitReport, WorkerHandle
from selfimprove.errors import Halted, Interrupted, SelfImproveError

__all__ = [
    "Completed", "Crashed", "Exceeded", "Invalid", "Job", "JobLimits", "Outcome", "Spent", "Supervisor", "Usage",
    "ZygoteSpec",
]  # fmt: skip

CANARY_INDEX: Final = -1
POLL_SECONDS: Final = 0.05
REPORT_SECONDS: Final = 2.0  # how long a dead worker's zygote may take to report it
ANSWER_SECONDS: Final = 30.0  # how long a zygote may take to fork
BURIAL_SECONDS: Final = 5.0
MESSAGES: Final = 256  # most taken from one zygote at a poll, before the others get their turn

Progress = Callable[[int, dict[str, Any]], None]


@final
class Supervisor:
    """Runs jobs in contained workers. A context manager; use it from the main thread.

    Args:
        zygotes: the roles, by name.
        backend: how workers are contained.
        workers: most workers at once.
        halt_file: the kill switch: once this file exists, every worker is killed within a poll.
        should_stop: asked at every poll; once true, no further job starts.
        clock: seconds that only grow.
        heartbeat_seconds: the longest that a worker lives while nobody looks after it.
        on_unattended: called with a job's key and a reason when its worker died of that.
        gpus: meters the GPU memory of CUDA workers; None: this machine's own meter, where it has one.
    """

    def __init__(
        self,
        zygotes: Mapping[str, ZygoteSpec],
        *,
        backend: SandboxBackend,
        workers: int,
        halt_file: Path | None,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        on_unattended: Callable[[str, str], None] = lambda key, reason: None,
        gpus: gpu.GpuMeter | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers: got {workers}; allowed: at least 1")
        self._pulse = Pulse(heartbeat_seconds)
        self._on_unattended = on_unattended
        self._group = backend.enclose(len(zygotes), workers)
        self._nursery = Nursery(
            zygotes, lambda arguments: [*self._group.prefix, *backend.command(arguments)], clock, heartbeat_seconds
        )
        self._workers = workers
        self._halt_file = halt_file
        self._should_stop = should_stop
        self._clock = clock
        self._running: dict[int, WorkerHandle] = {}
        self._spent = Spent()
        self._gpus, unmetered = (gpus, "") if gpus else gpu.meter_for(spec.device for spec in zygotes.values())
        self._proofs = Proofs(backend, unmetered)
        self._numbers = 0
        self._measured = 0.0
        self._busy = False
        self._abandoning = False
        process.become_subreaper()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def proofs(self) -> dict[str, dict[str, str]]:
        """Per zygote that was proven: each property and the refusal that its canary met."""
        return {name: dict(held) for name, held in self._proofs.held.items()}

    @property
    def spent(self) -> Spent:
        """Time of all workers so far, canaries, killed and running ones included; not of the zygotes that fork them."""
        spent = self._spent
        for worker in self._running.values():
            spent += worker.usage
        return spent

    def warm(self, name: str) -> None:
        """Start a zygote in the background, so that its imports overlap with other work."""
        self._nursery.warm(name)

    def prove(self, *names: str) -> None:
        """Wait until zygotes (all, if none is named) are warm and a real worker of each has failed to break out.

        Raises:
            SandboxUnavailable: a canary attack succeeded, or the lock-down could not be set up.
            RunError: an entry cannot be imported or warmed up.
            Halted: the kill switch was used meanwhile.
            Interrupted: ``should_stop()`` was true.
        """
        self._nursery.forgive()
        waiting = names or self._nursery.names
        while waiting := tuple(name for name in waiting if self._free(name) is None):
            if self._should_stop():
                raise Interrupted("warm up workers", remedy="resume to go on")
            self._step()

    def run(
        self, jobs: Sequence[Job], on_event: Progress | None = None, on_start: Callable[[int], object] | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Run jobs, each in its own worker; yields (index, outcome) as they end, in whatever order that is.

        Jobs start in order. Consume the iterator promptly: nothing is metered while the caller holds an outcome, and
        held for longer than ``heartbeat_seconds`` it costs the other workers their lives.
        Closing the iterator early, or an exception from the caller, kills what is running.

        Args:
            jobs: what to run. All are checked before the first starts.
            on_event: called with (index, last event) when a job showed progress.
            on_start: called with a job's index just before it starts: the moment to sign its permit.

        Raises:
            ValueError: a job names an unknown zygote or entry.
            Halted: the kill switch was used; every worker is dead.
            Interrupted: ``should_stop()`` was true; running jobs were finished and yielded, the others never started.
            SandboxUnavailable, RunError: as in ``prove``, or a zygote died twice.
        """
        for job in jobs:
            entries = self._nursery.spec(job.zygote).entries
            if job.entry not in entries:
                raise ValueError(f"job {job.key}: entry {job.entry!r}; zygote {job.zygote} has {', '.join(entries)}")
        if self._busy:
            raise RuntimeError("run() is already in progress")
        return self._run(jobs, on_event, on_start)

    def close(self) -> None:
        """Kill and reap everything that was started. Safe to call twice."""
        self._abandon()
        self._nursery.close()
        self._group.close()

    def _run(
        self, jobs: Sequence[Job], on_event: Progress | None, on_start: Callable[[int], object] | None
    ) -> Iterator[tuple[int, Outcome]]:
        self._busy = True
        self._nursery.forgive()
        pending = deque(enumerate(jobs))
        stopping = False
        try:
            while pending or self._running:
                stopping = stopping or self._should_stop()
                if stopping:
                    pending.clear()
                while pending and len(self._running) < self._workers:
                    zygote = self._free(pending[0][1].zygote)
                    if zygote is None:
                        break
                    if on_start is not None:
                        on_start(pending[0][0])
                    self._start(*pending.popleft(), zygote)
                if not pending and not self._running:
                    break  # stopped before anything was started
                self._step(on_event)
                for worker in self._ended_workers(canaries=False):
                    outcome = self._finish(worker)
                    if isinstance(outcome, Crashed) and outcome.unattended:
                        self._on_unattended(worker.job.key, outcome.reason)
                    yield worker.index, outcome
            if stopping or self._should_stop():
                raise Interrupted("run jobs", remedy="finished work is kept; resume to go on")
        finally:
            self._abandon(jobs_only=True)
            self._busy = False

    def _step(self, on_event: Progress | None = None) -> None:
        """One poll: the kill switch, messages, events, deaths, limits."""
        self._obey_halt()
        self._wait(POLL_SECONDS, on_event)
        now = self._clock()
        if now - self._measured >= POLL_SECONDS / 2:
            self._measured = now
            holders = [process for w in self._running.values() if (process := w.gpu_process) is not None]
            on_gpu = self._gpus.used_bytes(holders) if self._gpus and holders else {}
            for worker in self._running.values():
                worker.measure(now, on_gpu)
            self._nursery.check_warm_up()
            self._check_answers(now)
        for worker in self._ended_workers(canaries=True):
            self._proofs.judge(worker.zygote, self._finish(worker))

    def _obey_halt(self) -> None:
        if self._halt_file is not None and self._halt_file.exists():
            self._abandon()
            raise Halted("run jobs", remedy="the kill switch was used; resume with --clear-halt to go on")

    def _wait(self, seconds: float, on_event: Progress | None = None) -> None:
        poll = select.poll()
        zygotes = {zygote.fileno(): zygote for zygote in self._nursery.listening}
        events = {w.events: w for w in self._running.values() if w.events >= 0}
        dying = {w.pidfd: w for w in self._running.values() if w.pidfd >= 0 and w.died_at is None}
        for fd in (*zygotes, *events, *dying):
            poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(seconds * 1000)]
        now = self._clock()
        self._pulse.beat(now, self._nursery.alive, self._running.values())
        for fd in ready:
            if fd in events:
                worker = events[fd]
                worker.listen(now)
                event = worker.take_event()
                if event is not None and on_event is not None and worker.index != CANARY_INDEX:
                    on_event(worker.index, event)
            elif fd in dying:
                dying[fd].died(now)
                if dying[fd].zygote.stage is Stage.WORKING:
                    self._bury(dying[fd].zygote)
        for fd in ready:
            if fd in zygotes:
                self._hear_out(zygotes[fd])

    def _hear_out(self, zygote: ZygoteHandle) -> None:
        """Handle what waits in a zygote's socket: a report that stayed there would be late at the next poll."""
        for _ in range(MESSAGES):
            if zygote not in self._nursery.listening or not zygote.has_spoken():
                return
            self._hear(zygote)

    def _hear(self, zygote: ZygoteHandle) -> None:
        """Handle one message of a zygote; silence means that it died."""
        message, descriptors = zygote.receive() or ({"op": "hung up"}, [])
        now, number = self._clock(), message.get("number", 0)
        worker = self._running.get(number) if isinstance(number, int) else None
        worker = None if worker is None or worker.zygote is not zygote else worker
        try:
            match message["op"]:
                case "ready":
                    self._nursery.check_threads(zygote, int(message["threads"]))
                    self._prove(zygote)
                case "started" if worker is not None and worker.pidfd < 0:
                    metering.check_session(descriptors[-1], zygote.pid)  # else it would have somebody else killed
                    worker.start(descriptors.pop(), now)
                case "exited":
                    if worker is not None:  # else it was given up for late
                        worker.exit = ExitReport.parse(message)
                case "hung up" if self._is_working(zygote):
                    zygote.stage = Stage.WORKING
                case "failed":
                    self._bury(zygote, message)
                case _:
                    self._bury(zygote)
        except (LookupError, TypeError, ValueError, OSError):
            self._bury(zygote)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _bury(self, zygote: ZygoteHandle, failure: dict[str, Any] | None = None) -> None:
        """A zygote is gone: by itself after its one job, by failing, or by being killed."""
        try:
            self._nursery.bury(zygote, failure)
        finally:
            if not zygote.spec.fork:  # it was the worker, and its end is the worker's
                for worker in (w for w in self._running.values() if w.zygote is zygote and w.pidfd >= 0):
                    worker.end_with_zygote()

    def _is_working(self, zygote: ZygoteHandle) -> bool:
        """True if this is no forking zygote but a process that turned into its one worker, and still runs."""
        workers = [w for w in self._running.values() if w.zygote is zygote]
        return not zygote.spec.fork and any(w.pidfd >= 0 and w.died_at is None for w in workers)

    def _free(self, name: str) -> ZygoteHandle | None:
        """Return the role's zygote if a job can start on it now; starts or restarts it as needed."""
        zygote = self._nursery.warm(name)
        occupied = not zygote.spec.fork and zygote.workers > 0
        return None if zygote.stage is not Stage.SERVING or occupied else zygote

    def _start(self, index: int, job: Job, zygote: ZygoteHandle) -> None:
        self._numbers += 1
        zygote.beat()
        self._running[self._numbers] = WorkerHandle(self._numbers, index, job, zygote, self._clock())
        zygote.workers += 1
        limits = [worker.job.limits for worker in self._running.values()]
        self._group.grant(sum(bounds.memory_bytes + bounds.output_bytes for bounds in limits))

    def _prove(self, zygote: ZygoteHandle) -> None:
        """Send a canary into a warm zygote, unless one came back from this role already."""
        zygote.stage = Stage.PROVING if self._proofs.needed(zygote) else Stage.SERVING
        if zygote.stage is Stage.PROVING and not self._abandoning:
            self._start(CANARY_INDEX, self._proofs.begin(zygote), zygote)

    def _ended(self, worker: WorkerHandle) -> bool:
        """True once a worker is dead and nothing more will be learned about it."""
        if worker.pidfd < 0:
            return not worker.zygote.alive or worker.exit is not None
        if worker.died_at is None:
            return False
        late = self._clock() - worker.died_at > REPORT_SECONDS
        return worker.exit is not None or not worker.zygote.alive or late

    def _ended_workers(self, *, canaries: bool) -> list[WorkerHandle]:
        return [w for w in self._running.values() if (w.index == CANARY_INDEX) == canaries and self._ended(w)]

    def _finish(self, worker: WorkerHandle) -> Outcome:
        del self._running[worker.number]
        worker.zygote.workers -= 1
        if worker.exit is None:  # its zygote is dead, or hangs and is of no more use
            worker.zygote.kill()
            worker.adopt()
        self._spent += worker.usage
        try:
            return worker.outcome(self._clock())
        finally:
            worker.close()

    def _check_answers(self, now: float) -> None:
        for worker in self._running.values():
            if worker.pidfd < 0 and now - worker.requested > ANSWER_SECONDS:
                worker.zygote.kill()

    def _abandon(self, *, jobs_only: bool = False) -> None:
        """Kill every worker and wait until it is dead and reaped; canaries are spared with ``jobs_only``."""
        self._abandoning = not jobs_only
        deadline = self._clock() + BURIAL_SECONDS
        while doomed := [w for w in self._running.values() if not jobs_only or w.index != CANARY_INDEX]:
            for worker in doomed:
                if self._ended(worker):
                    self._finish(worker)
                elif self._clock() > deadline:
                    worker.zygote.kill()
                    self._group.kill()
                elif not worker.killed:
                    worker.kill()
            with contextlib.suppress(SelfImproveError):
                self._wait(POLL_SECONDS if self._running else 0)
        if not jobs_only:
            self._proofs.abandon(self._nursery.alive)
        self._abandoning = False
