"""The budget: integer FLOP accounts that can never add up to more than the limit.

Work is paid in two steps. A permit *reserves* its whole slice; when the work ended, what it cost is *charged* and the
rest is free again. Work that was cut off, as the supervisor died, somebody killed the worker or its node was lost, is
charged in full to the account ``lost``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from selfimprove.errors import LimitReached

SEARCH: Final = "search"
CONFIRM: Final = "confirm"
CONTROLLER: Final = "controller"
LOST: Final = "lost"
ACCOUNTS: Final = (SEARCH, CONFIRM, CONTROLLER)


@dataclass(frozen=True)
class Charge:
    """What one piece of work cost; ``total`` is the sum of all charges so far, lost ones included."""

    key: str
    account: str
    flops: int
    total: int


@final
class Budget:
    """The accounts of one run.

    Args:
        flops: most FLOPs of all accounts together.
        lost_flops: most FLOPs in the account ``lost``; once it is passed, nothing is reserved any more.
    """

    def __init__(self, flops: int, lost_flops: int) -> None:
        self._limit = _count("the FLOP limit", flops)
        self._lost_limit = _count("the limit of lost FLOPs", lost_flops)
        self._spent = dict.fromkeys((*ACCOUNTS, LOST), 0)
        self._reserved: dict[str, tuple[str, int]] = {}

    @classmethod
    def restore(cls, flops: int, lost_flops: int, charges: Iterable[tuple[str, int]]) -> Budget:
        """Rebuild the accounts from the (account, flops) of every charge in a ledger; nothing is reserved."""
        budget = cls(flops, lost_flops)
        for account, amount in charges:
            budget._spent[_account(account, (*ACCOUNTS, LOST))] += _count("a charge", amount)
        return budget

    @property
    def charged(self) -> dict[str, int]:
        """FLOPs charged per account."""
        return dict(self._spent)

    @property
    def total(self) -> int:
        """FLOPs charged to all accounts, ``lost`` included."""
        return sum(self._spent.values())

    @property
    def reserved(self) -> int:
        """FLOPs promised to work that has not been charged yet."""
        return sum(amount for _, amount in self._reserved.values())

    @property
    def left(self) -> int:
        """FLOPs that can still be reserved."""
        return 0 if self.overdrawn else max(0, self._limit - self.total - self.reserved)

    @property
    def overdrawn(self) -> bool:
        """Whether more was lost than may be: then nothing is reserved any more."""
        return self._spent[LOST] > self._lost_limit

    def reserve(self, key: str, account: str, flops: int) -> None:
        """Set FLOPs aside for a job.

        Raises:
            LimitReached: they are not there.
            ValueError: the job has a reservation already, or the amount is no count.
        """
        _account(account, ACCOUNTS)
        if key in self._reserved:
            raise ValueError(f"reserve FLOPs for {key}: it has a reservation that was not settled")
        if _count("a reservation", flops) > self.left:
            raise LimitReached(
                f"reserve FLOPs for {key}", flops, f"at most {self.left}", "raise limits.flops and start a new run"
            )
        self._reserved[key] = (account, flops)

    def charge(self, key: str, flops: int) -> Charge:
        """Settle a job: what it cost is charged, the rest of its reservation is free again.

        Raises:
            ValueError: no reservation, or the cost is above it: then the whole work was not permitted.
        """
        account, reserved = self._reservation(key)
        if _count("a charge", flops) > reserved:
            raise ValueError(f"charge {flops} FLOPs to {key}: only {reserved} were reserved")
        del self._reserved[key]
        return self._book(key, account, flops)

    def lose(self, key: str) -> Charge:
        """Settle a job whose work was cut off: all of its reservation is lost."""
        _, reserved = self._reservation(key)
        del self._reserved[key]
        return self._book(key, LOST, reserved)

    def release(self, key: str) -> Charge:
        """Settle a job that never began: nothing is lost."""
        self._reservation(key)
        del self._reserved[key]
        return self._book(key, LOST, 0)

    def may_lose(self, key: str) -> bool:
        """Whether the account ``lost`` has room for all of a job's reservation."""
        return self._spent[LOST] + self._reservation(key)[1] <= self._lost_limit

    def abandon(self, key: str, account: str, flops: int) -> Charge:
        """Book work to ``lost`` that another sitting, or a sitting that was stopped, had permitted and not settled."""
        _account(account, ACCOUNTS)
        self._reserved.pop(key, None)
        return self._book(key, LOST, _count("a loss", flops))

    def honor(self, key: str, account: str, flops: int) -> Charge:
        """Charge work that was permitted and finished by a sitting that died before it could charge it."""
        self._reserved.pop(key, None)
        return self._book(key, _account(account, ACCOUNTS), _count("a charge", flops))

    def _reservation(self, key: str) -> tuple[str, int]:
        if key not in self._reserved:
            raise ValueError(f"settle {key}: nothing is reserved for it")
        return self._reserved[key]

    def _book(self, key: str, account: str, flops: int) -> Charge:
        self._spent[account] += flops
        return Charge(key, account, flops, self.total)


def _count(what: str, value: int) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what}: got {value!r}; allowed: a whole number, not negative")
    return value


def _account(name: str, known: tuple[str, ...]) -> str:
    if name not in known:
        raise ValueError(f"account {name!r}; known: {', '.join(known)}")
    return name
