"""Machines that lack a part of the containment, and supervisors and zygotes that die at the wrong moment."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selfimprove.containment import metering
from selfimprove.containment.redteam import processes
from selfimprove.containment.redteam.attack import DENIED, KILLED, REFUSED, TrustedAttack
from selfimprove.containment.redteam.machine import LIGHT, LONELY, PLAIN, TRAINING
from selfimprove.containment.sandbox import process
from selfimprove.errors import SandboxUnavailable, SelfImproveError

_MODULE = "selfimprove.containment.redteam.machine"
_START_SECONDS = 60.0
_DEATH_SECONDS = 2.0
_STARTS = "before the first permit every property has a mechanism, and a canary has failed to get around it"
_TIED = "parent-death signals from supervisor to zygote to worker"


class Denied(SelfImproveError):
    """A worker started, and was denied all the same."""


class Dead(SelfImproveError):
    """Nothing was left alive."""


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-B", "-m", _MODULE, *arguments]


def _secret(folder: Path) -> Path:
    path = folder / "secret"
    path.write_text("secret")
    return path


def _started(secret: Path, lack: str, backend: str, entry: str) -> dict[str, Any]:
    done = subprocess.run(
        _command(lack, backend, entry, os.fspath(secret)), capture_output=True, text=True, timeout=_START_SECONDS,
        check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _lacking(
    name: str, title: str, lack: str, entry: str = LIGHT, mechanism: str = _STARTS, expected: str = REFUSED
) -> TrustedAttack[Path]:
    """An attack on a machine that lacks something; the control is a runner that does not ask for it."""

    def guarded(secret: Path) -> bool:
        found = _started(secret, lack, "lockdown", entry)
        if "refused" in found:
            raise SandboxUnavailable(found["refused"])
        if found.get("read") is False and found["refusal"]:
            raise Denied(f"started, every canary held; reading the secret: {found['refusal']}")
        return bool(found["read"])

    def naive(secret: Path) -> bool:
        return bool(_started(secret, lack, PLAIN, entry)["read"])

    return TrustedAttack(name, title, _secret, guarded, naive, mechanism, expected)


def _family(lonely: subprocess.Popen[str]) -> list[int]:
    """The pids of a lonely supervisor's zygote and worker, once the worker is busy."""
    assert lonely.stdout is not None
    if not select.select([lonely.stdout], [], [], _START_SECONDS)[0]:
        raise TimeoutError("the lonely supervisor did not start")
    json.loads(lonely.stdout.readline())
    return processes.descendants(lonely.pid)


def _survivors(pidfds: list[int]) -> int:
    """How many are alive after a while; those are ended."""
    deadline = time.monotonic() + _DEATH_SECONDS
    while time.monotonic() < deadline and not all(metering.is_dead(pidfd) for pidfd in pidfds):
        time.sleep(0.02)
    alive = [pidfd for pidfd in pidfds if not metering.is_dead(pidfd)]
    for pidfd in alive:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pidfd in pidfds:
        os.close(pidfd)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return len(alive)


def _kill_above(zygote_too: bool) -> Callable[[Path], bool]:
    """Return an attack that kills a lonely supervisor (or its zygote) and looks for survivors below it."""

    def guarded(folder: Path) -> bool:
        process.become_subreaper()  # orphans come to this process, which then reaps them
        with subprocess.Popen(_command("nothing", LONELY, LIGHT, ""), stdout=subprocess.PIPE, text=True) as lonely:
            zygote, *workers = _family(lonely)
            if not workers:
                raise RuntimeError("no worker was running")
            below = [os.pidfd_open(pid) for pid in (workers if zygote_too else [zygote, *workers])]
            os.kill(zygote if zygote_too else lonely.pid, signal.SIGKILL)
            left = _survivors(below)
            lonely.kill()
        if not left:
            raise Dead(f"{len(below)} dead within {_DEATH_SECONDS:g} s")
        return True

    return guarded


def _orphan_lives(folder: Path) -> bool:
    """Kill an ordinary parent: its child does not even notice."""
    process.become_subreaper()
    with subprocess.Popen(["/bin/sh", "-c", "sleep 5 & echo; wait"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        below = [os.pidfd_open(pid) for pid in processes.descendants(parent.pid)]
        parent.kill()
    return _survivors(below) > 0


DEGRADED = (
    _lacking("no_landlock", "run where the kernel has no Landlock", "landlock"),
    _lacking("no_seccomp", "run where the kernel takes no filters", "seccomp"),
    _lacking("no_pidfds", "run where processes cannot be held on to", "pidfds"),
    _lacking("no_namespaces", "run where namespaces are denied", "namespaces", TRAINING,
             "the lock-down needs none; a canary proves it", DENIED),
    _lacking("no_parent_death", "run where the parent-death signal is lost", "parent_death"),
)  # fmt: skip

SURVIVAL = (
    TrustedAttack("supervisor_killed", "outlive a supervisor that was killed", lambda folder: folder,
                  _kill_above(zygote_too=False), _orphan_lives, _TIED, KILLED),
    TrustedAttack("zygote_killed", "outlive a zygote that was killed", lambda folder: folder,
                  _kill_above(zygote_too=True), _orphan_lives, _TIED, KILLED),
)  # fmt: skip
