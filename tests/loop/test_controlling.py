"""A controller is not trusted: its crash costs its proposals, its floods are cut, and what we stop stays stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.ledger import Ledger
from selfimprove.containment.budget import Budget
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import PermitBook
from selfimprove.containment.policy import Limits
from selfimprove.controller import registry
from selfimprove.controller.adversary import FLOOD, AdversarialProposer
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.proposer import Proposal, Update
from selfimprove.errors import Halted, InvalidGenome, LimitReached, Stopped
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.space import Space
from selfimprove.loop.clock import Clock
from selfimprove.loop.config import RunConfig
from selfimprove.loop.controlling import Controlling
from selfimprove.loop.journal import Journal
from selfimprove.loop.laboratory import Laboratory
from selfimprove.loop.slots import Bench

CONFIG = RunConfig(
    "test", 0, "cpu", generations=2, candidates=4, search_seeds=1, confirm_seeds=8, alpha=0.01, workers=1,
    allowance_flops=10**9, controller=ControllerConfig(name="odd"),
)  # fmt: skip


class Silent:
    def on_event(self, kind: str, body: Mapping[str, Any]) -> None: ...


class Refusing:
    """Stands where the supervisor stands, and lets nothing run."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def run(self, *_: Any, **__: Any) -> Any:
        raise self.error


class Odd:
    """A controller whose answers are given."""

    def __init__(self, ask: Callable[[], Any], tell: Callable[[], Any] = lambda: Update(flops=0)) -> None:
        self._ask, self._tell = ask, tell

    def ask(self, *_: Any) -> Any:
        return self._ask()

    def tell(self, *_: Any) -> Any:
        return self._tell()

    def restore(self, weights: Path | None) -> None: ...


def raiser(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return bench_of(CONFIG, tmp_path)


def bench_of(config: RunConfig, folder: Path, supervisor: Any = None) -> Bench:
    key = SigningKey.generate()
    journal = Journal(Ledger.create(folder / "ledger.jsonl", key, None, {"run_id": "r"}), Silent())
    budget = Budget(config.limits.flops, config.limits.lost_flops)
    return Bench(config, folder, journal, supervisor, budget, PermitBook("r", key), "r", set())


def controlling(bench: Bench, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]) -> Controlling:
    monkeypatch.setitem(registry.CONTROLLERS, "odd", make)
    return Controlling(bench, Space(CONFIG.space))


@pytest.mark.parametrize(
    "error",
    [ValueError("\x1b[2Jno"), RecursionError(), MemoryError(), OSError(28, "full"), InvalidGenome("x"), Halted("mine")],
    ids=lambda error: type(error).__name__,
)
def test_a_controller_that_crashes_costs_its_proposals_and_not_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = controlling(bench, monkeypatch, lambda *_: Odd(raiser(error), raiser(error)))
    proposals = found.ask(1, CONFIG.seed_genome)
    assert len(proposals) == CONFIG.candidates
    assert not any(proposal.flaw for proposal in proposals)
    found.tell(1)
    for kind in ("ask", "controller"):
        [body] = bench.journal.all(kind)
        assert body["reason"]
        assert body["reason"].isprintable()


@pytest.mark.parametrize("answer", [None, 5, [None] * 9, "recipe.batch=8"])
def test_an_answer_that_is_no_list_of_proposals_is_one_more_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    found = controlling(bench, monkeypatch, lambda *_: Odd(lambda: answer, lambda: answer))
    assert len(found.ask(1, CONFIG.seed_genome)) == CONFIG.candidates
    found.tell(1)


def test_a_flood_is_cut_to_what_was_asked_for_and_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = controlling(bench, monkeypatch, lambda *_: AdversarialProposer())
    proposals = found.ask(1, CONFIG.seed_genome)
    [body] = bench.journal.all("ask")
    assert (len(proposals), len(body["proposals"]), body["surplus"]) == (4, 4, FLOOD)


def test_an_endless_answer_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfimprove.loop.controlling.FLOOD", 50)
    endless = iter(lambda: Proposal(0, (parse_edit("recipe.batch=16"),)), None)
    assert len(controlling(bench, monkeypatch, lambda *_: Odd(lambda: endless)).ask(1, CONFIG.seed_genome)) == 4
    assert bench.journal.all("ask")[0]["surplus"] == 50


def test_what_was_asked_is_read_the_same_when_a_run_is_resumed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = controlling(bench, monkeypatch, lambda *_: AdversarialProposer())
    first = found.ask(1, CONFIG.seed_genome)
    again = controlling(bench, monkeypatch, lambda *_: Odd(raiser(AssertionError("asked twice"))))
    assert again.ask(1, CONFIG.seed_genome) == first


def test_lies_about_an_update_are_not_repeated_in_the_ledger(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    controlling(bench, monkeypatch, lambda *_: AdversarialProposer()).tell(1)
    [body] = bench.journal.all("controller")
    assert (body["flops"], body["loss"], body["entropy"], body["weights"]) == (0, None, None, None)


@pytest.mark.parametrize("error", [Halted("run jobs"), LimitReached("train"), OSError(28, "full")], ids=str)
def test_what_stops_a_controllers_job_from_our_side_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench = bench_of(CONFIG, tmp_path, Refusing(error))

    class Asking(Odd):
        def __init__(self, config: Any, space: Any, execute: Any, genome_of: Any) -> None:
            super().__init__(lambda: execute({"entry": "x", "op": "ask", "flops": 1}, {}, ()))

    found = controlling(bench, monkeypatch, Asking)
    with pytest.raises(type(error)):
        found.ask(1, CONFIG.seed_genome)
    assert not bench.journal.all("ask")


def test_forbidden_edits_count_against_the_limit_on_denied_edits(tmp_path: Path) -> None:
    config = replace(CONFIG, limits=Limits(denied_edits=2), controller=ControllerConfig(name="adversary"))
    lab = Laboratory(bench_of(config, tmp_path), {}, Clock([], time.monotonic()))
    for index in range(3):
        lab.check_limits(1)
        body = {"generation": 0, "index": index, "status": "invalid", "edits": ["limits.flops=1"], "reach": "forbidden"}
        lab.journal.record("proposal", body)
    with pytest.raises(Stopped, match="denied_edits"):
        lab.check_limits(1)
