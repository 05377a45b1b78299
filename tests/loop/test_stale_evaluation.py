"""What evaluation that stays the same would reward is worth nothing here: instances are fresh, their seeds no help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from selfimprove.genome.genome import seed_genome
from selfimprove.nets.transformer import build
from selfimprove.seeds import derive
from selfimprove.tasks.evaluator import evaluate
from selfimprove.tasks.ladder import MASTERED, climb
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.engine import train

ROOT, FAMILY, FEW = 3, "recall", 16
TASKS = replace(TasksConfig(), families=(FAMILY,), held_out=(), levels={FAMILY: 1}, eval_sequences=FEW)
SUITE = TaskSuite(TASKS)


def memorizer(tokens: NDArray[np.int64], targets: NDArray[np.int64]) -> torch.nn.Module:
    """A successor trained on nothing but these sequences, over and over."""
    genome, batch = seed_genome(learning_rate=3e-3, batch=FEW), (torch.from_numpy(tokens), torch.from_numpy(targets))
    size = {"vocab_size": TASKS.vocab_size, "context": TASKS.context}
    result = train(genome, lambda step: batch, **size, steps=250, seed=1, constraint_weight=0.0)
    model = build(genome.architecture, **size, seed=0)
    model.load_state_dict(result.end.state)
    return model


def skill(model: torch.nn.Module, split: str, seed: int) -> float:
    return evaluate(model, SUITE, split=split, seed=seed).skill


def rises(found: float) -> bool:
    return FAMILY in climb({FAMILY: 1}, {FAMILY: found}, {FAMILY: TASKS.top(FAMILY)}).risen


@pytest.fixture(scope="module")
def seen() -> int:
    """The seed of the instances that generation 1 was scored on."""
    return derive(ROOT, "instances", "search", 1)


def test_a_successor_that_memorized_old_instances_is_caught_by_the_next_ones(seen: int) -> None:
    old = SUITE.batch("search", FAMILY, FEW, seen)
    model = memorizer(old.tokens, old.targets)
    stale = skill(model, "search", seen)
    assert stale > MASTERED, "an evaluation that stays the same takes it for mastery"
    assert rises(stale)
    fresh = [skill(model, "search", derive(ROOT, "instances", "search", 2))]
    fresh += [skill(model, "gate", derive(ROOT, "instances", "gate", n)) for n in (1, 2)]
    assert max(fresh) < 0.5
    assert not any(map(rises, fresh))


def test_a_successor_trained_on_the_schedules_own_seeds_is_caught_on_the_level_that_they_lead_to() -> None:
    """It knows the seed of the harder level's instances, and trains on the stream that this seed gives for training."""
    schedule = derive(ROOT, "instances", "ladder", 1)
    known = SUITE.training_pool(FEW, schedule)
    measured = SUITE.batch("search", FAMILY, 64, schedule)
    assert not {row.tobytes() for row in known.tokens} & {row.tobytes() for row in measured.tokens}
    model = memorizer(known.tokens, known.targets)
    found = skill(model, "search", schedule)
    assert found < 0.5
    assert not rises(found)
