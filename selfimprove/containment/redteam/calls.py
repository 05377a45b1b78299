"""System calls that Python has no function for, by number, on the two architectures that are supported."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from selfimprove.containment.sandbox.process import libc

# name: (x86_64, aarch64); None where the architecture never had the call
NUMBERS: dict[str, tuple[int | None, int]] = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clone3": (435, 435),
    "execveat": (322, 281),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "mlock": (149, 228),
    "mount": (165, 40),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "rt_sigqueueinfo": (129, 138),
    "shmctl": (31, 195),
    "shmget": (29, 194),
    "tgkill": (234, 131),
    "timer_create": (222, 107),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def call(name: str, *arguments: object) -> int:
    """Make a system call; raises OSError with its errno, also where the architecture lacks it."""
    number = NUMBERS[name][platform.machine() == "aarch64"]
    if number is None:
        raise OSError(errno.ENOSYS, name)
    whole = (
        ctypes.c_long(value) if isinstance(value, int) else value for value in arguments
    )  # else 32 bits are passed
    result = int(libc.syscall(ctypes.c_long(number), *whole))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
