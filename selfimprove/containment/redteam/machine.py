"""A machine that lacks something, as a program: loses one call of the kernel, then tries to start contained workers.

Arguments: LACK (one of `LACKS`), BACKEND, ENTRY, SECRET. Prints one JSON object: ``refused`` with the reason, or
``read``: whether a worker could read the secret. With BACKEND ``plain`` the worker is an ordinary child, and nobody
asks what the machine can enforce; with ``lonely`` a contained worker is busy until its supervisor ends.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from selfimprove.containment.jobs import Completed, Job, JobLimits
from selfimprove.containment.sandbox import process, seccomp
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import SelfImproveError

LIGHT: Final = "selfimprove.containment.redteam.witness"
TRAINING: Final = "selfimprove.training.worker"
LONELY: Final = "lonely"
PLAIN: Final = "plain"
_LIMITS: Final = JobLimits(
    wall_seconds=30, cpu_seconds=30, memory_bytes=64 * 2**20, output_bytes=2**20, silence_seconds=30
)
_EVERY_PRCTL: Final = (*range(2, 90), 0x53564D41)  # all but PR_SET_PDEATHSIG


def lose(*calls: str) -> None:
    """Make system calls answer ENOSYS from here on, for this process and all that it starts."""
    _install(seccomp.Filter(frozenset(), answers=dict.fromkeys(calls, errno.ENOSYS), default=seccomp.ALLOW))


def _lose_namespaces() -> None:
    """As container runtimes and hardened distributions do: no new namespace for anybody."""
    none_new = {"clone": (seccomp.Condition(0, without=0x7E020080),)}
    _install(seccomp.Filter(frozenset(), none_new, answers={"clone3": errno.ENOSYS}, default=seccomp.ALLOW))


def _lose_parent_death() -> None:
    known = seccomp.Condition(0, equals=_EVERY_PRCTL)
    _install(seccomp.Filter(frozenset(), {"prctl": (known,)}, default=seccomp.ALLOW))


def _install(rules: seccomp.Filter) -> None:
    process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(rules)


LACKS: Final[Mapping[str, Callable[[], None]]] = {
    "nothing": lambda: None,
    "landlock": partial(lose, "landlock_create_ruleset"),
    "seccomp": partial(lose, "seccomp"),
    "pidfds": partial(lose, "pidfd_open"),
    "namespaces": _lose_namespaces,
    "parent_death": _lose_parent_death,
}


def try_to_start(backend: str, entry: str, secret: str) -> dict[str, Any]:
    """Start a worker as a run would, and have it read a file that is none of its business."""
    entries = (entry, LIGHT) if entry != LIGHT else (LIGHT,)
    job = Job("witness", "test", LIGHT, {"read": secret}, {}, (), _LIMITS)
    try:
        with Supervisor(
            {"test": ZygoteSpec(entries)}, backend=make_backend(backend), workers=1, halt_file=None,
            should_stop=lambda: False,
        ) as supervisor:  # fmt: skip
            supervisor.prove()
            [(_, outcome)] = supervisor.run([job])
    except SelfImproveError as error:
        return {"refused": str(error)}
    if not isinstance(outcome, Completed):
        return {"broken": str(outcome)[:300]}
    return {"read": outcome.result["read"], "refusal": outcome.result["refusal"]}


def start_plainly(secret: str) -> dict[str, Any]:
    """Fork a child that reads a file, as a runner without containment would."""
    child = os.fork()
    if child == 0:
        Path(secret).read_bytes()
        os._exit(0)
    return {"read": os.waitpid(child, 0)[1] == 0, "refusal": ""}


def wait_busily() -> None:
    """Keep one contained worker busy; says so once, and goes on until somebody ends this process."""
    said: list[int] = []

    def say(index: int, event: dict[str, Any]) -> None:
        if not said:
            print(json.dumps({"busy": os.getpid()}), flush=True)
        said.append(index)

    with Supervisor(
        {"test": ZygoteSpec((LIGHT,))}, backend=make_backend("lockdown"), workers=1, halt_file=None,
        should_stop=lambda: False,
    ) as supervisor:  # fmt: skip
        list(supervisor.run([Job("busy", "test", LIGHT, {"busy": True}, {}, (), _LIMITS)], on_event=say))


def main(arguments: list[str]) -> None:
    lack, backend, entry, secret = arguments
    process.die_with_parent(os.getppid())
    if backend == LONELY:
        wait_busily()
        return
    LACKS[lack]()
    print(json.dumps(start_plainly(secret) if backend == PLAIN else try_to_start(backend, entry, secret)))


if __name__ == "__main__":
    main(sys.argv[1:])
