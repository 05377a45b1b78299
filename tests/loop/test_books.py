"""Grants, charges, losses and crashes in any order: the books hold, and the ledger alone gives them back.

The machine does what the loop does, in orders that the loop never takes: jobs of any price are granted, charged,
forfeited or left open, the supervisor dies between any two of them, and every permit is tried a second time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from selfimprove.archive.accounts import check_accounts
from selfimprove.archive.ledger import Ledger
from selfimprove.containment.budget import Budget
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import Claim, Permit, PermitBook, PermitRefused
from selfimprove.containment.policy import Limits
from selfimprove.errors import LimitReached
from selfimprove.loop.config import RunConfig
from selfimprove.loop.granting import charge, forfeit, grant, lost_cap
from selfimprove.loop.journal import Journal
from selfimprove.loop.recovery import settle_open
from selfimprove.loop.slots import Bench

GENOME = "ab" * 32
CONFIG = RunConfig("books", 0, "cpu", generations=1, candidates=1, search_seeds=1, confirm_seeds=8, alpha=0.01,
                   workers=1, allowance_flops=10**6)  # fmt: skip


@dataclass(frozen=True)
class Price:
    """What a job is granted."""

    flops: int
    parameters: int = 1
    tokens: int = 1
    steps: int = 1
    memory_bytes: int = 1


class _Deaf:
    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        pass


class Books(RuleBasedStateMachine):
    """A run's accounts and permits; ``open`` are the jobs that were granted and not settled."""

    @initialize(flops=st.integers(1, 2000), lost=st.integers(0, 500))
    def begin(self, flops: int, lost: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="books-")
        self.key = SigningKey.generate()
        self.config = replace(CONFIG, limits=Limits(flops=flops, lost_flops=lost))
        first = {"run_id": "r", "limits": {"flops": flops, "lost_flops": lost}, "public_key": self.key.public_key_hex}
        self.ledger = Ledger.create(Path(self.folder.name) / "ledger.jsonl", self.key, None, first)
        self.jobs, self.open = 0, dict[str, int]()
        self.sit_down()

    def sit_down(self) -> None:
        """What a start or a resume does: everything comes from the ledger."""
        journal = Journal(self.ledger, _Deaf())
        limits = self.config.limits
        charges = [(body["account"], body["flops"]) for body in journal.all("charge")]
        counter = max((body["counter"] for body in journal.all("permit")), default=0)
        book = PermitBook("r", self.key, last_counter=counter)
        budget = Budget.restore(limits.flops, lost_cap(limits), charges)
        self.bench = Bench(self.config, Path(), journal, None, budget, book, "r", {GENOME})  # type: ignore[arg-type]
        settle_open(journal, budget)
        self.open.clear()

    @rule(flops=st.integers(1, 400), account=st.sampled_from(["search", "confirm", "controller"]))
    def grant(self, flops: int, account: str) -> None:
        key = f"g001/c{self.jobs:02d}/s0@1/1"
        self._grant(key, account, flops)
        self.jobs += 1

    def _grant(self, key: str, account: str, flops: int) -> None:
        left, barred = self.bench.budget.left, self.bench.budget.overdrawn
        try:
            grant(self.bench, key, account, GENOME, "1/1", Price(flops))
        except LimitReached:
            assert flops > left or barred
        else:
            assert not barred
            self.open[key] = flops

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.open)))
        slot, _, stage = key.partition("@")
        self.bench.journal.record("outcome", {"key": slot, "stage": stage})
        charge(self.bench, key, self.open.pop(key))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def overrun(self, data: st.DataObject) -> None:
        """More than was granted is asked for in the end."""
        key = data.draw(st.sampled_from(sorted(self.open)))
        with pytest.raises((ValueError, LimitReached)):
            self.bench.budget.charge(key, self.open[key] + 1)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def killed(self, data: st.DataObject) -> None:
        """Its process is killed from outside: its work is lost, and it is granted again if there is room."""
        key = data.draw(st.sampled_from(sorted(self.open)))
        flops = self.open[key]
        room = lost_cap(self.config.limits) - self.bench.budget.charged["lost"]
        try:
            forfeit(self.bench, key)
        except LimitReached:
            assert flops > room
        else:
            assert flops <= room
            del self.open[key]
            self._grant(key, "search", flops)

    @rule()
    def supervisor_dies(self) -> None:
        self.sit_down()

    @precondition(lambda self: self.bench.journal.all("permit"))
    @rule(data=st.data())
    def spend_again(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.bench.journal.all("permit")))
        permit = Permit.from_json(body)
        claim = Claim(permit.run_id, permit.key, permit.genome_sha256, permit.stage)
        with pytest.raises(PermitRefused):
            self.bench.book.spend(permit, claim)

    @invariant()
    def nothing_is_overdrawn(self) -> None:
        if not hasattr(self, "bench"):
            return
        budget = self.bench.budget
        assert budget.total + budget.reserved <= self.config.limits.flops
        assert budget.overdrawn == (budget.charged["lost"] > lost_cap(self.config.limits))

    @invariant()
    def the_ledger_alone_gives_the_accounts_back(self) -> None:
        if not hasattr(self, "bench"):
            return
        limits = self.config.limits
        charges = [(body["account"], body["flops"]) for body in self.bench.journal.all("charge")]
        assert Budget.restore(limits.flops, lost_cap(limits), charges).charged == self.bench.budget.charged
        assert not list(check_accounts(self.ledger.entries))
        counters = [body["counter"] for body in self.bench.journal.all("permit")]
        assert counters == sorted(set(counters))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.ledger.close()
            self.folder.cleanup()


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
