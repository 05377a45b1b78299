from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.counting import count
from selfimprove.errors import InvalidGenome
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.genome.expression import OPERATIONS, Expression, cross_entropy, parse
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import Genome, Objective, seed_genome
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.nets import prices
from selfimprove.nets.channel_mixers import ACTIVATIONS, GATED
from selfimprove.nets.cost import Quote, is_muon_matrix, muon_shape, newton_schulz_flops, parameter_shapes, quote
from selfimprove.nets.losses import compile_objective
from selfimprove.nets.phases import phases
from selfimprove.nets.transformer import build
from selfimprove.training.engine import train
from selfimprove.training.optimizers import Muon, make_optimizers

VOCAB, CONTEXT = 17, 12
CE = cross_entropy().text
SEED = seed_genome()
OBJECTIVES = st.sampled_from(
    [Objective(KNOWN_LOSSES[n].expression) for n in ("cross-entropy", "multi-token prediction")]
)


def price(genome: Genome, allowance: int = 10**12) -> Quote:
    return quote(genome, vocab_size=VOCAB, context=CONTEXT, allowance_flops=allowance)


def heads_of(objective: Objective) -> tuple[int, ...]:
    return replace(SEED, objective=objective).heads


def with_recipe(**changes: object) -> Genome:
    return replace(SEED, recipe=replace(SEED.recipe, **changes))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_matmul_flops_equal_torchs_counter(architectures: SearchStrategy[Architecture], data: st.DataObject) -> None:
    genome = replace(SEED, architecture=data.draw(architectures), objective=data.draw(OBJECTIVES))
    model = build(genome.architecture, vocab_size=VOCAB, context=CONTEXT, seed=0, heads=genome.heads).to("meta")
    model.explicit = True
    tokens = torch.zeros(SEED.recipe.batch, CONTEXT, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        sum(logits.sum() for logits in model.predict(tokens).values()).backward()
    assert price(genome).matmul_flops_per_step == counter.get_total_flops()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_elementwise_flops_are_what_torch_dispatches(
    architectures: SearchStrategy[Architecture], data: st.DataObject
) -> None:
    architecture = data.draw(architectures)
    genome = replace(SEED, architecture=architecture, objective=Objective(parse("logits(0)")))
    loss = VOCAB * (prices.CONSTRAINT + prices.OBJECTIVE["logits"])
    tokens = SEED.recipe.batch * CONTEXT
    _, counted = count(architecture, batch=SEED.recipe.batch, vocab_size=VOCAB, context=CONTEXT)
    assert price(genome).elementwise_flops_per_step - tokens * loss == pytest.approx(counted, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_parameter_shapes_are_the_state_dict(architectures: SearchStrategy[Architecture], data: st.DataObject) -> None:
    architecture, heads = data.draw(architectures), data.draw(OBJECTIVES.map(heads_of))
    state = build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=0, heads=heads).state_dict()
    shapes = parameter_shapes(architecture, VOCAB, CONTEXT, heads)
    assert list(shapes.items()) == [(name, tuple(t.shape)) for name, t in state.items()]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_memory_is_within_a_factor_of_two_of_what_is_kept(
    architectures: SearchStrategy[Architecture], data: st.DataObject
) -> None:
    genome = replace(SEED, architecture=data.draw(architectures), objective=data.draw(OBJECTIVES))
    vocab, batch = data.draw(st.sampled_from([32, 128])), data.draw(st.sampled_from([4, 16, 64]))
    genome = replace(genome, recipe=replace(genome.recipe, batch=batch))
    model = build(genome.architecture, vocab_size=vocab, context=32, seed=0, heads=genome.heads)
    owned = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.zeros(batch, 32, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = {head: values.flatten(0, 1) for head, values in model.predict(tokens).items()}
        loss = compile_objective(genome.objective.expression)(logits, {1: tokens.flatten(), 2: tokens.flatten()}, 0.0)
    activations = sum(size for pointer, size in kept.items() if pointer not in owned)
    parameters = sum(p.numel() for p in model.parameters())
    # weights, gradients, two moments; where the loss goes back, its gradient before and behind one operation on logits
    total = activations + 4 * 4 * parameters + 2 * 4 * batch * 32 * vocab
    assert loss.shape == (batch * 32,)
    assert 0.5 < quote(genome, vocab_size=vocab, context=32, allowance_flops=0).memory_bytes / total < 2.0


@pytest.mark.parametrize(
    ("mixer", "positions"),
    [
        ("attention", "rope"),
        ("attention", "alibi"),
        ("sliding_attention", "rope"),
        ("sliding_attention", "alibi"),
        ("linear_attention", "none"),
        ("short_conv", "learned"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_memory_is_within_a_factor_of_two_of_a_trainings_peak_where_scores_are_most_of_it(
    tmp_path: Path, mixer: str, positions: str, count: int
) -> None:
    block = Block(mixer=mixer, heads=8, head_size=8, channel="none")
    architecture = Architecture(width=32, blocks=(block,) * count, positions=positions)
    genome = replace(with_recipe(batch=64), architecture=architecture)
    tokens = torch.zeros(64, 64, dtype=torch.long)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        train(genome, lambda step: (tokens, tokens), vocab_size=VOCAB, context=64, steps=2, seed=0)
    recorded.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    moves = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    peak = max(accumulate(size for _, size in moves))
    assert 0.5 < quote(genome, vocab_size=VOCAB, context=64, allowance_flops=0).memory_bytes / peak < 2.0


@given(allowance=st.integers(0, 10**13), batch=st.sampled_from([1, 8, 64]))
def test_a_quote_uses_the_allowance_and_never_exceeds_it(allowance: int, batch: int) -> None:
    offer = price(with_recipe(batch=batch), allowance)
    assert offer.flops == offer.steps * offer.flops_per_step <= allowance < offer.flops + offer.flops_per_step
    assert offer.tokens == offer.steps * batch * CONTEXT


GROWING = ("batch", "batch_start", "context", "context_start")
growing = st.fixed_dictionaries({name: st.sampled_from(FIELDS[f"recipe.{name}"].choices) for name in GROWING})


def spent(genome: Genome, steps: int) -> tuple[int, int]:
    """FLOPs and tokens of a training, step by step, from quotes of recipes that do not grow."""
    flops = tokens = 0
    for part in phases(genome.recipe, CONTEXT, steps):
        recipe = replace(genome.recipe, batch=part.size.rows, batch_start=1.0, context=1.0, context_start=1.0)
        shapes = sum(map(math.prod, parameter_shapes(genome.architecture, VOCAB, CONTEXT).values()))
        one = quote(replace(genome, recipe=recipe), vocab_size=VOCAB, context=part.size.length, allowance_flops=0)
        assert one.parameters == shapes  # no learned positions here, whose number would follow the context
        flops += (part.last - part.first) * one.flops_per_step
        tokens += (part.last - part.first) * part.size.tokens
    return flops, tokens


@settings(deadline=None)
@given(steps=st.integers(1, 300), recipe=growing)
def test_a_quote_of_a_training_that_grows_is_exact_and_takes_all_steps_that_fit(
    steps: int, recipe: dict[str, Any]
) -> None:
    genome = with_recipe(**recipe)
    exact, tokens = spent(genome, steps)
    offer = price(genome, exact)
    assert (offer.steps, offer.flops, offer.tokens) == (steps, exact, tokens)
    assert price(genome, exact - 1).steps == steps - 1


@settings(deadline=None)
@given(allowance=st.integers(0, 10**12), recipe=growing)
def test_no_training_costs_more_than_its_allowance(allowance: int, recipe: dict[str, Any]) -> None:
    offer = price(with_recipe(**recipe), allowance)
    assert offer.flops <= allowance < offer.flops + offer.flops_per_step


@settings(deadline=None)
@given(allowance=st.integers(0, 10**12), recipe=growing, cuts=st.lists(st.floats(0, 1), max_size=4))
def test_what_the_parts_of_a_training_cost_adds_up(allowance: int, recipe: dict[str, Any], cuts: list[float]) -> None:
    offer = price(with_recipe(**recipe), allowance)
    steps = [0, *sorted(round(cut * offer.steps) for cut in cuts), offer.steps]
    parts = list(pairwise(steps))
    assert sum(offer.flops_between(*part) for part in parts) == offer.flops
    assert sum(offer.tokens_between(*part) for part in parts) == offer.tokens


def test_averaging_the_weights_is_priced_in_work_and_memory() -> None:
    plain, averaged = price(SEED), price(with_recipe(ema=0.9))
    assert averaged.optimizer_flops_per_step - plain.optimizer_flops_per_step == prices.EMA * plain.parameters
    assert averaged.memory_bytes - plain.memory_bytes == 4 * plain.parameters


def test_a_quote_is_the_sum_of_its_parts_in_integers() -> None:
    offer = price(SEED)
    parts = offer.matmul_flops_per_step + offer.elementwise_flops_per_step + offer.optimizer_flops_per_step
    assert offer.flops_per_step == parts
    assert all(type(value) is int for name, value in vars(offer).items() if name != "phases")
    assert all(type(part.flops_per_step) is int for part in offer.phases)


def test_a_step_over_the_allowance_is_quoted_as_no_step() -> None:
    offer = price(SEED, 1000)
    assert (offer.steps, offer.flops, offer.tokens) == (0, 0, 0)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_newton_schulz_costs_what_the_engines_muon_spends(
    architectures: SearchStrategy[Architecture], data: st.DataObject
) -> None:
    architecture = data.draw(architectures)
    model = build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=0).to("meta")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    [muon, _] = make_optimizers(model, with_recipe(optimizer="muon").recipe)
    with FlopCounterMode(display=False) as counter:
        muon.step()
    shapes = {n: s for n, s in parameter_shapes(architecture, VOCAB, CONTEXT).items() if is_muon_matrix(n)}
    assert counter.get_total_flops() == sum(newton_schulz_flops(*muon_shape(shape)) for shape in shapes.values())


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_muon_orthogonalizes_the_heads_of_a_matrix_side_by_side(heads: int) -> None:
    width, d_head = 16, 16 // heads
    values = torch.randn(width, width, generator=torch.Generator().manual_seed(0))
    inputs = torch.nn.Parameter(torch.zeros(heads, width, d_head))  # W_Q, W_K, W_V
    inputs.grad = values.reshape(width, heads, d_head).transpose(0, 1).clone()
    outputs = torch.nn.Parameter(torch.zeros(heads, d_head, width))  # W_O
    outputs.grad = values.reshape(heads, d_head, width).clone()
    flat = torch.nn.Parameter(torch.zeros(width, width))
    flat.grad = values.clone()
    Muon([inputs, outputs, flat], lr=1.0, momentum=0.0, weight_decay=0.0).step()
    assert torch.equal(inputs.detach().transpose(0, 1).reshape(width, width), flat.detach())
    assert torch.equal(outputs.detach().reshape(width, width), flat.detach())


def test_muon_sees_each_attention_matrix_with_its_heads_side_by_side() -> None:
    shapes = parameter_shapes(SEED.architecture, VOCAB, CONTEXT)
    seen = {name: muon_shape(shape) for name, shape in shapes.items() if is_muon_matrix(name)}
    assert {shape for name, shape in seen.items() if ".attn." in name} == {(64, 64)}
    assert "embed.W_E" not in seen
    assert all(math.prod(shapes[name]) == math.prod(shape) for name, shape in seen.items())


def test_each_further_head_is_priced() -> None:
    second, fourth = (
        price(replace(SEED, objective=Objective(parse(f"add({CE}, logsumexp(logits({head})))")))) for head in (1, 3)
    )
    first = price(replace(SEED, objective=Objective(parse(f"add({CE}, logsumexp(logits(0)))"))))
    width, tokens = SEED.architecture.width, SEED.recipe.batch * CONTEXT
    assert second.parameters == fourth.parameters == first.parameters + width * VOCAB
    assert second.matmul_flops_per_step - first.matmul_flops_per_step == 3 * tokens * 2 * width * VOCAB
    assert second.elementwise_flops_per_step > first.elementwise_flops_per_step
    assert second.optimizer_flops_per_step > first.optimizer_flops_per_step
    assert second.memory_bytes > first.memory_bytes


def test_optimizers_and_clipping_are_priced_apart() -> None:
    costs = {
        name: price(with_recipe(optimizer=name)).optimizer_flops_per_step for name in ("sgd", "lion", "adamw", "muon")
    }
    assert list(costs.values()) == sorted(set(costs.values()))
    assert price(with_recipe(clip=0.0)).optimizer_flops_per_step < costs["adamw"]


def test_a_shared_subexpression_is_priced_once() -> None:
    ce = "dot(onehot(1), log_softmax(logits(0)))"
    once, twice = (
        price(replace(SEED, objective=Objective(parse(text)))).elementwise_flops_per_step
        for text in (f"square({ce})", f"mul({ce}, {ce})")
    )
    tokens = SEED.recipe.batch * CONTEXT
    assert twice - once == tokens * (prices.OBJECTIVE["mul"] - prices.OBJECTIVE["square"])


def test_every_operation_that_can_be_built_has_a_price() -> None:
    assert set(prices.OBJECTIVE) == set(OPERATIONS)
    assert set(prices.ACTIVATION) == set(prices.CHANNEL_MATRICES) == {*ACTIVATIONS, "none"}
    assert set(FIELDS["architecture.blocks.*.mixer"].choices) == {*prices.SCORE, *prices.SHORT_CONV}
    for path, table in (
        ("architecture.blocks.*.channel", prices.ACTIVATION),
        ("architecture.blocks.*.gate", prices.GATE),
        ("architecture.norm", prices.NORM),
        ("architecture.norm_placement", prices.NORMS),
        ("architecture.positions", prices.POSITIONS),
        ("architecture.residual_scale", prices.RESIDUAL_SCALE),
    ):
        assert set(FIELDS[path].choices) == set(table), path
    assert {name for name, matrices in prices.CHANNEL_MATRICES.items() if matrices == 3} == GATED
    assert set(prices.OPTIMIZER) == set(prices.STATE)


@pytest.mark.parametrize(
    ("genome", "name"),
    [
        (replace(SEED, architecture=replace(SEED.architecture, norm="batchnorm")), "batchnorm"),
        (replace(SEED, architecture=replace(SEED.architecture, positions="sinusoidal")), "sinusoidal"),
        (with_recipe(optimizer="shampoo"), "shampoo"),
        (replace(SEED, objective=Objective(Expression("median", (Expression("logits", (), 0),)))), "median"),
        *(
            (
                replace(
                    SEED,
                    architecture=replace(
                        SEED.architecture,
                        blocks=(replace(SEED.architecture.blocks[0], **{part: name}),),  # type: ignore[arg-type]
                    ),
                ),
                name,
            )
            for part, name in (("mixer", "mamba"), ("channel", "maxout"))
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_operation_without_a_price_is_refused_by_name(genome: Genome, name: str) -> None:
    with pytest.raises(InvalidGenome, match=name):
        price(genome)


def test_a_window_beyond_the_context_is_refused_before_anything_is_built() -> None:
    blocks = (Block(), Block(mixer="sliding_attention", window=16))
    genome = replace(SEED, architecture=replace(SEED.architecture, blocks=blocks))
    with pytest.raises(InvalidGenome, match=r"blocks\.1\.window: got 16; allowed: at most 12, the context"):
        price(genome)


def test_pricing_imports_no_torch() -> None:
    code = "import sys, selfimprove.nets.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
