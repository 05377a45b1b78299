"""The canary: a worker's job that tries to break out, one property after another, and reports what happened.

It runs exactly where a candidate's training step would, through the same zygote and the same lock-down. Every attempt
is harmless if it succeeds: it opens a socket without sending, signals with signal 0, forks a child that ends at once.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

from selfimprove.containment.sandbox import process


class Escaped(Exception):
    """An attempt that should have been refused went through."""


def warm_up() -> None:
    """Nothing to warm."""


def run(
    job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Try every attempt; returns ``held`` and ``escaped``, each property with the refusal or the way out."""
    held: dict[str, str] = {}
    escaped: dict[str, str] = {}
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("network", lambda: _any_socket()),
        ("write", lambda: _create(job["new_file"])),
        ("write", lambda: os.open(job["secret"], os.O_WRONLY)),
        ("write", lambda: _make_folder(job["new_file"])),
        ("write", lambda: _rename(job["secret"], job["new_file"])),
        ("write", lambda: os.chmod(job["secret"], 0o600)),
        ("read", lambda: os.open(job["secret"], os.O_RDONLY)),
        ("read", lambda: os.open("/etc/passwd", os.O_RDONLY)),
        ("read", lambda: os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY)),
        ("signal", lambda: os.kill(os.getppid(), 0)),
        ("signal", lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)),
        ("parent_death", _forget_parent),
        ("cpu", _raise_cpu_limit),
        ("memory", lambda: _allocate(job["memory_bytes"])),
        ("disk", lambda: _write_beyond(outputs["disk"], job["file_bytes"] * 4)),
        ("exec", _fork),
        ("exec", lambda: _become_another_program(escaped)),
    ]
    for prop, attempt in attempts:
        emit({"attempt": prop})
        try:
            attempt()
        except (OSError, MemoryError, ValueError, OverflowError) as error:
            held.setdefault(prop, type(error).__name__)
        else:
            escaped[prop] = "an attempt went through"
    return {"held": {prop: how for prop, how in held.items() if prop not in escaped}, "escaped": escaped}


def _any_socket() -> None:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            return
    raise PermissionError("every socket was refused")


def _create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    os.unlink(path)


def _make_folder(path: str) -> None:
    os.mkdir(path)
    os.rmdir(path)


def _rename(path: str, other: str) -> None:
    os.rename(path, other)
    os.rename(other, path)


def _write_beyond(fd: int, size: int) -> None:
    os.pwrite(fd, b"x", size)
    os.ftruncate(fd, 0)  # else the supervisor would end the canary before it can report


def _forget_parent() -> None:
    if process.death_signal() != signal.SIGKILL:
        return
    process.prctl(process.PR_SET_PDEATHSIG, 0)


def _raise_cpu_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_CPU, (hard + 1000, hard + 1000))


def _allocate(size: int | None) -> None:
    if size is None:  # CUDA: the driver reserves address space without end, so the supervisor watches what is used
        raise MemoryError
    mmap.mmap(-1, size * 4).close()


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _become_another_program(escaped: dict[str, str]) -> None:
    """The last attempt: where it succeeds, no report comes back. So it is not made if there is something to report."""
    if escaped:
        raise PermissionError("not tried")
    os.execv("/bin/true", ["true"])
