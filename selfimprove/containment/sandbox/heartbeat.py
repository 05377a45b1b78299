"""The dead-man's switch, from inside: without a heartbeat of the supervisor nothing trains.

The supervisor writes a byte into a pipe every now and then, from the same loop that meters its workers: one that is
stopped, or hangs, writes none. The other end belongs to the zygote; a worker closes it before it sees its job, so that
it can neither hear nor fake a beat.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable

from selfimprove.containment.sandbox import process


class Heart:
    """The zygote's end of the pipe.

    Args:
        fd: the read end.
        seconds: how long it may be silent while somebody works.
        clock: seconds that only grow.
    """

    def __init__(self, fd: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._seconds = seconds
        self._clock = clock
        self._heard = clock()

    @property
    def patience(self) -> float:
        """Seconds that are left until those who work must be dead; zero or below: now."""
        return self._heard + self._seconds - self._clock()

    def note(self) -> None:
        """The supervisor gave a sign of life."""
        self._heard = self._clock()

    def listen(self) -> bool:
        """Take in the beats that arrived; False if the supervisor is gone."""
        try:
            while data := os.read(self.fd, 4096):
                self.note()
        except BlockingIOError:
            return True
        return bool(data)


def post_guard(heart: Heart) -> None:
    """Fork a process that listens to the heart in this one's place, and kills this one when it stops.

    For a process that is to be a worker itself, and so cannot be trusted to end itself. Silence counts from the first
    beat on: before that, nothing has been asked of it.
    """
    ward = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        try:
            process.close_descriptors({heart.fd, ward})
            _listen_for(ward, heart)
        finally:  # whatever happened to the guard, its ward does not go on without one
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(ward, signal.SIGKILL)
            os._exit(0)
    os.close(ward)
    os.close(heart.fd)


def _listen_for(ward: int, heart: Heart) -> None:
    """Return when the ward is dead, or must be."""
    poll, armed = select.poll(), False
    poll.register(heart.fd, select.POLLIN)
    poll.register(ward, select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll(max(0.0, heart.patience) * 1000 if armed else None)]
        if ward in ready or (heart.fd in ready and not heart.listen()):
            return
        armed = armed or heart.fd in ready
        if armed and heart.patience <= 0:
            return
