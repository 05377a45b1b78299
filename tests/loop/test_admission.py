"""Admission: invalid, known, over-priced and unsound proposals never reach training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import selfimprove.loop.admission
from selfimprove.containment.supervisor import Completed, Crashed, Job, Usage
from selfimprove.errors import LimitReached
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.space import Space
from selfimprove.loop.admission import Admission, Candidate
from selfimprove.loop.config import RunConfig
from selfimprove.loop.submission import Submission
from selfimprove.training import worker
from tests.loop.played import bench_of

CONFIG = RunConfig(
    "test", 0, "cpu", generations=2, candidates=4, search_seeds=1, confirm_seeds=8, alpha=0.01, workers=1,
    allowance_flops=10**9,
)  # fmt: skip


class Inline:
    """Stands where the supervisor stands; runs a worker's code in this process, or gives a set answer."""

    def __init__(self, answer: dict[str, Any] | None = None) -> None:
        self.answer = answer

    def run(self, jobs: list[Job], on_start: object = None) -> Iterator[tuple[int, Completed]]:
        for index, job in enumerate(jobs):
            found = self.answer if self.answer is not None else worker.run(job.payload, {}, {}, lambda _: None)
            yield index, Completed(found, {}, Usage())


def admission(folder: Path, supervisor: Inline, config: RunConfig = CONFIG) -> Admission:
    return Admission(bench_of(config, folder, supervisor), Space(config.space))


def admitted(found: Admission, n: int, proposals: list[Submission]) -> list[Candidate]:
    return found.quote(n, CONFIG.seed_genome, found.apply(n, CONFIG.seed_genome, proposals))


def outcomes(found: Admission, n: int, *texts: str) -> list[tuple[str, str]]:
    proposals = [Submission.of([parse_edit(part) for part in text.split("; ")]) for text in texts]
    admitted(found, n, proposals)
    bodies = [body for body in found.journal.all("proposal") if body["generation"] == n]
    return [(body["status"], body["reason"]) for body in bodies]


def test_a_loss_with_the_gradient_of_its_parents_is_a_duplicate_of_the_parent(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline())
    [(status, reason)] = outcomes(found, 1, "objective.expression=abs(_)")
    assert status == "duplicate"
    assert CONFIG.seed_genome.short in reason
    assert not found.journal.all("denial")


def test_two_losses_with_one_gradient_are_trained_once_and_only_with_the_same_rest(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline())
    smooth = "objective.expression=sub(_, mul(0.1, mean(log_softmax(logits(0)))))"
    same = f"{smooth}; objective.expression=abs(_)"
    statuses = outcomes(found, 1, smooth, same, f"{smooth}; recipe.batch=32")
    assert [status for status, _ in statuses] == ["valid", "duplicate", "valid"]
    assert [status for status, _ in outcomes(found, 2, same)] == ["duplicate"]


def test_a_genome_that_was_proposed_before_is_a_duplicate_in_every_later_generation(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline())
    assert [s for s, _ in outcomes(found, 1, "recipe.batch=32", "recipe.batch=32")] == ["valid", "duplicate"]
    assert [s for s, _ in outcomes(found, 2, "recipe.batch=32")] == ["duplicate"]


def test_admitting_again_after_a_crash_admits_the_same_whatever_is_left_by_then(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline())
    proposals = [
        Submission.of([parse_edit(text)])
        for text in ("recipe.batch=32", "objective.expression=abs(_)", "architecture.norm=rmsnorm")
    ]
    first = admitted(found, 1, proposals)
    assert [candidate.index for candidate in first] == [0, 2]
    found.bench.budget.reserve("g001/c00/s0@1/1", "search", found.bench.budget.left)
    found.bench.budget.charge("g001/c00/s0@1/1", found.bench.budget.left + found.bench.budget.reserved)
    assert admitted(found, 1, proposals) == first


@pytest.mark.parametrize("trainings", range(12, 32))
def test_what_is_admitted_leaves_enough_for_its_parent_and_a_confirmation(tmp_path: Path, trainings: int) -> None:
    flops = trainings * CONFIG.allowance_flops
    config = replace(CONFIG, limits=replace(CONFIG.limits, flops=flops, lost_flops=0))
    found = admission(tmp_path, Inline(), config)
    texts = [f"recipe.learning_rate={rate}" for rate in (0.001, 0.002, 0.0005)]
    proposals = [Submission.of([parse_edit(text)]) for text in texts]
    prices = 17 * CONFIG.allowance_flops  # the parent, and eight seeds of it and of a candidate
    try:
        given = admitted(found, 1, proposals)
    except LimitReached:
        assert flops < prices + CONFIG.allowance_flops
        return
    assert 1 <= len(given) <= (flops - prices) / found.bench.price(CONFIG.seed_genome, CONFIG.tasks).flops + 1


