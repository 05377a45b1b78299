"""A worker entry without torch. Each op is one thing that a worker may do to its supervisor."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

Job = dict[str, Any]
Fds = dict[str, int]
Emit = Callable[[dict[str, Any]], None]

_FS_IOC_SETFLAGS, _NO_DUMP = 0x40086602, (0x40).to_bytes(8, sys.byteorder)
_FIOSETOWN = 0x8901


def warm_up() -> None:
    pass


def run(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    return OPS[job["op"]](job, inputs, outputs, emit)


def echo(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    return {"said": job.get("say"), "pid": os.getpid(), "at": time.monotonic()}


def copy(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    for name, fd in outputs.items():
        os.write(fd, os.read(inputs[name], 1000).upper())
    return {}


def sleep(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    deadline = time.monotonic() + job["seconds"]
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if job.get("beat"):
            emit({"alive": True})
    return {"slept": job["seconds"]}


def burn(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    while True:
        if not job.get("quiet"):
            emit({"zygote": os.getppid(), "pid": os.getpid()})
        sum(range(100_000))


def start_like_a_driver(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    """What the CUDA driver does first: name a thread, take memory that has a descriptor, listen.

    Then what a worker must not make of it: to name others' threads, to speak or be spoken to, to leave or remove files,
    to change a file that it may read, to say where others run.
    """
    address = f"\0selfimprove-test-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    attempts: dict[str, Callable[[], object]] = {
        "name": lambda: _write(f"/proc/self/task/{os.getpid()}/comm", "driver"),
        "memory": lambda: os.close(os.memfd_create("driver")),
        "unlink": lambda: os.unlink(""),
        "bind": lambda: listener.bind(address),
        "listen": lambda: listener.listen(1),
        "remove": lambda: os.unlink(job["file"]),
        "other": lambda: _write(f"/proc/{os.getppid()}/comm", "mine"),
        "accept": listener.accept,
        "connect": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(address),
        "send": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).sendmsg([b"x"], [], 0, address),
        "file": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind(job["new_file"]),
        "stream": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
        "internet": lambda: socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET),
        "pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        "attributes": lambda: fcntl.ioctl(inputs["in"], _FS_IOC_SETFLAGS, _NO_DUMP),
        "owner": lambda: fcntl.ioctl(inputs["in"], _FIOSETOWN, os.getpid().to_bytes(4, sys.byteorder)),
        "processors": lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0)),
        "own processors": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = ""
        except OSError as error:
            found[name] = type(error).__name__
    return found


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def fail(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    raise ValueError(job["message"])


def leave(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    os.write(2, job.get("last_words", "").encode())
    os._exit(job["code"])


def allocate(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    held = []
    while True:
        held.append(bytearray(b"x" * (8 * 2**20)))


def reserve(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    mmap.mmap(-1, 2**30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    return {}


def share(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS).close()
    return {}


def kill_itself(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    signal.raise_signal(signal.SIGKILL)
    return {}


def write_much(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    while True:
        os.write(outputs["out"], b"x" * 2**16)


def write_sparse(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    os.ftruncate(outputs["out"], 2**40)
    return {}


def emit_much(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    while True:
        emit({"noise": "x" * 60_000})


def return_much(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    return {"noise": "x" * job["bytes"]}


def raw(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    """Write bytes straight into the event pipe, past the worker's own library."""
    emit_cells = [cell.cell_contents for cell in emit.__closure__ or () if isinstance(cell.cell_contents, int)]
    os.write(emit_cells[0], bytes.fromhex(job["hex"]))
    os._exit(0)


def stop(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    signal.raise_signal(signal.SIGSTOP)
    time.sleep(60)
    return {}


def ignore(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)
    return {}


def signal_self(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    signal.raise_signal(signal.SIGCONT)
    return {"signalled": True}


def fork(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    if os.fork() == 0:
        os._exit(0)
    return {"forked": True}


def core_limit(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    return {"limits": list(resource.getrlimit(resource.RLIMIT_CORE))}


def look(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    """Report what the worker can see of its surroundings."""
    opened = []
    for fd in range(256):
        try:
            os.fstat(fd)
        except OSError:
            continue
        opened.append(fd)
    return {"environment": dict(os.environ), "descriptors": opened, "modules": sorted(sys.modules), "path": sys.path}


def raise_cpu_signal(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    """What the kernel does to a worker that the supervisor did not kill for its processor time."""
    deadline = time.process_time() + job["seconds"]
    while time.process_time() < deadline:
        pass
    signal.raise_signal(signal.SIGXCPU)
    return {}


def talk(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    for _ in range(1024):
        print("x" * 99, file=getattr(sys, job["to"]))
    return {"refused": _refuses(2)}


def _refuses(fd: int) -> bool:
    try:
        os.write(fd, b"x")
    except PermissionError:
        return True
    return False


def tell(job: Job, inputs: Fds, outputs: Fds, emit: Emit) -> dict[str, Any]:
    for event in job["events"]:
        emit(event)
        time.sleep(0.06)
    return {}


OPS: dict[str, Callable[[Job, Fds, Fds, Emit], dict[str, Any]]] = {
    function.__name__: function
    for function in (
        echo, copy, sleep, burn, fail, leave, allocate, reserve, share, write_much, write_sparse, emit_much,
        return_much, raw, stop, kill_itself, ignore, look, tell, signal_self, fork, core_limit,
        start_like_a_driver, talk, raise_cpu_signal,
    )
}  # fmt: skip
