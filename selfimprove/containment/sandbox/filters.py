"""The two filters of the lock-down: what a warming zygote may call, and what a worker may call.

Both are allow-lists. A worker computes: it reads files that Landlock lets it open, writes to descriptors it was given,
manages its own memory, and ends. Nothing else.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket

from selfimprove.containment.sandbox.seccomp import Condition, Filter


def _calls(names: str) -> frozenset[str]:
    return frozenset(names.split())


_COMPUTE = _calls(
    """
    read write close fstat lseek pread64 pwrite64 readv writev preadv pwritev preadv2 pwritev2 fsync fdatasync ftruncate
    mmap mprotect munmap brk mremap msync mincore madvise mseal
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
    restart_syscall
    dup dup2 dup3 close_range getdents getdents64 getcwd readlink readlinkat stat lstat newfstatat statx statfs fstatfs
    access faccessat faccessat2 fadvise64 readahead umask
    nanosleep clock_nanosleep gettimeofday clock_gettime clock_getres time times getrusage sysinfo uname getrlimit
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid capget
    getpriority sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_yield getcpu get_mempolicy arch_prctl futex futex_wait futex_wake futex_waitv set_tid_address set_robust_list
    rseq membarrier getrandom select pselect6 poll ppoll exit exit_group
    """
)

# Libraries try the newer call first and fall back only on ENOSYS; a filter cannot look into the structures they take.
_ABSENT = {"clone3": errno.ENOSYS, "openat2": errno.ENOSYS}

_SERVE = _calls(
    """
    wait4 waitid sendmsg recvmsg pidfd_open pidfd_send_signal seccomp landlock_create_ruleset landlock_add_rule
    landlock_restrict_self capset setrlimit prctl tgkill openat open
    """
)

_CUDA = _calls(
    """
    openat open pipe2 eventfd2 epoll_create1 epoll_ctl epoll_wait epoll_pwait mlock munlock mbind set_mempolicy
    memfd_create bind listen
    """
)

# The driver holds a listening socket with an abstract name, by which processes that share GPU memory find each other;
# without it cuInit gives error 304. Nothing can be said through it: connecting, accepting and sending stay refused.
# First it removes the name from the file system, where an abstract one is not, and gives up unless it is told so.
_CUDA_SOCKET = (
    Condition(0, equals=(socket.AF_UNIX,)),
    Condition(1, equals=(socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC,)),
)

# A filter cannot see which file an ioctl is for, only its type: those of the driver (gVisor's nvproxy needs no others)
# and of descriptors in general. Others reach any file that may be read: its attributes, its owner, its file system.
_IOCTL_TYPE = 0xFF00
_CUDA_IOCTLS = Condition(1, mask=_IOCTL_TYPE, equals=(0x0000, ord("F") << 8, ord("T") << 8))
_OWN_PROCESSORS = Condition(0, equals=(0,))
_CUDA_CONDITIONS = {"ioctl": (_CUDA_IOCTLS,), "sched_setaffinity": (_OWN_PROCESSORS,), "socket": _CUDA_SOCKET}

_CUDA_ABSENT = {"unlink": errno.ENOENT, "unlinkat": errno.ENOENT}

_O_TMPFILE_BIT = 0o20000000
_MAP_HUGETLB = 0x40000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | _O_TMPFILE_BIT

_CLONE_NEW = 0x7E020080  # every CLONE_NEW* bit: namespaces
_CLONE_THREAD = 0x00010000

# An outer layer reports a signal as an exit code from 129 on, as a shell does: a worker's own must not read as one.
_EXIT_CODE = (Condition(0, without=0x80),)
_LEAVING = {"exit": _EXIT_CODE, "exit_group": _EXIT_CODE}

_IOCTL_TERMINAL_SIZE_AND_MODE = (0x5401, 0x5413)  # TCGETS and TIOCGWINSZ: isatty() and friends
_IOCTL_DESCRIPTOR = (0x5451, 0x5450, 0x541B)  # FIOCLEX, FIONCLEX, FIONREAD
# DUPFD, GETFD, SETFD, GETFL, SETFL, GETLK, DUPFD_CLOEXEC, GETPIPE_SZ, GET_SEALS
_FCNTL = (0, 1, 2, 3, 4, 5, 1030, 1032, 1034)
# PDEATHSIG (get), GET_DUMPABLE, SET/GET_NAME, GET_SECCOMP, CAPBSET_READ, GET_TIMERSLACK, GET_NO_NEW_PRIVS, SET_VMA
_PRCTL = (2, 3, 15, 16, 21, 23, 30, 39, 0x53564D41)

_COMMON_CONDITIONS: dict[str, tuple[Condition, ...]] = {
    "ioctl": (Condition(1, equals=_IOCTL_TERMINAL_SIZE_AND_MODE + _IOCTL_DESCRIPTOR),),
    "fcntl": (Condition(1, equals=_FCNTL),),
}
_READING: dict[str, tuple[Condition, ...]] = {
    "openat": (Condition(2, without=_WRITING),),
    "open": (Condition(1, without=_WRITING),),
}


def zygote_filter(*, cuda: bool = False, writing: bool = True) -> Filter:
    """Return the filter of a zygote: it imports, forks, passes descriptors to its supervisor, kills, and reaps.

    Args:
        cuda: the process becomes a worker itself, under both filters: also what the CUDA driver needs.
        writing: leave it to Landlock what may be opened for writing: ``/dev/null`` alone, which some imports open.
    """
    conditions = {
        **_COMMON_CONDITIONS,
        **({} if writing else _READING),
        "clone": (Condition(0, without=_CLONE_NEW),),
        "prlimit64": (Condition(0, equals=(0,)),),
    }
    allow, answers = _COMPUTE | _SERVE, _ABSENT
    if cuda:
        conditions |= _CUDA_CONDITIONS
        allow, answers = allow | _CUDA, answers | _CUDA_ABSENT
    return Filter(allow=allow, conditions=conditions, answers=answers)


def worker_filter(pid: int, *, cuda: bool) -> Filter:
    """Return the filter of a worker: computing on descriptors that it already has, and reading.

    Shared pages that a process lets go of (MADV_DONTNEED) stay allocated and are in nobody's meter, so it gets none.
    A worker that is found killed (SIGKILL) was killed by somebody else: it can neither do that itself nor end with an
    exit code that says so.

    Args:
        pid: the worker's process id, the only one that it may signal.
        cuda: also what the CUDA driver needs: threads, device control, memory with a descriptor, a socket that only
            has a name, and opening devices for writing (which paths, Landlock decides).
    """
    conditions = {
        **_COMMON_CONDITIONS,
        **_READING,
        **_LEAVING,
        "prctl": (Condition(0, equals=_PRCTL),),
        "prlimit64": (Condition(0, equals=(0, pid)), Condition(2, null=True)),
        "tgkill": (Condition(0, equals=(pid,)), Condition(2, differs=(signal.SIGKILL,))),
        "mmap": (Condition(3, without=mmap.MAP_SHARED | _MAP_HUGETLB),),
    }
    allow, answers = _COMPUTE, _ABSENT
    if cuda:
        for name in (*_READING, "mmap"):
            del conditions[name]
        conditions["clone"] = (Condition(0, without=_CLONE_NEW), Condition(0, required=_CLONE_THREAD))
        conditions |= _CUDA_CONDITIONS
        allow, answers = allow | _CUDA, answers | _CUDA_ABSENT
    return Filter(allow=allow, conditions=conditions, answers=answers)
