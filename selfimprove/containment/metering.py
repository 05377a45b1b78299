"""What a process uses, read from outside. A process that is gone reads as zero, never as an error."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
from pathlib import Path

_PAGES = (b"RssAnon:", b"RssShmem:", b"VmSwap:", b"VmPTE:", b"HugetlbPages:")
_TICKS = os.sysconf("SC_CLK_TCK")


def is_dead(pidfd: int, seconds: float = 0.0) -> bool:
    """True if the process behind a pidfd has ended (it may not be reaped yet), or does so within some seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def kill(pidfd: int) -> None:
    """Send SIGKILL to exactly this process, however its number may have been reused."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def process_id(pidfd: int) -> int:
    """Return the process id behind a pidfd, by the kernel's word; raises OSError if it is no pidfd."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise OSError(errno.EBADF, "not a pidfd")


def check_session(pidfd: int, session: int) -> None:
    """Check that the process behind a pidfd is of a session; one that is gone already can do nothing and is let pass.

    Raises:
        OSError: it is of another session, or this is no pidfd.
    """
    with contextlib.suppress(ProcessLookupError):
        pid = process_id(pidfd)
        if pid > 0 and os.getsid(pid) != session:
            raise OSError(errno.EPERM, f"a process of session {os.getsid(pid)}, not of {session}")


def cpu_and_resident(pid: int) -> tuple[float, int]:
    """Return (user and system time in seconds, resident bytes)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0.0, 0


def private_bytes(pid: int) -> int:
    """Return a process's anonymous and shared-memory pages, swapped-out ones and page tables, in bytes.

    Pages that it shares with the process that forked it are among them, written over or not. Not covered: mapped files;
    shared memory that is allocated and not mapped at the moment.
    """
    return _bytes_in(f"/proc/{pid}/status", _PAGES)


def unshared_bytes(pid: int) -> int:
    """Return the bytes of written pages that no other process maps: also what was inherited, once it is written over.

    Not covered: swapped-out pages. The kernel walks all page tables for this, 10 ms for a warm process.
    """
    return _bytes_in(f"/proc/{pid}/smaps_rollup", (b"Private_Dirty:",))


def _bytes_in(path: str, names: tuple[bytes, ...]) -> int:
    """The sum of some lines of a file of the kernel's that counts in kibibytes."""
    try:
        lines = Path(path).read_bytes().splitlines()  # a worker's name need not be text
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
