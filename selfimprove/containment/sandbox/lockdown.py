"""The lock-down, in the two steps that a worker's life has.

``enter_zygote`` runs before a zygote imports anything; ``enter_worker`` runs in the forked child, before it sees its
job. Each step is one-way. A step that fails raises, and the process must end: there is no half-locked worker.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass

from selfimprove.containment.sandbox import filters, landlock, process, seccomp

ZYGOTE_DESCRIPTORS = 512
WORKER_DESCRIPTORS = 128
CPU_GRACE_SECONDS = 5  # the supervisor kills at the limit; the kernel's own limit stands behind it


class LockdownError(Exception):
    """A step of the lock-down failed; says which property is not enforced."""

    def __init__(self, prop: str, reason: str) -> None:
        self.prop = prop
        super().__init__(f"{prop}: {reason}")


@dataclass(frozen=True)
class Profile:
    """How a process is to be locked down.

    Args:
        files: what it may open by path, in both steps. Found before the first: after it no folder can be listed, and
            a second search would find no device.
        cuda: grant the calls that the CUDA driver makes.
        unenforced: properties that this machine cannot enforce and that the run accepted to lose.
    """

    files: landlock.Access
    cuda: bool = False
    unenforced: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Limits:
    """Kernel-side limits of one worker, behind the supervisor's own: seconds and bytes.

    ``address_space_bytes`` is absolute: what the zygote has mapped, plus what the job may add.
    """

    cpu_seconds: float
    address_space_bytes: int
    file_bytes: int


def enter_zygote(profile: Profile, *, parent: int) -> None:
    """First step, before any import: no network, no programs, no writing, no outliving the supervisor.

    Raises:
        LockdownError: a mechanism failed, and the property that it holds was not given up explicitly.
    """
    _forbid_core_dumps()
    process.limit(resource.RLIMIT_NOFILE, ZYGOTE_DESCRIPTORS)
    process.limit(resource.RLIMIT_MEMLOCK, 0)
    process.limit(resource.RLIMIT_MSGQUEUE, 0)
    _apply(profile, "exec", lambda: process.prctl(process.PR_SET_NO_NEW_PRIVS, 1))
    _apply(profile, "exec", process.drop_capabilities)
    _tie_to(parent)
    _apply(profile, "read", lambda: landlock.restrict(profile.files))
    _apply(profile, "network", lambda: seccomp.install(filters.zygote_filter(cuda=profile.cuda)))


def before_strangers(profile: Profile) -> None:
    """In a zygote, before it imports what is not of our own distribution: without Landlock nothing may be written.

    Raises:
        LockdownError: as in ``enter_zygote``.
    """
    if "read" in profile.unenforced:
        _apply(profile, "write", lambda: seccomp.install(filters.zygote_filter(cuda=profile.cuda, writing=False)))


def enter_worker(profile: Profile, limits: Limits, *, parent: int) -> None:
    """Second step, in the child: only computing, reading libraries, and writing to descriptors it holds.

    Raises:
        LockdownError: as in ``enter_zygote``.
    """
    _tie_to(parent)
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    cpu = int(spent + limits.cpu_seconds) + CPU_GRACE_SECONDS
    process.limit(resource.RLIMIT_CPU, cpu, cpu + 1)
    process.limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    process.limit(resource.RLIMIT_NOFILE, WORKER_DESCRIPTORS)
    if not profile.cuda:  # the CUDA driver reserves address space far beyond what it uses, and starts threads
        process.limit(resource.RLIMIT_AS, limits.address_space_bytes)
        process.limit(resource.RLIMIT_NPROC, 0)
    _apply(profile, "read", lambda: landlock.restrict(profile.files))
    _apply(profile, "network", lambda: seccomp.install(filters.worker_filter(os.getpid(), cuda=profile.cuda)))


def _forbid_core_dumps() -> None:
    """One byte: where the machine pipes core dumps to a program, the kernel ignores a limit of 0, and stops at 1."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    size = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (size, size))


def _tie_to(parent: int) -> None:
    process.die_with_parent(parent)
    if process.death_signal() == 0:
        raise LockdownError("parent_death", "the parent-death signal did not take")


def _apply(profile: Profile, prop: str, step: Callable[[], object]) -> None:
    try:
        step()
    except OSError as error:
        if prop not in profile.unenforced:
            raise LockdownError(prop, str(error)) from error
