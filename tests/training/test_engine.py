"""The reference engine: deterministic, honest about divergence, and it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.nets import cost
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.data import training_batches
from selfimprove.training.engine import TrainResult, train
from selfimprove.training.optimizers import hidden_matrix, orthogonalize

TASKS = TasksConfig()
OPTIMIZERS = ("adamw", "lion", "muon", "sgd")


def run(genome: Genome, steps: int = 20, device: str = "cpu") -> TrainResult:
    source = training_batches(TaskSuite(TASKS), batch=genome.recipe.batch, seed=0, device=device)
    return train(genome, source, vocab_size=24, context=24, steps=steps, seed=0, device=device, constraint_weight=0.25)


def with_recipe(**changes: object) -> Genome:
    genome = seed_genome(learning_rate=3e-3, batch=8)
    return replace(genome, recipe=replace(genome.recipe, **changes))


def test_the_same_seed_gives_the_same_bits() -> None:
    torch.set_num_threads(1)
    first, second = run(with_recipe()), run(with_recipe())
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_brings_the_loss_down(optimizer: str) -> None:
    rate = 0.05 if optimizer == "sgd" else 5e-4 if optimizer == "lion" else 3e-3
    genome = with_recipe(optimizer=optimizer, learning_rate=rate)
    # one batch again and again: its loss has no sampling noise
    tokens, targets = training_batches(TaskSuite(TASKS), batch=8, seed=0)(0)
    result = train(genome, lambda _: (tokens, targets), vocab_size=24, context=24, steps=40, seed=0)
    assert result.losses[-1] < 0.95 * result.losses[0]


def test_a_loss_that_is_not_finite_ends_training_as_diverged() -> None:
    result = run(with_recipe(optimizer="sgd", learning_rate=1e9, clip=0.0), steps=40)
    assert result.diverged


def test_the_newton_schulz_iteration_orthogonalizes() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(16, 64, generator=torch.Generator().manual_seed(0))))
    assert ((values > 0.5) & (values < 1.5)).all()


def test_muon_takes_the_matrices_that_the_quote_prices() -> None:
    names = cost.parameter_shapes(seed_genome().architecture, 24, 24)
    assert [n for n in names if hidden_matrix(n)] == [n for n in names if cost.is_muon_matrix(n)]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_on_a_gpu_parameters_batches_and_loss_are_there_uncontained() -> None:
    source = training_batches(TaskSuite(TASKS), batch=8, seed=0, device="cuda")
    assert all(tensor.is_cuda for tensor in source(0))
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    assert not run(with_recipe(), device="cuda").diverged
    assert torch.cuda.memory_stats()["allocation.all.allocated"] > before
