"""What an attack is: a plain record around a small function, and the cell in which the function finds itself.

Two kinds. A `WorkerAttack` runs inside a worker and tries to get out. A `TrustedAttack` forges something (a checkpoint,
a ledger, a permit, a message) and hands it to the code of the trusted side. Both run twice: against the containment,
and as a control without it, where they must succeed, because an attack that never works proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from selfimprove.containment.hostile import ProtocolError
from selfimprove.errors import SelfImproveError

Made = TypeVar("Made")

DENIED: Final = "denied"  # the kernel or the worker's own limits refused it
KILLED: Final = "killed"  # the supervisor or the kernel ended the worker
LIMITED: Final = "limited"  # it got a bounded amount of what it wanted, and no more
REJECTED: Final = "rejected"  # the trusted side saw through it
REFUSED: Final = "refused to start"  # nothing runs on such a machine

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Cell:
    """What an attack inside a worker finds around it; everything it may touch belongs to this one attack.

    Args:
        folder: the attack's own files, none of which a worker may read or change. See `arena.Arena`.
        token: a name that nothing else uses, for what is tried outside ``folder``.
        temporary: the machine's folder for temporary files.
        target: process id of the supervisor; in a control, of a stand-in that may be hurt.
        address: where ``target`` keeps a secret in its memory.
        descriptor: a descriptor of ``target`` on its secret.
        secret: the two halves of the secret; never put together, so that a search of the memory finds only leaks.
        ports: addresses of listeners on this machine by kind; 0 or empty where the machine has no such thing.
        data: descriptor of a file that was handed in for reading.
        out: descriptor that takes what the worker may write.
        events: the pipe to the supervisor, below ``emit``.
        errors: descriptor of standard error.
        emit: sends one event to the supervisor.
    """

    folder: str
    token: str
    temporary: str
    target: int
    address: int
    descriptor: int
    secret: tuple[bytes, bytes]
    ports: Mapping[str, Any]
    data: int
    out: int
    events: int
    errors: int
    emit: Emit

    @classmethod
    def from_job(cls, job: Mapping[str, Any], *, data: int, out: int, events: int, errors: int, emit: Emit) -> Cell:
        """Read what the arena and the target put into a job."""
        first, second = (bytes.fromhex(half) for half in job["secret"])
        return cls(
            folder=job["folder"], token=job["token"], temporary=job["temporary"], target=job["target"],
            address=job["address"], descriptor=job["descriptor"], secret=(first, second), ports=job["ports"],
            data=data, out=out, events=events, errors=errors, emit=emit,
        )  # fmt: skip

    def path(self, name: str) -> str:
        """Return the path of one of the attack's own files."""
        return os.path.join(self.folder, name)

    def holds_secret(self, found: bytes) -> bool:
        """True if bytes contain the secret, as it is or in hexadecimal."""
        for first, second in (self.secret, tuple(half.hex().encode() for half in self.secret)):
            at = found.find(first)
            while at >= 0:
                if found[at + len(first) : at + len(first) + len(second)] == second:
                    return True
                at = found.find(first, at + 1)
        return False


@dataclass(frozen=True)
class WorkerAttack:
    """An attempt from inside a worker.

    Args:
        name: unique in its category.
        title: what is tried, as a clause.
        run: tries it. A true value, or damage that is seen from outside, is success; OSError is a refusal.
        mechanism: what is meant to stop it.
        expected: how it is meant to end.
        control: what runs in the control instead of ``run``, where the attack is on a part that a bare worker lacks.
        limits: fields of `JobLimits` that the contained worker gets; others are `runner.LIMITS`.
        training: run it in the zygote that trains candidates, with torch in its memory, instead of a light one.
        guarded: what the trusted side does with the worker's output; None if it makes nothing of it.
        naive: what a trusted side without checks would do with it.
    """

    name: str
    title: str
    run: Callable[[Cell], object]
    mechanism: str
    expected: str = DENIED
    control: Callable[[Cell], object] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    training: bool = False
    guarded: Callable[[bytes], object] | None = None
    naive: Callable[[bytes], object] | None = None


@dataclass(frozen=True)
class TrustedAttack(Generic[Made]):
    """Something forged, for the trusted side to fall for.

    Args:
        name: unique in its category.
        title: what is tried, as a clause.
        make: forges it, in an empty folder of its own.
        guarded: gives it to the real code; one of ``refusals``, or a false value, means that it was seen through.
        naive: gives it to code that lacks the check; a true value means that the attack works where nobody checks.
        mechanism: what is meant to see through it.
        expected: how it is meant to end.
        refusals: what the real code raises when it refuses. Anything else that it raises is a success of the attack.
    """

    name: str
    title: str
    make: Callable[[Path], Made]
    guarded: Callable[[Made], object]
    naive: Callable[[Made], object]
    mechanism: str
    expected: str = REJECTED
    refusals: tuple[type[Exception], ...] = (SelfImproveError, ProtocolError)


Attack = WorkerAttack | TrustedAttack[Any]
