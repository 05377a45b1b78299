"""What the kernel offers a process about itself: prctl, capabilities, descriptors, pidfds. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterable

PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

ORPHANED = 113  # exit code of a process that finds itself alone before it has begun

_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.restype = ctypes.c_int
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
libc.syscall.restype = ctypes.c_long


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """Call ``prctl(2)``; raises OSError with its errno."""
    result: int = libc.prctl(option, a, b, c, d)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
    return result


def become_subreaper() -> None:
    """Adopt orphaned descendants, so that a worker whose zygote died can still be reaped by its supervisor."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Ask for SIGKILL when the parent *thread* that started this process dies, and exit if it is dead already.

    Args:
        parent: the process id that the parent had when it started this process. A different one now means that the
            parent died before the request took effect.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ORPHANED)


def death_signal() -> int:
    """Return the signal that this process gets when its parent dies; 0 if none."""
    value = ctypes.c_int(0)
    prctl(PR_GET_PDEATHSIG, ctypes.addressof(value))
    return value.value


def close_descriptors(keep: Iterable[int]) -> None:
    """Close every descriptor but those in ``keep``."""
    low = 0
    for fd in sorted(set(keep)):
        if low < fd:  # an empty range means "everything" to some versions of close_range(2)'s wrappers
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, os.sysconf("SC_OPEN_MAX"), _highest_descriptor() + 1))


def _highest_descriptor() -> int:
    try:
        return max(map(int, os.listdir("/proc/self/fd")), default=0)
    except OSError:
        return 0


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_capabilities() -> None:
    """Give up every capability, so that running as root adds nothing to what the process may do.

    The user id stays: files are read by ordinary permissions, and limits can no longer be raised.
    """
    for capability in range(64):
        with contextlib.suppress(OSError):  # EPERM as an ordinary user, EINVAL past the last capability
            prctl(PR_CAPBSET_DROP, capability)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


def limit(kind: int, soft: int, hard: int | None = None) -> None:
    """Lower a resource limit; never raises one that is already lower."""
    current_soft, current_hard = resource.getrlimit(kind)
    wanted_hard = _lower(soft if hard is None else hard, current_hard)
    resource.setrlimit(kind, (_lower(_lower(soft, current_soft), wanted_hard), wanted_hard))


def _lower(left: int, right: int) -> int:
    if left == resource.RLIM_INFINITY:
        return right
    return left if right == resource.RLIM_INFINITY else min(left, right)


class OwnSize:
    """Reads this process's size through a descriptor opened before Landlock hides ``/proc``."""

    def __init__(self) -> None:
        self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)

    def address_space_bytes(self) -> int:
        """Return the size of the address space in bytes, as RLIMIT_AS counts it."""
        return self._field(b"VmSize:") * 1024

    def threads(self) -> int:
        """Return how many threads the process has."""
        return self._field(b"Threads:")

    def _field(self, name: bytes) -> int:
        for line in os.pread(self._status, 16384, 0).splitlines():
            if line.startswith(name):
                return int(line.split()[1])
        raise OSError("no such field in /proc/self/status")
