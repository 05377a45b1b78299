"""Signals: the first Ctrl-C asks the loop to finish its step, the second stops at once, SIGUSR1 is the kill switch."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from selfimprove.app import folder

STOPPING = "Stopping after the current step; what is finished is kept. Press Ctrl-C again to stop at once."
EXIT_HALTED = 4
ONE_STOP = 1.0  # seconds
_SECOND = b"\nStopping now; workers are being killed.\n"


class StopSignals:
    """Context manager that turns SIGINT and SIGTERM into a flag that the loop polls.

    First signal: :meth:`requested` becomes true. Second: ``KeyboardInterrupt``, on whose way out the supervisor kills
    its workers. Third: the process ends without further ado; the kernel kills the workers (parent-death signal).
    A SIGTERM within ``ONE_STOP`` of the first signal is the same stop told twice: make, as other programs that
    start programs do, passes on what a scheduler sends to all of them.
    SIGUSR1 halts the run as ``selfimprove halt`` does. Outside the main thread nothing is installed.

    Args:
        run_dir: the run that SIGUSR1 halts.
        announce: say so on standard error at the first signal; not where a live display shows ``STOPPING`` itself.
    """

    def __init__(self, run_dir: Path, *, announce: bool = True) -> None:
        self._run_dir = run_dir
        self._announce = announce
        self._count, self._first = 0, 0.0
        self._previous: dict[int, object] = {}

    def requested(self) -> bool:
        """Whether a person asked the run to stop."""
        return self._count > 0

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._halt)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._count == 1 and number == signal.SIGTERM and now - self._first < ONE_STOP:
            return
        self._count += 1
        if self._count == 1:
            self._first = now
            if self._announce:
                _say(f"\n{STOPPING}\n".encode())
        elif self._count == 2:
            _say(_SECOND)
            raise KeyboardInterrupt
        else:
            os._exit(130)

    def _halt(self, number: int, frame: FrameType | None) -> None:
        try:
            folder.write_halt(self._run_dir, "halted by SIGUSR1")
        except OSError:  # a full disk must not keep the workers alive
            os._exit(EXIT_HALTED)


def _say(text: bytes) -> None:
    """By the descriptor: the interrupted code may hold the lock of a buffered stream, or of the live display.

    Whoever read it may be gone, as ``tee`` is where all of a pipeline are told to stop.
    """
    with suppress(OSError):
        os.write(2, text)
