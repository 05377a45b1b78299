"""The reference engine: deterministic, honest about divergence, and it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfimprove.genome.edits import parse_edit
from selfimprove.genome.expression import parse
from selfimprove.genome.genome import Genome, Objective, seed_genome
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.genome.recipe import Recipe
from selfimprove.genome.space import Space, apply_all
from selfimprove.nets import cost
from selfimprove.nets.prices import RAW
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import HALTED, UNSCORED
from selfimprove.tasks.evaluator import evaluate
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training import engine
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
    source = training_batches(TaskSuite(TASKS), genome.recipe, seed=0, device=device)
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


def assert_stages_end_alike(genome: Genome, cuts: Sequence[int] = (3, 9)) -> None:
    torch.set_num_threads(1)
    whole, part = run(genome, steps=27), None
    for last in (*cuts, 27):
        part = run(genome, steps=27, start=part.end if part else None, last=last)
    assert part is not None
    assert part.end.step == whole.end.step == 27
    assert_equal(part, whole)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_in_three_stages_ends_in_the_bits_of_one_in_one_go(optimizer: str) -> None:
    assert_stages_end_alike(with_recipe(optimizer=optimizer, learning_rate=1e-3))


@settings(max_examples=6, deadline=None)
@given(
    recipe=st.fixed_dictionaries(
        {
            "optimizer": st.sampled_from(OPTIMIZERS),
            "schedule": st.sampled_from(["cosine", "wsd"]),
            "cooldown": st.sampled_from([0.2, 0.7]),
            "ema": st.sampled_from([0.0, 0.8, 0.98]),
            "init_scale": st.sampled_from([0.5, 2.0]),
            "batch": st.sampled_from([16, 32]),
            "batch_start": st.sampled_from([0.25, 0.5, 1.0]),
            "context": st.sampled_from([0.5, 1.0]),
            "context_start": st.sampled_from([0.5, 1.0]),
        }
    ),
    loss=st.sampled_from(["cross-entropy", "multi-token prediction"]),
    cuts=st.lists(st.integers(1, 26), unique=True, min_size=1, max_size=3).map(sorted),
)
def test_stages_end_in_the_same_bits_whatever_the_recipe_and_wherever_they_are_cut(
    recipe: dict[str, Any], loss: str, cuts: list[int]
) -> None:
    genome = replace(with_recipe(**recipe), objective=Objective(KNOWN_LOSSES[loss].expression))
    assert_stages_end_alike(genome, cuts)


def seen_by(genome: Genome, steps: int) -> list[tuple[int, ...]]:
    """Shapes of the tokens that the model is given, step by step."""
    seen: list[tuple[int, ...]] = []
    source = training_batches(TaskSuite(TASKS), genome.recipe, seed=0)
    predict = Transformer.predict

    def watched(model: Transformer, tokens: torch.Tensor) -> Any:
        seen.append(tuple(tokens.shape))
        return predict(model, tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transformer, "predict", watched)
        train(genome, source, vocab_size=TASKS.vocab_size, context=TASKS.context, steps=steps, seed=0)
    return seen


def test_the_engine_sees_as_many_tokens_in_each_step_as_are_paid_for() -> None:
    genome = with_recipe(batch=32, batch_start=0.25, context=0.75, context_start=0.5)
    priced = cost.quote(genome, vocab_size=TASKS.vocab_size, context=TASKS.context, allowance_flops=24 * 10**8)
    seen = seen_by(genome, priced.steps)
    assert priced.steps > 4
    assert [rows * length for rows, length in seen] == [
        priced.tokens_between(step, step + 1) for step in range(priced.steps)
    ]
    assert set(seen) == {(8, 9), (16, 9), (32, 18)}


def test_what_is_kept_of_an_averaged_training_is_the_moving_average_of_its_weights() -> None:
    torch.set_num_threads(1)
    plain, steps = [run(with_recipe(), steps=6, last=last).end.state for last in range(7)], 6
    mean = plain[0]
    for step in range(steps):
        decay = min(0.9, (1 + step) / (10 + step))
        mean = {name: torch.lerp(value, plain[step + 1][name], 1 - decay) for name, value in mean.items()}
    end = run(with_recipe(ema=0.9), steps=steps).end
    for name, value in mean.items():
        torch.testing.assert_close(end.state[name], value)
        assert torch.equal(end.memory[f"{RAW}:{name}"], plain[-1][name])


def test_the_initial_matrices_have_the_gain_of_the_recipe() -> None:
    usual, twice = (run(with_recipe(init_scale=gain), last=0).end.state for gain in (1.0, 2.0))
    for name, value in usual.items():
        factor = 2 if name.rpartition(".")[2].startswith("W_") else 1
        assert torch.equal(twice[name], factor * value), name


def test_head_0_trains_alike_beside_a_head_whose_weight_is_nothing() -> None:
    torch.set_num_threads(1)
    text = KNOWN_LOSSES["multi-token prediction"].text.replace("mul(0.1", "mul(0")
    alone, beside = run(with_recipe(clip=0.0)), run(replace(with_recipe(clip=0.0), objective=Objective(parse(text))))
    assert set(beside.end.state) - set(alone.end.state) == {"heads.1.W_U"}
    for name, value in alone.end.state.items():
        torch.testing.assert_close(beside.end.state[name], value, rtol=0.0, atol=1e-6)


def test_a_second_head_learns_the_token_after_the_next_and_halted_tokens_teach_it_nothing() -> None:
    genome = replace(with_recipe(), objective=Objective(KNOWN_LOSSES["multi-token prediction"].expression))
    tokens = torch.arange(24).expand(8, -1)  # each position has a token of its own to go by
    targets = torch.full((8, 24), UNSCORED)
    targets[:, ::2], targets[:, 1::2] = 10, 11  # so that head 1 is to say 10 where head 0 is to say 11
    targets[:, 12:] = HALTED

    def logits(weight: float) -> dict[int, torch.Tensor]:
        size = {"vocab_size": 24, "context": 24}
        end = train(genome, lambda _: (tokens, targets), **size, steps=60, seed=0, constraint_weight=weight).end
        model = build(genome.architecture, **size, seed=0, heads=genome.heads)
        model.load_state_dict(end.state)
        with torch.no_grad():
            return model.predict(tokens)

    constrained = logits(0.25)
    assert constrained[0][0, :12].argmax(-1).tolist() == targets[0, :12].tolist()
    assert constrained[1][0, :11].argmax(-1).tolist() == targets[0, 1:12].tolist()
    assert constrained[0][0, 13:].argmax(-1).tolist() == [HALTED] * 11
    without = logits(0.0)  # the halted token is a token like any other here
    assert without[1][0, 12:23].argmax(-1).tolist() == [HALTED] * 11
    assert (constrained[1][0, 12:23, HALTED] < without[1][0, 12:23, HALTED]).all()


@pytest.mark.parametrize("heads", [(), (1,), (1, 3)])
def test_calling_a_model_gives_head_0_whatever_other_heads_it_has(heads: tuple[int, ...]) -> None:
    size: dict[str, Any] = {"vocab_size": 24, "context": 24, "seed": 0}
    plain, model = build(seed_genome().architecture, **size), build(seed_genome().architecture, **size, heads=heads)
    tokens = torch.arange(24)[None]
    with torch.no_grad():
        assert torch.equal(plain(tokens), model(tokens))
        assert torch.equal(plain.W_U, model.W_U)
        assert set(model.predict(tokens)) == {0, *heads}


@pytest.mark.parametrize(
    ("optimizer", "factor", "tolerance"),
    [
        *((optimizer, factor, 0.0) for optimizer in ("adamw", "sgd") for factor in (0.25, 64)),  # they round nothing
        ("sgd", 100, 1e-6),
        ("adamw", 100, 1e-5),  # whose step is as long where the gradient is a rounding error
    ],
)
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
        state = run(genome, steps=250, factor=factor).end.state
        model = build(genome.architecture, vocab_size=TASKS.vocab_size, context=TASKS.context, seed=0)
        model.load_state_dict(state)
        kept[factor] = evaluate(model, suite, split="search", seed=0).retention
    assert kept[100] == kept[1]
    assert kept[1].low > 0.8


RATES = {"adamw": 3e-3, "lion": 5e-4, "muon": 3e-3, "sgd": 0.05}
LOSS_AT_40 = {
    "adamw": 2.88999,
    "lion": 3.16291,
    "muon": 2.61458,
    "sgd": 2.91898,
}  # on two CPUs and torch versions alike


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_is_the_one_that_it_was(optimizer: str) -> None:
    """What comparisons of trainings cannot see: a change that shifts all of them."""
    torch.set_num_threads(1)
    losses = run(with_recipe(optimizer=optimizer, learning_rate=RATES[optimizer]), steps=40).losses
    assert losses[-1] == pytest.approx(LOSS_AT_40[optimizer], rel=1e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_twice_from_one_snapshot_gives_the_same_bits_and_leaves_it_alone(optimizer: str) -> None:
    torch.set_num_threads(1)
    genome = with_recipe(optimizer=optimizer, learning_rate=RATES[optimizer])
    start = run(genome, steps=12, last=5).end
    before = {name: value.clone() for name, value in start.memory.items()}
    assert_equal(run(genome, steps=12, start=start), run(genome, steps=12, start=start))
    assert before
    assert all(torch.equal(value, start.memory[name]) for name, value in before.items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_a_gradient_projections_and_embeddings_decay_and_nothing_else_does(optimizer: str) -> None:
    parts = ("blocks.0.conv_qkv=true", "blocks.0.token_shift=true", "residual_scale=learned")
    edits = [parse_edit(f"architecture.{part}") for part in parts]
    genome = apply_all(edits, with_recipe(optimizer=optimizer), Space())
    recipe = replace(genome.recipe, learning_rate=0.1, weight_decay=0.1)
    model = build(genome.architecture, vocab_size=TASKS.vocab_size, context=TASKS.context, seed=0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for one in make_optimizers(model, recipe):
        one.step()
    factors = {name: 0.99 if name.rpartition(".")[2].startswith("W_") else 1.0 for name in before}
    assert len([name for name, factor in factors.items() if factor == 1.0]) > 2 * len(parts)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), factors[name] * before[name], msg=name)


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
@pytest.mark.parametrize("part", [*PARTS, "recipe.ema=0.9", *KNOWN_LOSSES["multi-token prediction"].edits])
def test_optimizers_remember_what_an_ingest_expects_of_every_part_of_the_space(optimizer: str, part: str) -> None:
    genome = apply_all([parse_edit(part)], with_recipe(optimizer=optimizer), Space())
    shapes = cost.parameter_shapes(genome.architecture, TASKS.vocab_size, TASKS.context, genome.heads)
    expected = cost.memory_shapes(genome.recipe, shapes)
    assert {name: tuple(tensor.shape) for name, tensor in run(genome, steps=2).end.memory.items()} == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_brings_the_loss_down(optimizer: str) -> None:
    genome = with_recipe(optimizer=optimizer, learning_rate=RATES[optimizer])
    # one batch again and again: its loss has no sampling noise
    tokens, targets = training_batches(TaskSuite(TASKS), Recipe(batch=8), seed=0)(0)
    size = {"vocab_size": TASKS.vocab_size, "context": TASKS.context}
    result = train(genome, lambda _: (tokens, targets), **size, steps=40, seed=0)
    assert result.losses[-1] < 0.95 * result.losses[0]


def test_a_loss_that_is_not_finite_ends_training_as_diverged() -> None:
    result = run(with_recipe(optimizer="sgd", learning_rate=1e9, clip=0.0), steps=40)
    assert result.diverged


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_step_without_a_finite_gradient_is_diverged_in_one_go_and_in_slices(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No look at the loss falls on that step; the sign of NaN is 0, so that Lion's weights stay finite."""
    loss_of = engine._loss

    def broken_once(genome: Genome, weight: float) -> Callable[..., Tensor]:
        whole = loss_of(genome, weight)
        return lambda *given: whole(*given) * (math.nan if given[-1] == 13 / 27 else 1)

    monkeypatch.setattr(engine, "_loss", broken_once)
    genome = with_recipe(optimizer=optimizer)
    before = run(genome, steps=27, last=9)
    assert run(genome, steps=27).diverged
    assert not before.diverged
    assert run(genome, steps=27, start=before.end, last=18).diverged


