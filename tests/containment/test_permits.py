"""Permits: signed, single-use, expiring, and bound to one run, job, genome and stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import Claim, Permit, PermitBook, PermitRefused

CLAIM = Claim(run_id="run", key="g001/c02/s0", genome_sha256="ab" * 32, stage="1/1")


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def book(key: SigningKey, clock: Clock) -> PermitBook:
    return PermitBook("run", key, clock=clock)


def issue(book: PermitBook, claim: Claim = CLAIM) -> Permit:
    return book.issue(claim, account="search", flops=100, tokens=10, steps=2, lifetime_seconds=60, reissue=False)


def test_a_permit_can_be_spent_by_the_job_that_it_was_made_out_for(book: PermitBook) -> None:
    book.spend(issue(book), CLAIM)


def test_a_permit_survives_the_round_trip_through_json(book: PermitBook) -> None:
    permit = issue(book)
    assert Permit.from_json(permit.to_json()) == permit


def test_a_permit_may_grant_more_than_a_double_can_hold(book: PermitBook) -> None:
    flops = 2**53 + 1
    permit = book.issue(CLAIM, account="search", flops=flops, tokens=1, steps=1, lifetime_seconds=60, reissue=False)
    with pytest.raises(PermitRefused, match="signed"):
        book.spend(replace(permit, flops=flops - 1), CLAIM)
    book.spend(permit, CLAIM)


def test_a_permit_can_be_spent_once(book: PermitBook) -> None:
    permit = issue(book)
    book.spend(permit, CLAIM)
    with pytest.raises(PermitRefused, match="not used yet"):
        book.spend(permit, CLAIM)


def test_a_revoked_permit_is_void(book: PermitBook) -> None:
    permit = issue(book)
    book.revoke([permit])
    with pytest.raises(PermitRefused):
        book.spend(permit, CLAIM)


@pytest.mark.parametrize(
    "change",
    [{"flops": 101}, {"steps": 3}, {"tokens": 11}, {"expires_at": 10**9}, {"counter": 2}, {"account": "confirm"}],
)
def test_a_changed_permit_is_refused(change: dict[str, Any], book: PermitBook) -> None:
    with pytest.raises(PermitRefused, match="signed by this installation"):
        book.spend(replace(issue(book), **change), CLAIM)


@pytest.mark.parametrize("signature", ["", "00" * 64, "not hexadecimal"])
def test_a_permit_without_a_good_signature_is_refused(signature: str, book: PermitBook) -> None:
    with pytest.raises(PermitRefused, match="signed by this installation"):
        book.spend(replace(issue(book), signature=signature), CLAIM)


def test_a_permit_signed_by_another_key_is_refused(book: PermitBook, clock: Clock) -> None:
    other = PermitBook("run", SigningKey.generate(), clock=clock)
    with pytest.raises(PermitRefused, match="signed by this installation"):
        book.spend(issue(other), CLAIM)


@pytest.mark.parametrize("field", ["run_id", "key", "genome_sha256", "stage"])
def test_a_permit_is_refused_for_anything_else(field: str, book: PermitBook) -> None:
    with pytest.raises(PermitRefused, match=field):
        book.spend(issue(book), replace(CLAIM, **{field: "other"}))


def test_another_runs_permit_is_refused_even_with_its_own_claim(
    book: PermitBook, key: SigningKey, clock: Clock
) -> None:
    claim = replace(CLAIM, run_id="other")
    permit = issue(PermitBook("other", key, clock=clock), claim)
    with pytest.raises(PermitRefused, match="run_id"):
        book.spend(permit, claim)


def test_an_expired_permit_is_refused(book: PermitBook, clock: Clock) -> None:
    permit = issue(book)
    clock.now += 62
    with pytest.raises(PermitRefused, match="before"):
        book.spend(permit, CLAIM)


def test_setting_the_clock_back_does_not_revive_a_permit(book: PermitBook, clock: Clock) -> None:
    permit = issue(book)
    clock.now += 62
    issue(book)
    clock.now -= 62
    with pytest.raises(PermitRefused, match="before"):
        book.spend(permit, CLAIM)


def test_permits_of_before_a_restart_are_void(book: PermitBook, key: SigningKey, clock: Clock) -> None:
    permit = issue(book)
    restarted = PermitBook("run", key, last_counter=permit.counter, clock=clock)
    with pytest.raises(PermitRefused, match="not used yet"):
        restarted.spend(permit, CLAIM)


def test_counters_only_rise(book: PermitBook, key: SigningKey) -> None:
    counters = [issue(book).counter for _ in range(3)]
    restarted = PermitBook("run", key, last_counter=counters[-1])
    assert [*counters, issue(restarted).counter] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"flops": "100"}, {"flops": True}, {"reissue": 0}, {"extra": 1}])
def test_a_permit_with_a_wrong_field_cannot_be_read(change: dict[str, Any], book: PermitBook) -> None:
    with pytest.raises(PermitRefused, match="read a permit"):
        Permit.from_json(issue(book).to_json() | change)
