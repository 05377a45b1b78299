"""The supervisor's end of one worker: its descriptors, what it said, what it used, and how it ended."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from selfimprove.containment import descriptors, gpu, hostile, metering
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Job, Outcome, Usage
from selfimprove.containment.launcher import ZygoteHandle

READ_BYTES: Final = 128 * 1024  # most bytes taken from one worker before the others get their turn
WORKER_ERROR_BYTES: Final = 16 * 1024
STARVED: Final = 0.5  # processors below which a worker that ran out of time was starved of them

_WAIT_STATUS = 0xFFFF  # the largest that wait(2) gives
_BY_SIGNAL = 128  # what is added to a signal's number in the exit code of a program that reports another's end
_MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError")
_ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory", "std::bad_alloc")
_GPU_MEMORY_ERROR = "OutOfMemoryError"  # torch's, of the allocator on a device
_GPU_MEMORY_WORDS = "CUDA out of memory"


@dataclass(frozen=True)
class ExitReport:
    """How a worker ended, by whoever reaped it; ``code`` is its exit code, or minus the signal's number."""

    code: int
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> ExitReport:
        """Read a zygote's message; raises LookupError, TypeError or ValueError."""
        status, cpu_seconds = int(message["status"]), float(message["cpu_seconds"])
        if not 0 <= status <= _WAIT_STATUS:
            raise ValueError(f"a wait status of {status}; allowed: 0 to {_WAIT_STATUS}")
        if not 0 <= cpu_seconds < math.inf:  # text, too, becomes a number here: "nan" would never be over a limit
            raise ValueError(f"{cpu_seconds} s of processor time; allowed: a finite number, 0 or more")
        return cls(os.waitstatus_to_exitcode(status), cpu_seconds, int(message["max_rss_bytes"]))