class Fragile(Inline):
    """A screen that dies over losses with a certain word, and of more than one loss at once."""

    def run(self, jobs: list[Job], on_start: object = None) -> Iterator[tuple[int, Any]]:
        for index, job in enumerate(jobs):
            if any("exp" in text for text in job.payload["expressions"].values()):
                yield index, Crashed("SIGSEGV", Usage())
            else:
                yield from super().run([job])


def test_a_loss_that_kills_the_screen_costs_only_itself(tmp_path: Path) -> None:
    found = admission(tmp_path, Fragile())
    outcomes(found, 1, "recipe.batch=32", "objective.expression=exp(_)")
    [denial] = found.journal.all("denial")
    assert (denial["index"], found.journal.find("admission", 1)["admitted"]) == (1, [0])  # type: ignore[index]
    assert "SIGSEGV" in denial["reason"]


def test_a_screen_that_failed_once_does_not_end_the_recognition_of_duplicates(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline({}))
    outcomes(found, 1, "recipe.batch=32")
    found.bench.supervisor.answer = None  # type: ignore[attr-defined]
    [(status, reason)] = outcomes(found, 2, "objective.expression=abs(_)")
    assert status == "duplicate"
    assert CONFIG.seed_genome.short in reason


def test_losses_travel_under_short_names_however_long_they_are(tmp_path: Path) -> None:
    asked: list[str] = []

    class Noting(Inline):
        def run(self, jobs: list[Job], on_start: object = None) -> Iterator[tuple[int, Completed]]:
            asked.extend(name for job in jobs for name in job.payload["expressions"])
            return super().run(jobs, on_start)

    wrap = "objective.expression=sub(_, mul(0.12345678, mean(log_softmax(logits(0)))))"
    assert outcomes(admission(tmp_path, Noting()), 1, f"{wrap}; {wrap}") == [("valid", "")]
    assert asked == ["0", "1"]  # a name longer than a JSON key may be would have been refused with its whole answer


@pytest.mark.parametrize("stumbles", ["reach", "apply_all"])
def test_a_proposal_that_our_own_code_stumbles_over_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stumbles: str
) -> None:
    real = getattr(selfimprove.loop.admission, stumbles)

    def stumble(edits: Any, *rest: Any) -> Any:
        if edits[0].path == "recipe.batch":
            raise RecursionError("too deep")
        return real(edits, *rest)

    monkeypatch.setattr(selfimprove.loop.admission, stumbles, stumble)
    found = admission(tmp_path, Inline())
    statuses = outcomes(found, 1, "recipe.batch=32", "architecture.norm=rmsnorm")
    assert statuses[1] == ("valid", "")
    assert statuses[0] == (("valid", "") if stumbles == "reach" else ("invalid", "RecursionError: too deep"))


def test_a_step_that_costs_more_than_the_whole_allowance_is_denied_in_these_words(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline())
    outcomes(found, 1, "recipe.batch=64; architecture.width=128")
    [denial] = found.journal.all("denial")
    assert (denial["limit"], denial["bound"]) == ("allowance_flops", CONFIG.allowance_flops)
    assert denial["value"] > denial["bound"]
    assert "one step costs" in denial["reason"]


@pytest.mark.parametrize(
    "limit", ["candidate_flops", "parameters", "tokens", "memory_bytes", "checkpoint_bytes", "gpu_memory_bytes"]
)
def test_a_candidate_over_a_limit_is_denied_before_anything_is_spent_on_it(tmp_path: Path, limit: str) -> None:
    config = replace(CONFIG, limits=replace(CONFIG.limits, **{limit: 100}))
    found = admission(tmp_path, Inline(), replace(config, device="cuda") if limit == "gpu_memory_bytes" else config)
    outcomes(found, 1, "recipe.batch=32")
    [denial] = found.journal.all("denial")
    assert denial["limit"] == limit
    assert denial["value"] > denial["bound"]
    assert not found.journal.all("permit")


@pytest.mark.parametrize("answer", [{}, {"results": 3}, {"results": {"x": 1}}])
def test_a_screen_that_answers_nonsense_admits_nothing(tmp_path: Path, answer: dict[str, Any]) -> None:
    found = admission(tmp_path, Inline(answer))
    outcomes(found, 1, "recipe.batch=32")
    [denial] = found.journal.all("denial")
    assert "screen" in denial["reason"]
