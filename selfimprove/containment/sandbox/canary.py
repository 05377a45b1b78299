"""The canary: a worker's job that tries to break out, one property after another, and reports what happened.

It runs exactly where a candidate's training step would, through the same zygote and the same lock-down. Every attempt
is harmless if it succeeds: it opens a socket without sending, signals with signal 0, forks a child that ends at once.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from selfimprove.containment.sandbox import process


def warm_up() -> None:
    """Nothing to warm."""


def run(
    job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Try every attempt; returns ``held`` and ``escaped``, each property with the refusal or the way out.

    A job with an ``overrun`` tries that alone.
    """
    if "overrun" in job:
        return _overrun(job, emit)
    held: dict[str, str] = {}
    escaped: dict[str, str] = {}
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("network", _any_socket),
        ("network", _call_by_name),
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
        *([("memory", lambda: _allocate(job["memory_bytes"]))] if job["memory_bytes"] else []),
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


def _call_by_name() -> None:
    """Through the one kind of socket that a GPU worker may make: it may be named, and not called."""
    name = f"\0canary-{os.urandom(8).hex()}"  # one that nobody holds: else it would look refused
    kind = socket.SOCK_SEQPACKET
    with socket.socket(socket.AF_UNIX, kind) as listener, socket.socket(socket.AF_UNIX, kind) as caller:
        listener.bind(name)
        listener.listen(1)
        caller.connect(name)


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


def _allocate(size: int) -> None:
    mmap.mmap(-1, size * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def _overrun(job: dict[str, Any], emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Go over a limit that nothing refuses and only the supervisor watches. To come back is to have escaped."""
    taken, problem = None, ""
    try:
        taken = _TAKE[job["overrun"]](job["bytes"])
    except (OSError, MemoryError, AttributeError) as error:
        problem = f": {error}"[:200]
    deadline = time.monotonic() + job["patience_seconds"]
    while time.monotonic() < deadline:
        emit({"overrun": job["overrun"]})
        time.sleep(0.05)
    del taken
    return {"held": {}, "escaped": {"memory": f"nothing ended it over {job['overrun']}{problem}"}}


def _fill_memory(size: int) -> object:
    return bytearray(b"x") * size


def _fill_gpu(size: int) -> object:
    """Take GPU memory from the driver itself, past every library with a limit of its own."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    for call, arguments in (
        (cuda.cuInit, (ctypes.c_uint(0),)),
        (cuda.cuDeviceGet, (ctypes.byref(device), ctypes.c_int(0))),
        (cuda.cuDevicePrimaryCtxRetain, (ctypes.byref(context), device)),
        (cuda.cuCtxSetCurrent, (context,)),
        (cuda.cuMemAlloc_v2, (ctypes.byref(pointer), ctypes.c_size_t(size))),
    ):
        if code := call(*arguments):
            raise OSError(f"{call.__name__} gave CUDA error {code}")
    return cuda


_TAKE: dict[str, Callable[[int], object]] = {"memory_bytes": _fill_memory, "gpu_memory_bytes": _fill_gpu}


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
