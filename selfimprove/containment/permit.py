"""Permits: the signed, single-use grant of a slice of the budget to exactly one genome, stage and job of one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Protocol, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from selfimprove.canonical import canonical
from selfimprove.errors import LedgerError, SelfImproveError

DOMAIN: Final = b"selfimprove-permit\n"  # keeps a signature from being valid for a ledger entry under the same key


class PermitRefused(SelfImproveError):
    """A permit that grants nothing: forged, spent, expired, or made out for something else."""


class PermitExpired(PermitRefused):
    """A permit in order, whose time is over by the clock of whoever was to use it."""


class Signer(Protocol):
    """Holds a private key."""

    @property
    def public_key_hex(self) -> str:
        """The Ed25519 public key."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""


@dataclass(frozen=True)
class Permit:
    """A grant. All numbers are integers; ``flops`` and ``tokens`` are the whole slice, reserved when it is signed.

    Args:
        run_id: the run that it belongs to.
        counter: position among all permits of the run, from 1; only rises.
        account: the budget account: search, confirm or controller.
        key: the job that may spend it, e.g. ``g003/c05/s1``.
        genome_sha256: the only genome that may be trained.
        stage: the part of the quote that is granted, e.g. ``1/1``.
        flops: most FLOPs.
        tokens: most tokens.
        steps: most optimizer steps.
        expires_at: seconds since 1970; spent later, it is void.
        reissue: replaces a permit whose work was lost: supervisor or node died, or the worker was killed from outside.
        signature: Ed25519 over the domain and the canonical JSON of everything above, hexadecimal.
    """

    run_id: str
    counter: int
    account: str
    key: str
    genome_sha256: str
    stage: str
    flops: int
    tokens: int
    steps: int
    expires_at: int
    reissue: bool
    signature: str = ""

    def message(self) -> bytes:
        """Return the bytes that are signed."""
        body = asdict(self)
        del body["signature"]
        return DOMAIN + canonical(body)

    def to_json(self) -> dict[str, Any]:
        """Return all fields, signature included."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Permit:
        """Read a permit strictly; raises PermitRefused on a missing, unknown or mistyped field."""
        kinds = {field.name: _KINDS[str(field.type)] for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != set(kinds):
            raise PermitRefused("read a permit", type(data).__name__, f"exactly the fields {', '.join(kinds)}")
        for name, kind in kinds.items():
            if type(data[name]) is not kind:
                raise PermitRefused(f"read a permit's {name}", data[name], kind.__name__)
        return cls(**data)


_KINDS: Final[dict[str, type]] = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True)
class Claim:
    """What somebody wants to use a permit for."""

    run_id: str
    key: str
    genome_sha256: str
    stage: str


def verify(permit: Permit, claim: Claim, *, public_key_hex: str, now: float) -> None:
    """Check everything about a permit that needs no memory; ``PermitBook.spend`` adds single use.

    Raises:
        PermitRefused: not signed by this key, or of another run, job, genome or stage.
        PermitExpired: in order, but its time is over.
    """
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key_hex))
        public.verify(bytes.fromhex(permit.signature), permit.message())
    except (InvalidSignature, ValueError, LedgerError):
        raise PermitRefused("verify a permit", permit.key, "a permit signed by this installation") from None
    for name in ("run_id", "key", "genome_sha256", "stage"):
        granted, claimed = getattr(permit, name), getattr(claim, name)
        if granted != claimed:
            raise PermitRefused(f"use a permit with {name}", claimed, granted, "ask for a permit of its own")
    if now >= permit.expires_at:
        raise PermitExpired("use a permit", f"time {now:.0f}", f"before {permit.expires_at}", "ask for a new permit")


@final
class PermitBook:
    """Issues a run's permits and remembers which are still good for something.

    Args:
        run_id: the run.
        signer: the installation's key.
        last_counter: the highest counter that the ledger of a resumed run shows. Permits up to it are void: their
            supervisor is dead, and so are their workers.
        clock: seconds since 1970. A clock that is set back does not bring expired permits back.
    """

    def __init__(
        self, run_id: str, signer: Signer, *, last_counter: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self._run_id = run_id
        self._signer = signer
        self._counter = last_counter
        self._clock = clock
        self._latest = clock()
        self._open: dict[int, Permit] = {}

    def _now(self) -> float:
        self._latest = max(self._latest, self._clock())
        return self._latest

    def issue(
        self, claim: Claim, *, account: str, flops: int, tokens: int, steps: int, lifetime_seconds: float, reissue: bool
    ) -> Permit:
        """Sign the next permit. Only ``policy.decide`` should call this: it reserves the budget first."""
        self._counter += 1
        unsigned = Permit(
            counter=self._counter, account=account, flops=flops, tokens=tokens, steps=steps, reissue=reissue,
            expires_at=int(self._now() + lifetime_seconds) + 1, **asdict(claim),
        )  # fmt: skip
        permit = replace(unsigned, signature=self._signer.sign(unsigned.message()).hex())
        self._open[permit.counter] = permit
        return permit

    def spend(self, permit: Permit, claim: Claim) -> None:
        """Use a permit up, immediately before its work starts.

        Raises:
            PermitRefused: as in ``verify``; or it was spent or revoked, or issued before a restart.
        """
        verify(permit, claim, public_key_hex=self._signer.public_key_hex, now=self._now())
        if claim.run_id != self._run_id:
            raise PermitRefused("use a permit with run_id", claim.run_id, self._run_id)
        if self._open.get(permit.counter) != permit:
            raise PermitRefused("use a permit", f"counter {permit.counter}", "a permit that was not used yet")
        del self._open[permit.counter]

    def revoke(self, permits: Iterable[Permit]) -> None:
        """Void permits that will not be used."""
        for permit in permits:
            self._open.pop(permit.counter, None)
