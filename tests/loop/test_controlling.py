"""A controller is not trusted: its crash costs its proposals, its floods are cut, and what we stop stays stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment.policy import Limits
from selfimprove.containment.supervisor import Completed, Crashed, Job, Usage
from selfimprove.controller import registry
from selfimprove.controller.adversary import FLOOD, AdversarialProposer
from selfimprove.controller.answers import ENTRY
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.lessons import label
from selfimprove.controller.proposer import Proposal, Update
from selfimprove.errors import Halted, InvalidGenome, LimitReached, Stopped
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.space import Space
from selfimprove.loop.clock import Clock
from selfimprove.loop.config import RunConfig
from selfimprove.loop.controlling import Controlling
from selfimprove.loop.laboratory import Laboratory
from selfimprove.loop.slots import Bench
from tests.loop.played import bench_of

CONFIG = RunConfig(
    "test", 0, "cpu", generations=2, candidates=4, search_seeds=1, confirm_seeds=8, alpha=0.01, workers=1,
    allowance_flops=10**9, controller=ControllerConfig(name="odd"),
)  # fmt: skip


PRICE = {"parameters": 1, "flops": 1, "tokens": 1, "steps": 1, "memory_bytes": 1}


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


def test_first_generations_that_are_to_be_random_are_so_whatever_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for name in ("odd", "random"):
        config = replace(CONFIG, controller=replace(CONFIG.controller, name=name, initial_random=1))
        monkeypatch.setitem(registry.CONTROLLERS, "odd", lambda *_: Odd(raiser(AssertionError("too early"))))
        (tmp_path / name).mkdir()
        bench = bench_of(config, tmp_path / name)
        found = Controlling(bench, Space(config.space))
        asked.append(found.ask(1, config.seed_genome))
        found.ask(2, config.seed_genome)
        reasons = [body["reason"] for body in bench.journal.all("ask")]
        assert (reasons[0], bool(reasons[1])) == ("", name == "odd")
    assert asked[0] == asked[1]


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
        def __init__(self, config: Any, space: Any, execute: Any, genome_of: Any, seed: int) -> None:
            super().__init__(lambda: execute({"entry": ENTRY, "op": "ask", "price": PRICE}, {}, ()))

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


LEARNED = replace(CONFIG, controller=ControllerConfig(width=32, batch=8, steps=2), search_seeds=2)


class Answering:
    """Stands where the supervisor stands: hears the jobs of the learned controller and gives an empty answer."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []

    def run(self, jobs: list[Job], on_start: Callable[[int], None] | None = None) -> Any:
        for index, job in enumerate(jobs):
            assert on_start is not None
            on_start(index)
            self.payloads.append(job.payload)
            diverged = {"diverged": True, "loss": 0.0, "entropy": 0.0}
            yield index, Completed({"proposals": []} if job.payload["op"] == "ask" else diverged, {}, Usage())


def proposed(bench: Bench, n: int, index: int, *skills: tuple[float, float], text: str = "recipe.batch=16") -> None:
    """A proposal that was trained on a seed for each pair of skills, its own and its parent's."""
    body = {"generation": n, "index": index, "parent": CONFIG.seed_genome.sha256, "edits": [text], "status": "valid"}
    bench.journal.record("proposal", body)
    for s, pair in enumerate(skills):
        for name, skill in zip((f"c{index:02d}", "parent"), pair, strict=True):
            key = f"g{n:03d}/{name}/s{s}/search"
            if bench.journal.find("evaluation", key) is None:
                bench.journal.record("evaluation", {"key": key, "score": {"skill": skill}})
    if skills:
        own, parent = (sum(side) / len(skills) for side in zip(*skills, strict=True))
        bench.journal.record("score", {"generation": n, "index": index, "skill": own})
        bench.journal.once("reference", (n,), lambda: {"generation": n, "skill": parent})


def test_a_controllers_permit_says_what_its_job_takes(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path, Answering())
    found = Controlling(bench, Space(CONFIG.space))
    found.ask(1, CONFIG.seed_genome)
    proposed(bench, 1, 0)
    found.tell(1)
    permits, payloads = bench.journal.all("permit"), bench.supervisor.payloads  # type: ignore[attr-defined]
    assert [p["key"] for p in permits] == ["g001/ask", "g001/tell"]
    for permit, payload in zip(permits, payloads, strict=True):
        assert {name: permit[name] for name in ("flops", "tokens", "steps")} == {
            name: payload["price"][name] for name in ("flops", "tokens", "steps")
        }
    assert permits[1]["steps"] == LEARNED.controller.steps + 1
    assert permits[1]["tokens"] > 100 * permits[1]["steps"]
    assert bench.journal.find("genome", LEARNED.controller.genome().sha256) is not None


