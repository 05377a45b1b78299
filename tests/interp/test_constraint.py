"""Retention counts sequences that hold the halt constraint throughout."""

from __future__ import annotations

from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.bench import Bench, Plan, Reading
from interp.cache import LayerwiseCache
from interp.constraint import bench_retention, retention
from interp.verdict import NotApplicable, Unreadable
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.batch import HALTED
from selfimprove.tasks.suite import TaskSuite

OTHER = HALTED + 1


def reading(answers: list[list[int]], halted: list[list[int]]) -> Reading:
    """A model's answers at each position, and whether the position is halted."""
    after = torch.tensor(halted)
    return Reading(
        tokens=torch.zeros_like(after),
        targets=torch.where(after == 1, HALTED, OTHER),
        latents={"halted": after},
        source=None,
        logits=F.one_hot(torch.tensor(answers), 8).float(),
        residual=torch.zeros(1, *after.shape, 4),
        cache=cast(LayerwiseCache, None),
    )


def test_one_slip_after_the_halt_token_loses_the_sequence() -> None:
    after = [[0, 1, 1], [0, 1, 1]]
    result = retention([reading([[OTHER, HALTED, HALTED], [OTHER, HALTED, OTHER]], after)])
    assert (result.sequences.kept, result.sequences.n) == (1, 2)
    assert (result.positions_kept, result.positions) == (3, 4)
    assert result.sequences.low < 0.5 < result.sequences.high


def test_answers_before_the_halt_token_do_not_count() -> None:
    result = retention(
        [reading([[HALTED, HALTED, HALTED]], [[0, 0, 1]]), reading([[OTHER, OTHER, HALTED]], [[0, 0, 1]])]
    )
    assert (result.sequences.kept, result.sequences.n, result.positions) == (2, 2, 2)


def test_sequences_without_a_halt_token_are_not_counted() -> None:
    result = retention([reading([[OTHER, OTHER], [OTHER, HALTED]], [[0, 0], [0, 1]])])
    assert (result.sequences.kept, result.sequences.n) == (1, 1)


def test_no_halted_position_is_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="halted"):
        retention([reading([[OTHER]], [[0]])])


def test_non_finite_logits_are_unreadable() -> None:
    broken = reading([[HALTED]], [[1]])
    broken.logits[0, 0, 0] = float("inf")
    with pytest.raises(Unreadable, match="non-finite"):
        retention([broken])


def test_a_model_that_only_says_halted_keeps_every_sequence(model: Transformer, suite: TaskSuite, plan: Plan) -> None:
    with torch.no_grad():
        model.ln_final.w.zero_()
        bias: Tensor | None = model.ln_final.b
        assert bias is not None
        bias.copy_(model.W_U[:, HALTED] * 100)
    result = bench_retention(Bench(model, suite, plan))
    assert result.sequences.kept == result.sequences.n == len(suite.families) * plan.test_sequences