@final
class WorkerHandle:
    """A live worker, from request to outcome. Owns its descriptors until ``close``.

    Raises:
        OSError: an input cannot be opened, or is no regular file.
    """

    def __init__(self, number: int, index: int, job: Job, zygote: ZygoteHandle, now: float) -> None:
        self.number = number
        self.index = index
        self.job = job
        self.zygote = zygote
        self.pidfd = -1
        self.exit: ExitReport | None = None
        self.exceeded: tuple[str, float, float] | None = None
        self.starved = False  # most of the time that it went over a limit on time with
        self.killed = False
        self.requested = now
        self.let_go = 0.0  # when it was told to start; 0 = not yet
        self.last_heard = now
        self.died_at: float | None = None
        self.unattended_seconds = 0.0  # how long it just went without a heartbeat, if long enough to die of it
        self._reader = hostile.FrameReader()
        self._protocol_error: str | None = None
        self._cpu_seconds = 0.0
        self._rss_bytes = 0
        self._gpu_bytes = 0
        self._private_at_start = 0
        self._cpu_at_start = 0.0  # of a process that was not forked: its imports are no part of the job
        self._cpu_at_sign = (0.0, 0.0)  # its last sign of life, and the processor time that was found next
        self._pid = 0
        self._wall_seconds = 0.0
        with contextlib.ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()

    def _open(self, stack: contextlib.ExitStack) -> None:
        def own(fd: int) -> int:
            stack.callback(os.close, fd)
            return fd

        with contextlib.ExitStack() as theirs:

            def lend(fd: int) -> int:
                theirs.callback(os.close, fd)
                return fd

            go_read, self._go = os.pipe()
            lend(go_read)
            stack.callback(self._close_go)
            self.events, events_write = os.pipe()
            stack.callback(self.close_events)
            lend(events_write)
            os.set_blocking(self.events, False)
            self._errors = own(descriptors.error_file(WORKER_ERROR_BYTES))
            inputs = [lend(descriptors.open_input(path)) for path in self.job.inputs.values()]
            self._outputs = {name: own(descriptors.output_file()) for name in self.job.outputs}
            write_only = [lend(descriptors.write_only(fd)) for fd in self._outputs.values()]
            payload = lend(descriptors.payload_file(self._payload()))
            handed = [go_read, payload, events_write, self._errors, *inputs, *write_only]
            self.zygote.send(self._request(), handed)

    def _payload(self) -> dict[str, Any]:
        """The job's payload; a CUDA worker is told its limit too, for its own allocator to refuse what is above."""
        share = {"gpu_memory_bytes": gpu.allocator_bytes(self.job.limits.gpu_memory_bytes)}
        return self.job.payload | share if self._on_gpu else self.job.payload

    @property
    def _on_gpu(self) -> bool:
        return self.zygote.spec.device == "cuda"

    @property
    def gpu_process(self) -> int | None:
        """Its process id while it may hold a GPU."""
        return self._pid if self._on_gpu and self.let_go and self.died_at is None else None

    def _request(self) -> dict[str, Any]:
        limits = self.job.limits
        return {"number": self.number, "entry": self.job.entry, "inputs": list(self.job.inputs),
                "outputs": list(self.job.outputs), "cpu_seconds": limits.cpu_seconds,
                "memory_bytes": limits.memory_bytes, "output_bytes": limits.output_bytes}  # fmt: skip

    def start(self, pidfd: int, now: float) -> None:
        """Take the worker's pidfd and let it go: only now can it be killed, so only now may it run."""
        self.pidfd = pidfd
        self._stack.callback(os.close, pidfd)
        if self.killed:
            self.kill()
            return
        self._pid = metering.process_id(pidfd)
        self._private_at_start = metering.private_bytes(self._pid)
        self._cpu_at_start, _ = metering.cpu_and_resident(self._pid)
        self.let_go = self.last_heard = now
        self._cpu_at_sign = (now, self._cpu_at_start)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"g")
        self._close_go()

    def _close_go(self) -> None:
        if self._go >= 0:
            os.close(self._go)
        self._go = -1

    def close_events(self) -> None:
        """Stop listening."""
        if self.events >= 0:
            os.close(self.events)
        self.events = -1

    def kill(self) -> None:
        """End it now, or as soon as its pidfd arrives."""
        self.killed = True
        self._close_go()
        if self.pidfd >= 0:
            metering.kill(self.pidfd)

    def exceed(self, limit: str, value: float, bound: float) -> None:
        """Record that a limit was passed, and kill."""
        if self.exceeded is None:
            self.exceeded = (limit, value, bound)
        self.kill()

    def take_event(self) -> dict[str, Any] | None:
        """Return the last event of the worker, cleaned, if it was not taken yet."""
        event, self._reader.event = self._reader.event, None
        return event

    def listen(self, now: float) -> bool:
        """Read what the worker wrote, a bounded amount; a broken protocol kills it. True if anything came."""
        taken = 0
        while self.events >= 0 and taken < READ_BYTES:
            try:
                data = os.read(self.events, 65536)
            except BlockingIOError:
                break
            if not data:
                self.close_events()
                break
            taken += len(data)
            try:
                if self._reader.feed(data):
                    self.last_heard = now
            except hostile.ProtocolError as error:
                self._protocol_error = str(error)
                self.close_events()
                self.kill()
            if self._reader.event_bytes > hostile.TOTAL_EVENT_BYTES:
                self.exceed("event_bytes", self._reader.event_bytes, hostile.TOTAL_EVENT_BYTES)
                self.close_events()
        return taken > 0

    def measure(self, now: float, on_gpu: Mapping[int, int]) -> None:
        """Compare what it uses with its limits, from outside; an overrun kills it.

        Args:
            now: the time.
            on_gpu: bytes of GPU memory by process id.
        """
        limits = self.job.limits
        if not self.let_go or self.killed or self.died_at is not None:
            return
        cpu, resident = metering.cpu_and_resident(self._pid)
        self._cpu_seconds, self._rss_bytes = max(self._cpu_seconds, cpu), max(self._rss_bytes, resident)
        self._wall_seconds, self._gpu_bytes = now - self.let_go, max(self._gpu_bytes, on_gpu.get(self._pid, 0))
        written = sum(os.fstat(fd).st_size for fd in self._outputs.values())
        if self.last_heard > self._cpu_at_sign[0]:
            self._cpu_at_sign = (self.last_heard, self._cpu_seconds)
        for name, value, bound in (
            ("wall_seconds", now - self.let_go, limits.wall_seconds),
            ("cpu_seconds", self._cpu_seconds - self._cpu_at_start, limits.cpu_seconds),
            ("memory_bytes", self._added_bytes(), limits.memory_bytes),
            ("gpu_memory_bytes", self._gpu_bytes, limits.gpu_memory_bytes),
            ("output_bytes", written, limits.output_bytes),
            ("silence_seconds", now - self.last_heard, limits.silence_seconds),
        ):
            if value > bound and not metering.is_dead(self.pidfd):
                before = {"wall_seconds": self._cpu_at_start, "silence_seconds": self._cpu_at_sign[1]}
                self.starved = name in before and self._cpu_seconds - before[name] < STARVED * value
                self.exceed(name, value, bound)
                return

    def _added_bytes(self) -> int:
        """Memory that it has besides what was there when it started.

        Inherited pages count once they are written over. That is asked for only where it could matter.
        """
        private, limit = metering.private_bytes(self._pid), self.job.limits.memory_bytes
        added = max(0, private - self._private_at_start)
        if added <= limit < private and self.zygote.spec.fork:
            return max(added, metering.unshared_bytes(self._pid))
        return added

    def died(self, now: float) -> None:
        """Note the time of death, once."""
        if self.died_at is None:
            self.died_at = now
            self._wall_seconds = now - self.let_go if self.let_go else 0.0

    def end_with_zygote(self) -> None:
        """Take the end of its zygote for its own: it was not forked.

        An outer layer stood between them where their process ids differ: the exit code is that layer's then, and tells
        of a signal as a shell does. A worker's own code says only what it chose.
        """
        code = self.zygote.exit_code
        if self._pid != self.zygote.pid and code - _BY_SIGNAL in signal.valid_signals():
            code = _BY_SIGNAL - code
        self.exit = ExitReport(code, self.zygote.cpu_seconds, self.zygote.max_rss_bytes)

    def adopt(self) -> None:
        """Reap it ourselves if its zygote died first and it became our child."""
        if self.pidfd >= 0 and self.exit is None:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)  # its number is its own until it is reaped
                self._cpu_seconds = max(self._cpu_seconds, metering.cpu_and_resident(self._pid)[0])
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)

    @property
    def usage(self) -> Usage:
        """What it used so far: the larger of what was seen from outside and what the reaper reported."""
        report = self.exit or ExitReport(0)
        return Usage(
            wall_seconds=self._wall_seconds,
            cpu_seconds=max(self._cpu_seconds, report.cpu_seconds),
            max_rss_bytes=max(self._rss_bytes, report.max_rss_bytes),
            gpu_seconds=self._wall_seconds if self._on_gpu else 0.0,
            max_gpu_bytes=self._gpu_bytes,
        )

    def outcome(self, now: float) -> Outcome:
        """Judge a dead worker by what it left behind."""
        while self.listen(now):  # what it said before it died is still in the pipe
            pass
        usage, limits = self.usage, self.job.limits
        if self.exceeded is not None:
            return Exceeded(*self.exceeded, usage, self.starved)
        if self._protocol_error is not None:
            return Invalid(self._protocol_error, usage)
        if self.exit is None:
            said = hostile.clean_line(self.zygote.errors()[-300:])
            return Crashed(f"its zygote died: {said}" if said else "its zygote died", usage, zygote_died=True)
        written = sum(os.fstat(fd).st_size for fd in self._outputs.values())
        if written > limits.output_bytes:
            return Exceeded("output_bytes", written, limits.output_bytes, usage)
        return self._judge_exit(usage)

    def _judge_exit(self, usage: Usage) -> Outcome:
        assert self.exit is not None
        code = self.exit.code
        if self._reader.failure is not None:
            return self._judge_failure(self._reader.failure, usage)
        used, bound = usage.cpu_seconds - self._cpu_at_start, self.job.limits.cpu_seconds
        if code == -signal.SIGXCPU and used >= bound:  # the kernel sends it seconds later, a worker whenever it likes
            return Exceeded("cpu_seconds", used, bound, usage)
        if code == -signal.SIGKILL and not self.killed and self.unattended_seconds:
            silence = f"the supervisor was silent for {self.unattended_seconds:.1f} s"
            return Crashed(f"{silence}, and nothing runs without its heartbeat", usage, killed=True, unattended=True)
        if code != 0:
            return Crashed(self._cause_of_death(code), usage, killed=code == -signal.SIGKILL and not self.killed)
        if self._reader.result is None:
            return Invalid("it ended without a result", usage)
        outputs = {name: os.pread(fd, os.fstat(fd).st_size, 0) for name, fd in self._outputs.items()}
        return Completed(self._reader.result, outputs, usage)

    def _judge_failure(self, failure: dict[str, Any], usage: Usage) -> Outcome:
        kind, message = (hostile.clean_line(str(failure.get(key, ""))) for key in ("type", "message"))
        code, limits = failure.get("errno"), self.job.limits
        if self._on_gpu and (kind == _GPU_MEMORY_ERROR or _GPU_MEMORY_WORDS in message):
            bound = limits.gpu_memory_bytes
            return Exceeded("gpu_memory_bytes", max(bound, usage.max_gpu_bytes), bound, usage)
        if kind in _MEMORY_ERRORS or code == errno.ENOMEM or any(words in message for words in _ALLOCATOR_WORDS):
            used = max(limits.memory_bytes, usage.max_rss_bytes)  # how much it asked for, nobody knows
            return Exceeded("memory_bytes", used, limits.memory_bytes, usage)
        if code == errno.EFBIG:
            return Exceeded("output_bytes", limits.output_bytes, limits.output_bytes, usage)
        prop = hostile.clean_line(str(failure.get("property") or ""))
        return Crashed(f"{kind}: {message}" if message else kind, usage, lost_property=prop)

    def _cause_of_death(self, code: int) -> str:
        how = f"exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                how = f"killed by {signal.Signals(-code).name}"
        last_words = hostile.clean_line(descriptors.read_errors(self._errors)[-300:])
        return f"{how}: {last_words}" if last_words else how

    def close(self) -> None:
        """Release every descriptor. The process must be dead."""
        self._stack.close()