@pytest.mark.parametrize("limit", ["parameters", "tokens", "memory_bytes", "candidate_flops", "checkpoint_bytes"])
def test_a_controller_over_a_limit_on_candidates_is_not_run_and_the_loop_goes_on(tmp_path: Path, limit: str) -> None:
    config = replace(LEARNED, limits=replace(LEARNED.limits, **{limit: 1000}))
    bench = bench_of(config, tmp_path, Answering())
    found = Controlling(bench, Space(CONFIG.space))
    assert len(found.ask(1, CONFIG.seed_genome)) == CONFIG.candidates
    proposed(bench, 1, 0)
    found.tell(1)
    for kind in ("ask", "controller"):
        [body] = bench.journal.all(kind)
        assert f"over limits.{limit} = 1000" in body["reason"]
    assert not bench.journal.all("permit")
    assert not bench.supervisor.payloads  # type: ignore[attr-defined]


def test_a_lesson_that_failed_says_what_it_was_charged(tmp_path: Path) -> None:
    class Failing(Answering):
        def run(self, jobs: list[Job], on_start: Callable[[int], None] | None = None) -> Any:
            for index, _ in super().run(jobs, on_start):
                yield index, Crashed("MemoryError", Usage())

    bench = bench_of(LEARNED, tmp_path, Failing())
    proposed(bench, 1, 0)
    Controlling(bench, Space(CONFIG.space)).tell(1)
    [told], [charged] = bench.journal.all("controller"), bench.journal.all("charge")
    assert (told["weights"], "MemoryError" in told["reason"]) == (None, True)
    assert told["flops"] == charged["flops"] > 0


def test_a_job_that_the_budget_does_not_cover_ends_the_run_and_says_how_much_is_left(tmp_path: Path) -> None:
    config = replace(LEARNED, limits=replace(LEARNED.limits, flops=10**6, lost_flops=10**4))
    with pytest.raises(LimitReached) as caught:
        Controlling(bench_of(config, tmp_path, Answering()), Space(CONFIG.space)).ask(1, CONFIG.seed_genome)
    assert caught.value.limit == "990,000 left"
    assert "raise limits.flops and start a new run" in str(caught.value)


def test_every_job_of_a_run_starts_from_the_same_initial_weights_until_some_are_kept(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path, Answering())
    for n in (1, 2):
        found = Controlling(bench, Space(CONFIG.space))  # as on resume
        found.ask(n, CONFIG.seed_genome)
        proposed(bench, n, 0)
        found.tell(n)  # diverges, and is dropped
    payloads = bench.supervisor.payloads  # type: ignore[attr-defined]
    assert [payload["op"] for payload in payloads] == ["ask", "tell", "ask", "tell"]
    assert len({payload["init"] for payload in payloads}) == 1
    assert len({payload["seed"] for payload in payloads}) == 4


