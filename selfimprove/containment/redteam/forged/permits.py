"""Permits: using one that was never given, for something else, too late, or twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfimprove.containment.budget import SEARCH
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import Claim, Permit, PermitBook, verify
from selfimprove.containment.redteam.attack import TrustedAttack

_GENOME, _OTHER = "a" * 64, "b" * 64
_LIFETIME = 60.0


class Clock:
    """A clock that can be set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Try:
    """A permit and what it is to be used for.

    Attributes:
        book: knows the permits of this run.
        key: signed the honest ones.
        permit: honest or not.
        claim: what the holder says it is for.
        now: the time by the clock on the wall.
    """

    book: PermitBook
    key: SigningKey
    permit: Permit
    claim: Claim
    now: float


def _fresh(clock: Clock | None = None) -> Try:
    clock, key = clock or Clock(), SigningKey.generate()
    book = PermitBook("run", key, clock=clock)
    claim = Claim("run", "g001/c01/s0", _GENOME, "1/9")
    permit = book.issue(claim, account=SEARCH, flops=100, tokens=10, steps=5, lifetime_seconds=_LIFETIME, reissue=False)
    return Try(book, key, permit, claim, clock.now)


def _altered(**change: Any) -> Callable[[Path], Try]:
    """Return a forger that changes fields of an honest permit, and claims what it then says."""

    def make(folder: Path) -> Try:
        honest = _fresh()
        permit = replace(honest.permit, **change)
        claim = Claim(permit.run_id, permit.key, permit.genome_sha256, permit.stage)
        return replace(honest, permit=permit, claim=claim)

    return make


def _for_another(**change: str) -> Callable[[Path], Try]:
    """Return a forger that uses an honest permit for something else."""
    return lambda folder: replace(honest := _fresh(), claim=replace(honest.claim, **change))


def _self_signed(folder: Path) -> Try:
    honest, key = _fresh(), SigningKey.generate()
    unsigned = replace(honest.permit, flops=10**15)
    return replace(honest, permit=replace(unsigned, signature=key.sign(unsigned.message()).hex()))


def _replayed(folder: Path) -> Try:
    honest = _fresh()
    honest.book.spend(honest.permit, honest.claim)
    return honest


def _after_restart(folder: Path) -> Try:
    """A permit that was never spent, from before the supervisor died."""
    honest = _fresh()
    return replace(honest, book=PermitBook("run", honest.key, last_counter=honest.permit.counter, clock=Clock()))


def _revoked(folder: Path) -> Try:
    honest = _fresh()
    honest.book.revoke([honest.permit])
    return honest


def _expired(folder: Path) -> Try:
    clock = Clock()
    honest = _fresh(clock)
    clock.now += 2 * _LIFETIME
    return replace(honest, now=clock.now)


def _clock_set_back(folder: Path) -> Try:
    """Let a permit expire, have the book see it, then set the clock back."""
    clock = Clock()
    honest = _fresh(clock)
    clock.now += 2 * _LIFETIME
    other = replace(honest.claim, key="g001/c02/s0")
    honest.book.issue(other, account=SEARCH, flops=1, tokens=1, steps=1, lifetime_seconds=1.0, reissue=False)
    clock.now -= 2 * _LIFETIME
    return replace(honest, now=clock.now)


def _spend(attempt: Try) -> bool:
    attempt.book.spend(attempt.permit, attempt.claim)
    return True


def _by_its_word(attempt: Try) -> bool:
    """Without signatures: the permit says what it is for."""
    claimed = Claim(attempt.permit.run_id, attempt.permit.key, attempt.permit.genome_sha256, attempt.permit.stage)
    return claimed == attempt.claim and attempt.now < attempt.permit.expires_at


def _by_its_signature(attempt: Try) -> bool:
    """Without looking at what it is for, or at the time: the signature is good."""
    permit = attempt.permit
    own = Claim(permit.run_id, permit.key, permit.genome_sha256, permit.stage)
    verify(permit, own, public_key_hex=attempt.key.public_key_hex, now=0.0)
    return True


def _without_memory(attempt: Try) -> bool:
    """Everything is checked but whether it was used or voided before."""
    verify(attempt.permit, attempt.claim, public_key_hex=attempt.key.public_key_hex, now=attempt.now)
    return True


def _round_trip(text: str) -> bool:
    Permit.from_json(json.loads(text))
    return True


def _smuggled(folder: Path) -> str:
    """A permit in JSON whose FLOPs are a truth value, and with a field more."""
    honest = _fresh().permit.to_json()
    return json.dumps(honest | {"flops": True, "unlimited": True})


_SIGNED = "Ed25519 over every field"
_BOUND = "a permit is bound to run, job, genome and stage"
_MEMORY = "a permit is spent once, and only by the book that issued it"

ATTACKS = (
    TrustedAttack("more_flops", "raise the FLOPs of a permit", _altered(flops=10**15), _spend, _by_its_word, _SIGNED),
    TrustedAttack("unsigned", "make out a permit without a signature", _altered(signature=""), _spend, _by_its_word,
                  _SIGNED),
    TrustedAttack("self_signed", "sign a permit with a key of one's own", _self_signed, _spend, _by_its_word, _SIGNED),
    TrustedAttack("longer_life", "postpone the end of a permit", _altered(expires_at=2 * 10**9), _spend, _by_its_word,
                  _SIGNED),
    TrustedAttack("replay", "spend a permit twice", _replayed, _spend, _without_memory, _MEMORY),
    TrustedAttack("revoked", "spend a permit that was revoked", _revoked, _spend, _without_memory, _MEMORY),
    TrustedAttack("after_restart", "spend a permit of a supervisor that died", _after_restart, _spend, _without_memory,
                  _MEMORY),
    TrustedAttack("expired", "spend a permit too late", _expired, _spend, _by_its_signature, "permits expire"),
    TrustedAttack("clock_rollback", "set the clock back to before a permit expired", _clock_set_back, _spend,
                  _without_memory, "the book's clock never goes back"),
    TrustedAttack("other_genome", "train another genome on it", _for_another(genome_sha256=_OTHER), _spend,
                  _by_its_signature, _BOUND),
    TrustedAttack("other_run", "use it in another run", _for_another(run_id="other"), _spend, _by_its_signature,
                  _BOUND),
    TrustedAttack("other_job", "use it for another job", _for_another(key="g009/c09/s9"), _spend, _by_its_signature,
                  _BOUND),
    TrustedAttack("later_stage", "skip to the last stage", _for_another(stage="1/1"), _spend, _by_its_signature,
                  _BOUND),
    TrustedAttack("smuggled_field", "read a permit with a field more and a truth value for a number", _smuggled,
                  _round_trip, lambda text: json.loads(text)["unlimited"], "permits are read strictly"),
)  # fmt: skip
