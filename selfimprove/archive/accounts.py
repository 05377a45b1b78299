"""The arithmetic of a ledger: what was permitted, charged and lost must add up, and stay within the limit.

- A charge's ``total`` is the sum of all charges so far, lost ones included, and never above ``limits.flops``.
- Every permit is settled by exactly one charge, on the same account and of no more FLOPs; counters only rise.
- A key gets a second permit only as a reissue, and then the charge of the first belongs to the account ``lost``.
- What was trained had a permit that was open then: each stage of a candidate's training, each update of the controller,
  each trial of a hand-over. It is charged in full, and never as lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from selfimprove.archive.chain import Entry

LOST = "lost"
ACCOUNTS = frozenset({"search", "confirm", "controller", LOST})
SETTLED_STATES = frozenset({"finished", "limit"})  # after these no work is under way, so no permit may be open

Remark = tuple[int, str]  # (line of the ledger, what is wrong)


@dataclass
class _Granted:
    line: int
    counter: int
    account: str
    flops: int
    settled: str | None = None  # the account that it was charged to
    superseded: bool = False
    trained: bool = False


class _Books:
    """Replays permits and charges, and remarks on everything that does not add up."""

    def __init__(self) -> None:
        self.remarks: list[Remark] = []
        self._limit: int | None = None
        self._total = 0
        self._counter: int | None = None
        self._permits: dict[str, list[_Granted]] = {}

    def run(self, line: int, body: dict[str, Any]) -> None:
        if line != 1:
            self.remarks.append((line, "a second run entry: the limits are those of the first"))
            return
        limits = body.get("limits")
        limit = limits.get("flops") if isinstance(limits, dict) else None
        if limit is not None and not _is_count(limit):
            self.remarks.append((line, f"the FLOP limit {_show(limit)} is not a whole number"))
        elif limit is not None:
            self._limit = limit

    def permit(self, line: int, body: dict[str, Any]) -> None:
        key, counter, account, flops = (body.get(name) for name in ("key", "counter", "account", "flops"))
        usable = isinstance(account, str) and account in ACCOUNTS - {LOST}
        if not isinstance(key, str) or not _is_count(flops) or not _is_count(counter) or not usable:
            self.remarks.append((line, "a permit without a usable key, counter, account or FLOPs"))
            return
        if self._counter is not None and counter <= self._counter:
            self.remarks.append((line, f"permit counter {counter} after {self._counter}: counters only rise"))
        self._counter = max(counter, self._counter or 0)
        earlier = self._permits.setdefault(key, [])
        reissue = body.get("reissue") is True
        if reissue != bool(earlier):
            what = "reissued but never issued before" if reissue else "issued again, not as a reissue"
            self.remarks.append((line, f"permit {key} is {what}"))
        for granted in earlier[-1:]:
            granted.superseded = True
            if granted.settled not in (None, LOST):
                self.remarks.append((line, f"permit {key} was reissued after a charge to {granted.settled!r}"))
        earlier.append(_Granted(line, counter, str(account), flops))

    def charge(self, line: int, body: dict[str, Any]) -> None:
        key, account, flops, total = (body.get(name) for name in ("key", "account", "flops", "total"))
        if not isinstance(key, str) or not _is_count(flops) or not isinstance(account, str) or account not in ACCOUNTS:
            self.remarks.append((line, "a charge without a usable key, account or FLOPs"))
            return
        self._total += flops
        if type(total) is not int or total != self._total:
            self.remarks.append((line, f"the total is {_show(total)} where the charges so far add up to {self._total}"))
        if self._limit is not None and self._total > self._limit:
            self.remarks.append((line, f"{self._total} FLOPs charged, over the limit of {self._limit}"))
        self._settle(line, key, account, flops)

    def _settle(self, line: int, key: str, account: str, flops: int) -> None:
        """Match a charge with its permit: losses settle the oldest open one, work the newest."""
        waiting = [granted for granted in self._permits.get(key, ()) if granted.settled is None]
        if not waiting:
            what = "charged again" if key in self._permits else "charged without a permit"
            self.remarks.append((line, f"{key} is {what}"))
            return
        granted = waiting[0] if account == LOST else waiting[-1]
        granted.settled = account
        if granted.superseded and account != LOST:
            self.remarks.append((line, f"{key}: the lost permit {granted.counter} is charged to {account!r}"))
        if account not in (granted.account, LOST):
            self.remarks.append((line, f"{key} is permitted on {granted.account!r} and charged to {account!r}"))
        if granted.trained and account == LOST:
            self.remarks.append((line, f"{key} was trained, and is booked as lost"))
        elif granted.trained and flops < granted.flops:
            what = f"{key} is charged {flops} FLOPs where it was trained for {granted.flops}"
            self.remarks.append((line, what))
        if flops > granted.flops:
            self.remarks.append((line, f"{key} is charged {flops} FLOPs where {granted.flops} were permitted"))

    def training(self, line: int, body: dict[str, Any]) -> None:
        if body.get("status") == "stopped":  # by decision, after a stage that has a record of its own
            return
        key, stage = body.get("key"), body.get("stage")
        if not isinstance(key, str) or not isinstance(stage, str):
            self.remarks.append((line, "a training without a usable key or stage"))
        else:
            self._trained(line, f"{key}@{stage}")

    def controller(self, line: int, body: dict[str, Any]) -> None:
        generation, flops = body.get("generation"), body.get("flops", 0)
        if not _is_count(generation) or not _is_count(flops):
            self.remarks.append((line, "an update of the controller without a usable generation or FLOPs"))
        elif flops:
            self._trained(line, f"g{generation:03d}/tell")

    def trial(self, line: int, body: dict[str, Any]) -> None:
        generation, role, flops = body.get("generation"), body.get("role"), body.get("flops", 0)
        if not _is_count(generation) or not isinstance(role, str) or not _is_count(flops):
            self.remarks.append((line, "a trial without a usable generation, role or FLOPs"))
        elif flops:
            self._trained(line, f"g{generation:03d}/{role}")

    def _trained(self, line: int, key: str) -> None:
        """Training needs an open permit; of several it was the newest."""
        permits = self._permits.get(key, ())
        waiting = [granted for granted in permits if granted.settled is None]
        for granted in waiting[-1:]:
            granted.trained = True
        if not waiting:
            what = "on a permit that was settled before" if permits else "without a permit"
            self.remarks.append((line, f"{key} was trained {what}"))

    def finish(self, line: int, body: dict[str, Any]) -> None:
        if str(body.get("state")) not in SETTLED_STATES:
            return
        for key, permits in self._permits.items():
            for granted in permits:
                if granted.settled is None:
                    what = f"permit {granted.counter} of {key} was never charged, though the run finished"
                    self.remarks.append((granted.line, what))


def check_accounts(entries: Iterable[Entry]) -> list[Remark]:
    """Everything in ``entries`` that does not add up, with its line in the ledger; never raises."""
    books = _Books()
    handlers = {
        "run": books.run, "permit": books.permit, "charge": books.charge, "stage": books.training,
        "outcome": books.training, "controller": books.controller, "trial": books.trial, "finish": books.finish,
    }  # fmt: skip
    for entry in entries:
        handler = handlers.get(entry.kind)
        if handler is not None:
            handler(entry.index + 1, entry.body)
    return books.remarks


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _show(value: object) -> str:
    return repr(value)[:60]
