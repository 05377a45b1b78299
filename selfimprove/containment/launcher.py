"""The supervisor's end of a zygote: start it with nothing to inherit, talk to it, end it."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, final

import selfimprove
from selfimprove.containment import descriptors, hostile, metering
from selfimprove.containment.sandbox import wire
from selfimprove.containment.sandbox.backend import ZygoteSpec

ERROR_BYTES = 64 * 1024
LAST_WORD_SECONDS = 1.0  # how long what stands above a dead worker may take to say how that ended

Command = Callable[[Sequence[str]], list[str]]  # a zygote's arguments -> the command line that starts it


class Stage(Enum):
    """Where a zygote is in its life."""

    WARMING = "warming up"
    PROVING = "running the canary"
    SERVING = "serving"
    WORKING = "being its own one worker"
    DEAD = "dead"


def environment(spec: ZygoteSpec, visible_devices: str | None) -> dict[str, str]:
    """Return a zygote's whole environment: nothing of ours is inherited but the choice of GPUs."""
    values = {
        "PATH": "/nonexistent",  # no program can be started: where ctypes finds a compiler, it makes a file to call it
        "HOME": "/nonexistent",
        "USER": "worker",
        "LOGNAME": "worker",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "JOBLIB_MULTIPROCESSING": "0",  # joblib probes for semaphores in /dev/shm
        "TORCHINDUCTOR_CACHE_DIR": "/",  # made on import unless it exists; nothing is ever written there
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator starts a thread as it is imported
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "WANDB_MODE": "disabled",
    }
    # One thread per worker: a forked child has no other threads, and two on a busy core cost more than they give.
    values |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
    root = Path(next(iter(selfimprove.__path__))).parent
    if os.fspath(root) not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        values["PYTHONPATH"] = os.fspath(root)
    if spec.device == "cuda" and visible_devices is not None:
        values["CUDA_VISIBLE_DEVICES"] = visible_devices
    return values


@final
class ZygoteHandle:
    """A live zygote. Start it from the main thread only: its parent-death signal follows the starting thread.

    An outer layer may stand above it; ``pid`` and ``pidfd`` are then the outermost process, and whoever kills that one
    kills them all.
    """

    def __init__(self, name: str, spec: ZygoteSpec, command: Command, started: float, heartbeat_seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a zygote must be started from the main thread")
        self.name = name
        self.spec = spec
        self.started = started
        self.stage = Stage.WARMING
        self.workers = 0  # served now
        self.exit_code = 0  # or minus the number of the signal that ended it
        self.cpu_seconds = 0.0
        self.max_rss_bytes = 0
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = descriptors.error_file(ERROR_BYTES)
        heart, self._pulse = os.pipe()
        os.set_blocking(self._pulse, False)  # one that does not listen must not hold its supervisor up
        try:
            self._process = self._spawn(command, theirs, heart, heartbeat_seconds)
        except BaseException:
            self._control.close()
            os.close(self._errors)
            os.close(self._pulse)
            raise
        finally:
            theirs.close()
            os.close(heart)
        self.pidfd = os.pidfd_open(self._process.pid)

    def _spawn(
        self, command: Command, control: socket.socket, heart: int, heartbeat_seconds: float
    ) -> subprocess.Popen[bytes]:
        arguments = ["--control", str(control.fileno()), "--parent", str(os.getpid())]
        arguments += ["--heart", str(heart), "--heartbeat", str(heartbeat_seconds)]
        arguments += [argument for entry in self.spec.entries for argument in ("--entry", entry)]
        arguments += [argument for path in self.spec.path for argument in ("--path", os.fspath(path.resolve()))]
        arguments += [argument for path in self.spec.search for argument in ("--search", os.fspath(path.resolve()))]
        arguments += ["--cuda"] if self.spec.device == "cuda" else []
        arguments += [] if self.spec.fork else ["--once"]
        return subprocess.Popen(
            command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            env=environment(self.spec, os.environ.get("CUDA_VISIBLE_DEVICES")),
            cwd="/",
            pass_fds=(control.fileno(), heart),
            start_new_session=True,  # the terminal's Ctrl-C is for the supervisor alone
        )

    @property
    def pid(self) -> int:
        """The process id of the zygote, or of the outermost process above it; also that of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it was found dead."""
        return self.stage is not Stage.DEAD

    def fileno(self) -> int:
        """Return the control socket's descriptor, for polling."""
        return self._control.fileno()

    def send(self, message: dict[str, Any], handed: Sequence[int]) -> None:
        """Send a message with descriptors. A zygote that is gone is noticed by ``receive``."""
        with contextlib.suppress(ConnectionError):
            wire.send(self._control, message, handed)

    def has_spoken(self) -> bool:
        """True if ``receive`` has something to return at once, be it the end of the stream."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return one message and its descriptors, None if the zygote is gone or breaks the protocol."""
        handed: list[int] = []
        try:
            data, handed = wire.receive(self._control, 1)
            if data:
                return hostile.parse_object(data, wire.CONTROL_BYTES), handed
        except (OSError, hostile.ProtocolError):
            pass
        for fd in handed:
            os.close(fd)
        return None

    def beat(self) -> None:
        """Give a sign of life, which its workers depend on."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pulse, b".")

    def errors(self) -> str:
        """Return the end of what it wrote to standard error."""
        return descriptors.read_errors(self._errors)

    def kill(self) -> None:
        """Send SIGKILL; its workers follow by their parent-death signal."""
        metering.kill(self.pidfd)

    def bury(self) -> None:
        """Kill, reap, and record how it ended. Safe to call twice; descriptors stay until ``close``."""
        if self.stage is Stage.DEAD:
            return
        if not self.spec.fork and self.workers:  # it was the worker: what an outer layer put above it says how it ended
            metering.is_dead(self.pidfd, LAST_WORD_SECONDS)
        self.kill()
        os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                self._reap(*os.wait4(-self.pid, 0))
        self.stage = Stage.DEAD

    def _reap(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """Account for one process of its group: itself, its guard, orphans of either, an outer layer's."""
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        self.max_rss_bytes = max(self.max_rss_bytes, usage.ru_maxrss * 1024)
        if pid == self.pid:
            self._process.returncode = self.exit_code = os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Bury it and release its descriptors."""
        self.bury()
        self._control.close()
        for fd in (self.pidfd, self._errors, self._pulse):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._errors = self._pulse = -1