def test_the_newton_schulz_iteration_orthogonalizes() -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(16, 64, generator=torch.Generator().manual_seed(0))))
    assert ((values > 0.5) & (values < 1.5)).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine")
def test_on_a_gpu_parameters_batches_and_loss_are_there_uncontained() -> None:
    source = training_batches(TaskSuite(TASKS), Recipe(batch=8), seed=0, device="cuda")
    assert all(tensor.is_cuda for tensor in source(0))
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    assert not run(with_recipe(), device="cuda").diverged
    assert torch.cuda.memory_stats()["allocation.all.allocated"] > before


def test_a_constraint_of_factor_0_is_trained_by_nothing_and_half_of_it_is_half_its_weight() -> None:
    torch.set_num_threads(1)
    size = {"vocab_size": TASKS.vocab_size, "context": TASKS.context}

    def end(factor: float, weight: float, halted: int = HALTED) -> dict[str, torch.Tensor]:
        genome = with_recipe(constraint_factor=factor)
        source = training_batches(TaskSuite(TASKS), genome.recipe, seed=0)

        def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            tokens, targets = source(step)
            return tokens, torch.where(targets == HALTED, halted, targets)

        return train(genome, batches, **size, steps=8, seed=0, constraint_weight=weight).end.state

    def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
        return all(torch.equal(value, other[name]) for name, value in one.items())

    assert same(end(0.0, 0.5), end(1.0, 0.5, halted=UNSCORED))  # as if nothing were asked there
    assert same(end(0.5, 0.5), end(1.0, 0.25))
    assert same(end(2.0, 0.25), end(1.0, 0.5))
    assert not same(end(0.5, 0.5), end(1.0, 0.5))
