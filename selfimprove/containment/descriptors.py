"""The descriptors that a worker is handed: files in memory of bounded size, and inputs that are regular files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

from selfimprove.containment import hostile

_SEAL_SIZE = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def error_file(size: int) -> int:
    """Return an in-memory file of fixed size for a process's standard error: what does not fit is refused."""
    fd = os.memfd_create("errors", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL_SIZE | fcntl.F_SEAL_SEAL)
    return fd


def read_errors(fd: int, limit: int = 2000) -> str:
    """Return the last text written to an ``error_file``, safe to print."""
    text = os.pread(fd, os.fstat(fd).st_size, 0).rstrip(b"\0").decode(errors="replace")
    return hostile.clean(text[-limit:], limit).strip()


def payload_file(payload: dict[str, Any]) -> int:
    """Return a sealed in-memory file with a job's JSON; raises ValueError if it is not JSON."""
    data = json.dumps(payload, allow_nan=False).encode()
    fd = os.memfd_create("payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEAL_SIZE | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def output_file() -> int:
    """Return an in-memory file for one output of a worker; the supervisor's end."""
    return os.memfd_create("output", os.MFD_CLOEXEC)


def write_only(fd: int) -> int:
    """Return a second, write-only descriptor of an in-memory file: the worker's end."""
    return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)


def open_input(path: Path) -> int:
    """Open a regular file for reading; raises OSError for anything else, links included."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "an input must be a regular file", os.fspath(path))
    return fd
