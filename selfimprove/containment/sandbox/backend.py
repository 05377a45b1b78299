"""Sandbox backends: what they can enforce on this machine, and how a zygote is started under them.

Which one a configuration gets, and what goes around it, is the business of ``layers``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

from selfimprove.containment import gpu
from selfimprove.containment.sandbox import cgroup, landlock, process, seccomp, syscalls
from selfimprove.errors import SandboxUnavailable

PROPERTIES: Final = ("read", "write", "network", "exec", "signal", "parent_death", "memory", "cpu", "disk")
INDISPENSABLE: Final = frozenset({"network", "write", "signal", "parent_death"})  # no run accepts to lose these


@dataclass(frozen=True)
class ZygoteSpec:
    """One role's zygote.

    Args:
        entries: modules that it imports and warms up, and whose jobs it serves.
        device: ``cpu`` or ``cuda``. CUDA workers get the NVIDIA devices, the driver's calls and no address space limit.
            On an H100 the driver starts under it and takes memory; a whole run was not tried there.
        fork: fork a worker per job. False (needed for CUDA, which does not survive a fork): a new process per job,
            which locks itself down in the same steps and starts as cold as it is.
        path: further import folders, readable as a whole.
        search: further folders in which packages of the entries lie; of these only the packages are readable.
    """

    entries: tuple[str, ...]
    device: str = "cpu"
    fork: bool = True
    path: tuple[Path, ...] = ()
    search: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.device not in {"cpu", "cuda"}:
            raise ValueError(f"device: got {self.device!r}; allowed: cpu, cuda")
        if self.device == "cuda" and self.fork:
            raise ValueError("device='cuda' needs fork=False: CUDA does not survive a fork")


class SandboxBackend(Protocol):
    """A way to contain zygotes and their workers."""

    @property
    def name(self) -> str:
        """The name under which ledger and report know it."""

    @property
    def contains(self) -> bool:
        """False for a backend of control runs, whose workers are not put to the test."""

    @property
    def degraded(self) -> frozenset[str]:
        """Properties that the run goes without."""

    def probe(self) -> dict[str, str | None]:
        """Return the mechanism that enforces each property on this machine, None where there is none."""

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line of a zygote under this backend; raises SandboxUnavailable if it may not start."""

    def enclose(self, roles: int, workers: int) -> cgroup.Group:
        """Return the group for all processes of one supervisor, which closes it; raises SandboxUnavailable."""


def _zygote_command(arguments: Iterable[str]) -> list[str]:
    # -P: the current folder is no import folder; -B: no byte code is written. Not -I, which would also ignore the hash
    # seed; the environment is made from nothing instead.
    return [sys.executable, "-P", "-B", "-m", "selfimprove.containment.sandbox.zygote", *arguments]


@final
class LockdownBackend:
    """In-process lock-down: Landlock, seccomp, resource limits, parent-death signal. Needs no privilege.

    Args:
        allow_degraded: properties that the run may go without where this machine has no mechanism for them. What can
            be enforced is enforced all the same.
        device: ``cuda`` where some of its workers hold a GPU: nothing but a meter limits their memory.

    Raises:
        SandboxUnavailable: ``allow_degraded`` names an unknown or indispensable property.

    Not covered: kernel exploits, side channels, metadata of files (``stat``).
    """

    name = "lockdown"
    contains = True

    def __init__(self, allow_degraded: Iterable[str] = (), *, device: str = "cpu") -> None:
        self._accepted = frozenset(allow_degraded)
        self._device = device
        operation = "containment.allow_degraded"
        for prop in sorted(self._accepted):
            if prop not in PROPERTIES:
                raise SandboxUnavailable(operation, prop, ", ".join(p for p in PROPERTIES if p not in INDISPENSABLE))
            if prop in INDISPENSABLE:
                raise SandboxUnavailable(operation, prop, "never this one", "run on a machine that can enforce it")

    @property
    def degraded(self) -> frozenset[str]:
        """Properties that this machine lacks and that the run accepted to lose."""
        return self._accepted & {prop for prop, mechanism in self.probe().items() if mechanism is None}

    def probe(self) -> dict[str, str | None]:
        """Return the mechanism per property. Changes nothing."""
        linux = sys.platform == "linux" and hasattr(os, "pidfd_open")
        landlock_abi = landlock.abi() if linux else 0
        files = f"Landlock ABI {landlock_abi}" if landlock_abi >= landlock.MINIMUM_ABI else None
        calls = f"seccomp filter ({syscalls.architecture()})" if linux and seccomp.available() else None
        may_write = files is not None or self._device != "cuda"  # only Landlock tells its devices from other files
        tied = "PR_SET_PDEATHSIG, pidfds" if linux and _pidfds_work() and calls else None
        limits = linux and calls is not None  # without the filter a limit could be lifted or left
        return {
            "read": files,
            "write": " + ".join(filter(None, [calls, files])) if calls and may_write else None,
            "network": calls,
            "exec": calls,
            "signal": calls,
            "parent_death": tied,
            "memory": self._memory() if limits else None,
            "cpu": "RLIMIT_CPU, CPU time watched" if limits else None,
            "disk": "RLIMIT_FSIZE, outputs in memory" if limits else None,
        }

    def _memory(self) -> str | None:
        if self._device != "cuda":
            return "RLIMIT_AS, private pages watched"
        return None if gpu.absence() else f"private pages watched, {gpu.MECHANISM}"

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line of a locked-down zygote.

        Raises:
            SandboxUnavailable: a property has no mechanism here and the run did not accept to lose it.
        """
        missing = [prop for prop, mechanism in self.probe().items() if mechanism is None]
        refused = [prop for prop in missing if prop not in self._accepted]
        if refused == ["memory"] and (unmetered := gpu.absence()):
            operation, value = "start a contained CUDA worker", f"no mechanism for memory: {unmetered}"
            remedy = f"{gpu.REMEDY}; use device=cpu, or accept the loss: containment.allow_degraded=[memory]"
            raise SandboxUnavailable(operation, value, "every property enforced", remedy, prop="memory")
        if refused:
            never = ", ".join(prop for prop in refused if prop in INDISPENSABLE)
            otherwise = f"or accept the loss: containment.allow_degraded=[{','.join(missing)}]"
            if never:
                otherwise = f"no run may go without {never}"
            raise SandboxUnavailable(
                "start a contained worker", f"no mechanism for {', '.join(refused)}", "every property enforced",
                f"use Linux 6.2 or newer with Landlock and seccomp; {otherwise}",
            )  # fmt: skip
        lost = [argument for prop in missing for argument in ("--unenforced", prop)]
        return _zygote_command([*arguments, *lost])

    def enclose(self, roles: int, workers: int) -> cgroup.Group:
        """Return no group."""
        return cgroup.Ungrouped()


@final
class NoBackend:
    """No containment at all, for control runs that show what an attack does without it. Never for a search."""

    name = "none"
    contains = False
    degraded = frozenset(PROPERTIES)

    def probe(self) -> dict[str, str | None]:
        """Return None for every property."""
        return dict.fromkeys(PROPERTIES)

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command line of an uncontained zygote."""
        return _zygote_command([*arguments, "--bare"])

    def enclose(self, roles: int, workers: int) -> cgroup.Group:
        """Return no group."""
        return cgroup.Ungrouped()


def _pidfds_work() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
        process.death_signal()
    except OSError:
        return False
    return True
