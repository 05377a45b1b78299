"""Admission: invalid, known, over-priced and unsound proposals never reach training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.ledger import Ledger
from selfimprove.containment.budget import Budget
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import PermitBook
from selfimprove.containment.supervisor import Completed, Job, Usage
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.space import Space
from selfimprove.loop.admission import Admission
from selfimprove.loop.config import RunConfig
from selfimprove.loop.journal import Journal
from selfimprove.loop.slots import Bench
from selfimprove.loop.submission import Submission
from selfimprove.training import worker

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


class Silent:
    def on_event(self, kind: str, body: Mapping[str, Any]) -> None: ...


def admission(folder: Path, supervisor: Inline, config: RunConfig = CONFIG) -> Admission:
    key = SigningKey.generate()
    journal = Journal(Ledger.create(folder / "ledger.jsonl", key, None, {"run_id": "r"}), Silent())
    budget = Budget(config.limits.flops, config.limits.lost_flops)
    bench = Bench(config, folder, journal, supervisor, budget, PermitBook("r", key), "r", set())  # type: ignore[arg-type]
    return Admission(bench, Space(config.space))


def outcomes(found: Admission, n: int, *texts: str) -> list[tuple[str, str]]:
    proposals = [Submission.of([parse_edit(part) for part in text.split("; ")]) for text in texts]
    found.admit(n, CONFIG.seed_genome, proposals)
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


def test_admitting_again_after_a_crash_gives_the_same_records(tmp_path: Path) -> None:
    found = admission(tmp_path, Inline())
    first = outcomes(found, 1, "recipe.batch=32", "objective.expression=abs(_)", "recipe.batch=16")
    assert outcomes(found, 1, "recipe.batch=32", "objective.expression=abs(_)", "recipe.batch=16") == first


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
