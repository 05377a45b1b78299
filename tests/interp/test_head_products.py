"""Singular values of OV and QK: right for every head that exists, whatever its layer looks like."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from interp.bench import Bench, Plan
from interp.head_products import circuits, effective_rank, head_matrices, ov_qk, top_share
from interp.hooked import HookedModel, to_hooked
from interp.planted import induction
from interp.verdict import NotApplicable, Unreadable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.suite import TaskSuite
from tests.interp.conftest import CONTEXT, VOCAB, build_shaken, draw_architecture

MIXED = Architecture(
    width=48,
    blocks=(
        Block(heads=4, kv_heads=2, head_size=8),
        Block(mixer="short_conv"),
        Block(heads=2, kv_heads=1, head_size=16, channel="none"),
        Block(heads=1, head_size=32, mixer="sliding_attention", parallel=True),
    ),
    positions="learned",
    residual_scale="learned",
)
SHAPES = [
    replace(MIXED, norm=norm, norm_placement=placement, positions=positions)
    for norm, placement, positions in (
        ("layernorm", "pre", "learned"),
        ("rmsnorm", "pre", "rope"),
        ("layernorm", "sandwich", "none"),
        ("rmsnorm", "post", "learned"),
    )
]


def mixed(architecture: Architecture) -> HookedModel:
    """Every gain away from 1; no biases in the norms, which no matrix holds."""
    model = build_shaken(architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".b"):
                parameter.zero_()
    return to_hooked(model)


@pytest.mark.parametrize("architecture", SHAPES, ids=lambda one: f"{one.norm}-{one.norm_placement}-{one.positions}")
def test_both_matrices_do_at_one_position_what_the_model_does(architecture: Architecture) -> None:
    model = mixed(architecture)
    _, cache = model.run_with_cache(torch.arange(7)[:, None])  # sequences of one token: it attends to itself alone
    for layer in model.attending:
        qk, ov = circuits(model, layer)
        stream = cache[f"blocks.{layer}.hook_resid_pre"][:, 0].double()
        norm = f"blocks.{layer}.ln1.hook_scale"
        divisor = cache[norm][:, 0].double() if architecture.norm_placement != "post" else 1.0
        read = stream / divisor
        scores = cache[f"blocks.{layer}.attn.hook_attn_scores"][:, :, 0, 0].double()
        size = cache[f"blocks.{layer}.attn.hook_q"].shape[-1] ** 0.5
        assert torch.allclose(torch.einsum("bi,hij,bj->bh", read, qk.AB, read) / size, scores, rtol=1e-4, atol=1e-4)
        written = torch.einsum("bi,hij->bhj", read, ov.AB)
        if architecture.norm_placement == "sandwich":
            written = written / cache[f"blocks.{layer}.ln1_post.hook_scale"][:, 0, :, None].double()
        wanted = cache[f"blocks.{layer}.hook_attn_out"][:, 0].double()
        assert torch.allclose(written.sum(1), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", SHAPES[:1])
def test_singular_values_are_those_of_each_heads_dense_matrices(architecture: Architecture) -> None:
    model = mixed(architecture)
    found = head_matrices(model)
    heads = [(layer, h) for layer, count in ((0, 4), (2, 2), (3, 1)) for h in range(count)]
    assert [head.label for head in found.heads] == [f"L{layer}H{h}" for layer, h in heads]
    assert found.left_out == (1,)
    assert [head.key_head for head in found.heads] == [0, 0, 1, 1, 0, 0, 0]
    for (layer, h), head in zip(heads, found.heads, strict=True):
        attn, norm = model.get_submodule(f"blocks.{layer}.attn"), model.get_submodule(f"blocks.{layer}.ln1")
        center = torch.eye(48) - 1 / 48
        w_q, w_k, w_v = (
            (center @ torch.diag(norm.w) @ weight).detach()  # type: ignore[arg-type]
            for weight in (attn.W_Q[h], attn.W_K[head.key_head], attn.W_V[head.key_head])  # type: ignore[index]
        )
        scale = model.get_parameter(f"blocks.{layer}.attn_scale")
        for values, dense in ((head.qk, w_q @ w_k.T), (head.ov, w_v @ attn.W_O[h] * scale)):  # type: ignore[index]
            wanted = torch.linalg.svdvals(dense.detach())[: len(values)]
            assert torch.allclose(torch.tensor(values), wanted, rtol=1e-3, atol=1e-4)


def test_ranks_and_shares_of_known_values() -> None:
    assert effective_rank((2.0, 2.0, 2.0, 0.0)) == pytest.approx(3.0)
    assert top_share((2.0, 1.0, 0.0)) == pytest.approx(0.8)
    assert effective_rank((0.0, 0.0)) == top_share((0.0, 0.0)) == 0.0


def test_the_head_that_copies_is_the_one_that_was_planted() -> None:
    copying = {head.label: head.copying for head in head_matrices(to_hooked(induction.planted())).heads}
    assert copying.pop(induction.INDUCTION_HEAD) == pytest.approx(1.0, abs=1e-6)
    assert max(map(abs, copying.values())) < 0.25
    twin = head_matrices(to_hooked(induction.scrambled())).heads
    assert max(abs(head.copying) for head in twin) < 0.5


def test_a_head_that_lowers_the_token_it_sees_has_a_copying_score_of_minus_1() -> None:
    model = induction.planted()
    with torch.no_grad():
        model.get_submodule("blocks.1.attn").W_O[2] *= -1  # type: ignore[index,operator]
    copying = {head.label: head.copying for head in head_matrices(to_hooked(model)).heads}
    assert copying[induction.INDUCTION_HEAD] == pytest.approx(-1.0, abs=1e-6)


def test_every_random_genome_is_read_or_has_no_attention(suite: TaskSuite) -> None:
    read = 0
    for seed in range(20):
        architecture = draw_architecture(seed)
        bench = Bench(build_shaken(architecture, seed), suite, Plan(1, 2, 3))
        if not any(block.attends for block in architecture.blocks):
            with pytest.raises(NotApplicable, match="attention"):
                ov_qk(bench)
            continue
        figures = ov_qk(bench)["ov_qk"]
        wanted = [
            f"L{n}H{h}" for n, block in enumerate(architecture.blocks) if block.attends for h in range(block.heads)
        ]
        assert list(figures) == wanted
        for one in figures.values():
            assert 0 < one["qk_top_share"] <= 1
            assert -1.0001 < one["copying"] < 1.0001
            assert all(math.isfinite(value) for value in one.values() if isinstance(value, float))
        assert json.loads(json.dumps(figures)) == figures
        read += 1
    assert read >= 10


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mixer": "linear_attention"}, "linear"),
        ({"qk_norm": True}, "norms of queries"),
        ({"conv_qkv": True}, "convolution"),
        ({"token_shift": True}, "token shift"),
        ({"gate": "head"}, "gate"),
        ({"value_residual": True}, "value residual"),
    ],
)
def test_what_the_matrices_leave_out_is_said_of_the_layer_that_does_it(change: dict[str, object], word: str) -> None:
    architecture = Architecture(blocks=(Block(), Block(**change)), positions="learned")  # type: ignore[arg-type]
    model = build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=0)
    heads = head_matrices(to_hooked(model)).heads
    assert {head.beside for head in heads[:4]} == {()}
    for head in heads[4:]:
        assert len(head.beside) == 1
        assert word in head.beside[0]


def test_weights_that_are_not_finite_are_unreadable(model: Transformer) -> None:
    model.get_parameter("blocks.1.attn.W_V").data[0, 0, 0] = math.inf
    with pytest.raises(Unreadable, match="non-finite"):
        head_matrices(to_hooked(model))


def test_heads_have_a_table_and_a_plot_with_named_axes(model: Transformer) -> None:
    found = head_matrices(to_hooked(model))
    table = found.to_pandas()
    assert len(table) == 16
    assert set(table.circuit) == {"qk", "ov"}
    ax = found.plot()
    assert ax.get_title()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
