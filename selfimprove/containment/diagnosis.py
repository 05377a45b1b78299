"""What this machine can enforce, property by property: proven by a real worker's canary, never by a version number."""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from selfimprove.containment import gpu
from selfimprove.containment.proof import ContainmentBroken
from selfimprove.containment.sandbox import landlock, process, seccomp, syscalls
from selfimprove.containment.sandbox.backend import INDISPENSABLE, PROPERTIES, LockdownBackend, ZygoteSpec
from selfimprove.containment.sandbox.layers import with_outer_layer
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import RunError, SandboxUnavailable

State = Literal["held", "lost", "unproven"]

_ROLE: Final = "doctor"
_LANDLOCK_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION


@dataclass(frozen=True)
class Finding:
    """One property on this machine.

    Args:
        state: ``held``: a worker tried to get around it and was refused. ``lost``: nothing enforces it here, or a
            worker got around it. ``unproven``: there is a mechanism, but no worker could be started to try it.
        mechanism: what enforces it, None where nothing does.
        proof: the refusal that the canary met; None where it met none, or could not try.
        problem: why it is not held; empty where it is.
        remedy: what to install or change; empty where it is held.
    """

    state: State
    mechanism: str | None
    proof: str | None
    problem: str = ""
    remedy: str = ""


def diagnose(device: str = "cpu") -> dict[str, Finding]:
    """Contain a worker as a run would, outer layer included, and let its canary attack; what each property met.

    Properties without a mechanism do not keep the others from being proven, as long as a worker could be started
    without them at all.

    Args:
        device: ``cpu``, or ``cuda`` for the wider profile of a GPU worker.
    """
    mechanisms = with_outer_layer(LockdownBackend(device=device)).probe()
    absent = {prop: _absence(prop, device) for prop, mechanism in mechanisms.items() if mechanism is None}
    blocking = sorted(INDISPENSABLE & set(absent))
    held: Mapping[str, str] = {}
    broken: Mapping[str, str] = {}
    unproven = f"no worker can be started without {', '.join(blocking)}"
    if not blocking:
        held, broken, unproven = _prove(frozenset(absent), device)
    findings: dict[str, Finding] = {}
    for prop in PROPERTIES:
        if prop in absent:
            problem, remedy = absent[prop]
            findings[prop] = Finding("lost", None, None, problem, _or_without(prop, remedy))
        elif prop in held:
            findings[prop] = Finding("held", mechanisms[prop], held[prop])
        elif prop in broken:
            remedy = "report this with the kernel's version: the mechanism is there and does not hold"
            findings[prop] = Finding("lost", mechanisms[prop], None, broken[prop], remedy)
        else:
            findings[prop] = Finding("unproven", mechanisms[prop], None, unproven, "mend what is lost first")
    return findings


def _prove(without: frozenset[str], device: str) -> tuple[Mapping[str, str], Mapping[str, str], str]:
    """Run a canary: what held, what broke, and why the rest was not tried."""
    spec = ZygoteSpec((), device=device, fork=device == "cpu")
    try:
        with Supervisor(
            {_ROLE: spec},
            backend=with_outer_layer(LockdownBackend(without, device=device)),
            workers=1,
            halt_file=None,
            should_stop=lambda: False,
        ) as supervisor:
            supervisor.prove()
            return supervisor.proofs[_ROLE], {}, ""
    except ContainmentBroken as error:
        return error.held, error.lost, "the canary did not try it"
    except SandboxUnavailable as error:
        if error.prop:
            return {}, {error.prop: f"its lock-down failed: {error.value}"}, f"the lock-down ended at {error.prop}"
        return {}, {}, str(error)
    except RunError as error:
        return {}, {}, str(error)


def _absence(prop: str, device: str = "cpu") -> tuple[str, str]:
    """Why this machine has no mechanism for a property, and what would give it one."""
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock and no seccomp", "use Linux 6.2 or newer (a virtual machine will do)"
    if prop == "memory" and device == "cuda" and (unmetered := gpu.absence()):
        return f"nothing meters GPU memory: {unmetered}", gpu.REMEDY
    if prop == "read" or (prop == "write" and seccomp.available()):  # what the filter leaves open to a GPU's worker
        return _landlock_absence()
    if not seccomp.available():
        return _seccomp_absence()
    remedy = "use Linux 5.4 or newer; in a container, let its profile allow pidfd_open and prctl"
    return "the kernel does not answer pidfd_open or the parent-death signal", remedy


def _landlock_absence() -> tuple[str, str]:
    version = landlock.abi()
    if version:
        return f"the kernel's Landlock is ABI {version}; {landlock.MINIMUM_ABI} is needed", "use Linux 6.2 or newer"
    number = syscalls.number("landlock_create_ruleset", syscalls.architecture() or "x86_64")
    process.libc.syscall(number, None, 0, _LANDLOCK_VERSION)
    if ctypes.get_errno() == errno.EOPNOTSUPP:
        return "Landlock is built into the kernel and switched off", "add landlock to the kernel's lsm= boot parameter"
    remedy = "use Linux 6.2 or newer with CONFIG_SECURITY_LANDLOCK; in a container, let its profile allow landlock_*"
    return "the kernel has no Landlock, or a container's profile hides it", remedy


def _seccomp_absence() -> tuple[str, str]:
    if syscalls.architecture() is None:
        problem = f"there is no table of system calls for {platform.machine()}"
        return problem, f"use one of {', '.join(syscalls.AUDIT_ARCH)}"
    remedy = "use Linux 4.14 or newer with CONFIG_SECCOMP_FILTER; in a container, let its profile allow seccomp"
    return "the kernel takes no seccomp filter, or a container's profile hides it", remedy


def _or_without(prop: str, remedy: str) -> str:
    """The remedy, and the explicit way to run without it where there is one."""
    if prop in INDISPENSABLE:
        return f"{remedy}; no run may go without it"
    return f"{remedy}; or accept the loss, on record: containment.allow_degraded=[{prop}]"