def test_a_gain_comes_with_its_standard_error_over_the_search_seeds(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    proposed(bench, 1, 0, (0.30, 0.10), (0.20, 0.10))  # gains 0.2 and 0.1
    proposed(bench, 1, 1, (0.14, 0.10), (0.16, 0.10))  # 0.04 and 0.06
    proposed(bench, 1, 2, (0.12, 0.10), (0.12, 0.10))  # 0.02 twice, by chance
    proposed(bench, 1, 3)  # never trained
    found = Controlling(bench, Space(CONFIG.space)).history()
    errors = [one.standard_error for one in found]
    assert errors == [pytest.approx(0.05), pytest.approx(0.01), pytest.approx(0.01), None]
    assert [one.gain for one in found][:3] == [pytest.approx(0.15), pytest.approx(0.05), pytest.approx(0.02)]


def test_a_gain_within_its_noise_is_no_success_to_learn_from(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    proposed(bench, 1, 0, (0.26, 0.10), (0.02, 0.10))  # gains 0.16 and -0.08: 0.04 with an error of 0.12
    proposed(bench, 1, 1, (0.15, 0.10), (0.13, 0.10))
    proposed(bench, 1, 2, (0.11, 0.10), (0.10, 0.10))
    noisy, sure, none = Controlling(bench, Space(CONFIG.space)).history()
    assert [one.outcome for one in (noisy, sure, none)] == ["better", "better", "same"]
    assert [label(one) for one in (noisy, sure, none)] == ["same", "better", "same"]


def test_one_search_seed_says_nothing_about_the_error_of_a_gain(tmp_path: Path) -> None:
    bench = bench_of(replace(LEARNED, search_seeds=1), tmp_path)
    proposed(bench, 1, 0, (0.30, 0.10))
    assert [one.standard_error for one in Controlling(bench, Space(CONFIG.space)).history()] == [None]


def cut_after(bench: Bench, index: int, *skills: float) -> None:
    """A candidate of generation 1 that was cut at 1/9 with these skills."""
    for s, skill in enumerate(skills):
        body = {"key": f"g001/c{index:02d}/s{s}", "stage": "1/9"}
        bench.journal.record("reading", body | {"go": True, "reason": "", "score": {"skill": skill}})
        bench.journal.record("outcome", body | {"status": "stopped", "reason": "", "files": {}})


def rung(bench: Bench, cut: list[int], audited: list[int]) -> None:
    body = {"generation": 1, "stage": "1/9", "kept": [], "audited": audited, "cut": cut, "skills": {}}
    bench.journal.record("rung", body)
    for s, skill in enumerate((0.10, 0.08)):
        read = {"key": f"g001/parent/s{s}", "stage": "1/9", "go": True, "reason": "", "score": {"skill": skill}}
        bench.journal.record("reading", read)


def test_a_candidate_that_a_rung_cut_is_told_by_what_was_read_on_that_rung(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    for index in range(4):
        proposed(bench, 1, index)
    for index, skills in enumerate(((0.05, 0.01), (0.20, 0.24), (0.10, 0.08))):
        cut_after(bench, index, *skills)
    rung(bench, [0, 1, 2], [])
    behind, ahead, level, failed = Controlling(bench, Space(CONFIG.space)).history()
    assert (behind.outcome, behind.gain) == ("worse", pytest.approx(-0.06))
    assert behind.standard_error == pytest.approx(0.01)
    assert (ahead.outcome, ahead.gain) == ("better", pytest.approx(0.13))
    assert (level.outcome, level.gain) == ("same", 0.0)
    assert (failed.outcome, failed.gain) == ("failed", None)


def test_no_candidate_that_a_rung_cut_is_told_as_better_than_the_best_that_it_let_go_on(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    bench.journal.record("reference", {"generation": 1, "skill": 0.1, "failed": 0})
    proposed(bench, 1, 0)
    for index, skill in ((1, 0.15), (2, 0.9)):  # the second went on by lot
        proposed(bench, 1, index, (skill, 0.1), (skill, 0.1))
    cut_after(bench, 0, 0.40, 0.38)
    rung(bench, [0], [2])
    cut, best, audited = Controlling(bench, Space(CONFIG.space)).history()
    assert (cut.outcome, cut.gain) == ("better", pytest.approx(0.05))
    assert best.gain == pytest.approx(0.05)
    assert audited.gain == pytest.approx(0.8)


def test_what_failed_its_confirmation_is_told_as_no_gain_and_not_by_how_much(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    bench.journal.record("reference", {"generation": 1, "skill": 0.1, "failed": 0})
    for index, skill in enumerate((0.3, 0.3, 0.05)):
        proposed(bench, 1, index, (skill, 0.1), (skill, 0.1))
    for index, promoted in ((0, False), (2, False)):
        bench.journal.record("confirmation", {"generation": 1, "index": index, "difference": 0.004})
        bench.journal.record("decision", {"generation": 1, "index": index, "promoted": promoted})
    told = [(one.outcome, one.gain) for one in Controlling(bench, Space(CONFIG.space)).history()]
    assert told == [("same", 0.0), ("better", pytest.approx(0.2)), ("same", pytest.approx(-0.05))]


def test_a_denial_for_an_empty_account_says_nothing_of_the_edits(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    for index, limit in enumerate(("parameters", "flops")):
        proposed(bench, 1, index)
        bench.journal.record("denial", {"generation": 1, "index": index, "limit": limit})
    dear, broke = Controlling(bench, Space(CONFIG.space)).history()
    assert (dear.outcome, dear.is_unjudged) == ("denied", False)
    assert (broke.outcome, broke.is_unjudged) == ("same", True)


def test_over_a_parent_that_could_not_be_trained_again_no_gain_is_known(tmp_path: Path) -> None:
    bench = bench_of(LEARNED, tmp_path)
    bench.journal.record("reference", {"generation": 1, "skill": 0.0, "failed": 1})
    for index in range(3):
        proposed(bench, 1, index, (0.8, 0.0))
    proposed(bench, 1, 3)
    bench.journal.record("rung", {"generation": 1, "stage": "1/9", "kept": [], "audited": [], "cut": [3], "skills": {}})
    bench.journal.record("confirmation", {"generation": 1, "index": 1, "difference": 0.03})
    bench.journal.record("decision", {"generation": 1, "index": 1, "promoted": True})
    told = [(one.outcome, one.gain) for one in Controlling(bench, Space(CONFIG.space)).history()]
    assert told == [("same", None), ("promoted", 0.03), ("same", None), ("same", None)]
