"""The reference engine: deterministic, honest about divergence, and it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from selfimprove.genome.edits import parse_edit
from selfimprove.genome.expression import parse
from selfimprove.genome.genome import Genome, Objective, seed_genome
from selfimprove.genome.space import Space, apply_all
from selfimprove.nets import cost
from selfimprove.nets.transformer import build
from selfimprove.tasks.evaluator import evaluate
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.data import training_batches
from selfimprove.training.engine import TrainResult, train
from selfimprove.training.optimizers import make_optimizers, orthogonalize

TASKS = TasksConfig()
PARTS = (
    "architecture.blocks.0.conv_qkv=true", "architecture.blocks.0.mixer=short_conv",
    "architecture.blocks.1.qk_norm=true", "architecture.blocks.1.channel=swiglu", "architecture.norm=rmsnorm",
    "architecture.positions=learned", "architecture.tie_embeddings=true", "architecture.zero_init=true",
)  # fmt: skip
OPTIMIZERS = ("adamw", "lion", "muon", "sgd")


def run(genome: Genome, steps: int = 20, device: str = "cpu", factor: float = 1, **stage: Any) -> TrainResult:
    if factor != 1:
        loss = parse(f"mul({factor}, {genome.objective.expression.text})")
        genome = replace(genome, objective=Objective(loss))
    source = training_batches(TaskSuite(TASKS), batch=genome.recipe.batch, seed=0, device=device)
    size = {"vocab_size": TASKS.vocab_size, "context": TASKS.context}
    return train(genome, source, steps=steps, seed=0, device=device, constraint_weight=0.25, **size, **stage)


def assert_equal(one: TrainResult, other: TrainResult) -> None:
    """Two trainings ended in the same weights, bit for bit."""
    assert all(torch.equal(value, other.end.state[name]) for name, value in one.end.state.items())


def with_recipe(**changes: object) -> Genome:
    genome = seed_genome(learning_rate=3e-3, batch=8)
    return replace(genome, recipe=replace(genome.recipe, **changes))


SCALED: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "sgd": {"optimizer": "sgd", "learning_rate": 0.05, "clip": 0.5},  # clips every step
}


@pytest.fixture(scope="module")
def alone() -> dict[str, TrainResult]:
    """Trainings on cross-entropy without a factor."""
    torch.set_num_threads(1)
    return {name: run(with_recipe(**recipe)) for name, recipe in SCALED.items()}


def test_the_same_seed_gives_the_same_bits() -> None:
    torch.set_num_threads(1)
    assert_equal(run(with_recipe()), run(with_recipe()))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_in_three_stages_ends_in_the_bits_of_one_in_one_go(optimizer: str) -> None:
    torch.set_num_threads(1)
    genome = with_recipe(optimizer=optimizer, learning_rate=1e-3)
    whole, part = run(genome, steps=27), run(genome, steps=27, last=3)
    for last in (9, 27):
        part = run(genome, steps=27, start=part.end, last=last)
    assert part.end.step == whole.end.step == 27
    assert_equal(part, whole)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize(("factor", "tolerance"), [(0.25, 0.0), (64, 0.0), (100, 1e-6)])  # powers of two round nothing
def test_a_factor_in_a_loss_trains_the_same_weights(
    optimizer: str, factor: float, tolerance: float, alone: dict[str, TrainResult]
) -> None:
    assert alone[optimizer].losses[0] != pytest.approx(alone[optimizer].losses[-1], rel=0.01)
    scaled = run(with_recipe(**SCALED[optimizer]), factor=factor)
    for name, value in alone[optimizer].end.state.items():
        assert torch.allclose(value, scaled.end.state[name], rtol=0.0, atol=tolerance), name


def test_a_factor_in_a_loss_buys_no_freedom_from_the_constraint() -> None:
    torch.set_num_threads(1)
    suite, kept = TaskSuite(replace(TASKS, eval_sequences=48)), {}
    for factor in (1, 100):
        genome = with_recipe()
        state = run(genome, steps=150, factor=factor).end.state
        model = build(genome.architecture, vocab_size=TASKS.vocab_size, context=TASKS.context, seed=0)
        model.load_state_dict(state)
        kept[factor] = evaluate(model, suite, split="search", seed=0).retention
    assert kept[100] == kept[1]
    assert kept[1].low > 0.8


def test_without_a_gradient_sgd_decays_its_weights_and_never_past_zero() -> None:
    model, weight = torch.nn.Module(), torch.nn.Parameter(torch.ones(2, 2))
    model.register_parameter("W_in", weight)
    [optimizer] = make_optimizers(model, with_recipe(optimizer="sgd", learning_rate=0.1, weight_decay=0.1).recipe)
    weight.grad = torch.zeros_like(weight)
    for _ in range(50):
        optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.99**50))


def test_going_on_without_what_the_optimizer_remembered_ends_elsewhere() -> None:
    whole, part = run(with_recipe(), steps=27), run(with_recipe(), steps=27, last=9)
    forgetful = run(with_recipe(), steps=27, start=replace(part.end, memory={}))
    assert any(not torch.equal(value, forgetful.end.state[name]) for name, value in whole.end.state.items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("part", PARTS)
def test_optimizers_remember_what_an_ingest_expects_of_every_part_of_the_space(optimizer: str, part: str) -> None:
    genome = apply_all([parse_edit(part)], with_recipe(optimizer=optimizer), Space())
    expected = cost.memory_shapes(
        genome.recipe, cost.parameter_shapes(genome.architecture, TASKS.vocab_size, TASKS.context)
    )
    assert {name: tuple(tensor.shape) for name, tensor in run(genome, steps=2).end.memory.items()} == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_brings_the_loss_down(optimizer: str) -> None:
    rate = 0.05 if optimizer == "sgd" else 5e-4 if optimizer == "lion" else 3e-3
    genome = with_recipe(optimizer=optimizer, learning_rate=rate)
    # one batch again and again: its loss has no sampling noise
    tokens, targets = training_batches(TaskSuite(TASKS), batch=8, seed=0)(0)
    size = {"vocab_size": TASKS.vocab_size, "context": TASKS.context}
    result = train(genome, lambda _: (tokens, targets), **size, steps=40, seed=0)
    assert result.losses[-1] < 0.95 * result.losses[0]


def test_a_loss_that_is_not_finite_ends_training_as_diverged() -> None:
    result = run(with_recipe(optimizer="sgd", learning_rate=1e9, clip=0.0), steps=40)
    assert result.diverged


def test_the_newton_schulz_iteration_orthogonalizes() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(16, 64, generator=torch.Generator().manual_seed(0))))
    assert ((values > 0.5) & (values < 1.5)).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_on_a_gpu_parameters_batches_and_loss_are_there_uncontained() -> None:
    source = training_batches(TaskSuite(TASKS), batch=8, seed=0, device="cuda")
    assert all(tensor.is_cuda for tensor in source(0))
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    assert not run(with_recipe(), device="cuda").diverged
    assert torch.cuda.memory_stats()["allocation.all.allocated"] > before
