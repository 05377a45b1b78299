"""The model as a whole: its paths, its weights, its taps, its configuration."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from selfimprove.genome.architecture import Architecture, Block
from selfimprove.genome.genome import seed_genome
from selfimprove.nets.primitives import Tap, causal_conv
from selfimprove.nets.token_mixers import rope_table, rotate
from selfimprove.nets.transformer import build
from tests.nets.models import CONTEXT, VOCAB, make, run_with_taps, scramble


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_fused_and_explicit_paths_agree_in_logits_and_gradients(
    architectures: SearchStrategy[Architecture], data: st.DataObject
) -> None:
    model = make(data.draw(architectures))
    scramble(model)
    tokens = torch.randint(VOCAB, (2, 9), generator=torch.Generator().manual_seed(2))
    results = []
    for explicit in (False, True):
        model.explicit = explicit
        model.zero_grad()
        logits = model(tokens)
        logits.square().mean().backward()
        results.append((logits.detach(), [p.grad for p in model.parameters()]))
    (fused, fused_gradients), (explicit_logits, explicit_gradients) = results
    torch.testing.assert_close(fused, explicit_logits, atol=1e-5, rtol=1e-5)
    for first, second in zip(fused_gradients, explicit_gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-3)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_logit_depends_on_a_later_token(architectures: SearchStrategy[Architecture], data: st.DataObject) -> None:
    model = make(data.draw(architectures))
    scramble(model)
    model.explicit = data.draw(st.booleans())
    tokens = torch.randint(VOCAB, (2, CONTEXT), generator=torch.Generator().manual_seed(3))
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % VOCAB
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[:, :7], model(changed)[:, :7], atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_parameter_takes_part(architectures: SearchStrategy[Architecture], data: st.DataObject) -> None:
    model = make(data.draw(architectures))
    scramble(model)
    tokens = torch.randint(VOCAB, (2, CONTEXT), generator=torch.Generator().manual_seed(4))
    model(tokens).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "rmsnorm"},
        {"positions": "learned"},
        {"positions": "none"},
        {"positions": "alibi"},
        {"norm_placement": "post"},
        {"norm_placement": "sandwich"},
        {"residual_scale": "depth"},
        {"residual_scale": "learned"},
        {"embedding_residual": True},
        {"unet_skips": True},
        {"logit_softcap": 5.0},
        {"tie_embeddings": True},
        {"zero_init": True},
        *({"mixer": name} for name in ("sliding_attention", "linear_attention", "short_conv", "none")),
        {"heads": 2},
        {"kv_heads": 2},
        {"head_size": 8},
        {"conv_qkv": True},
        {"token_shift": True},
        {"gate": "head"},
        {"gate": "channel"},
        {"parallel": True},
        {"qk_norm": True},
        {"mlp_ratio": 2.0},
        *({"channel": name} for name in ("relu", "silu", "relu2", "swiglu", "geglu", "moe", "none")),
    ],
    ids=str,
)
def test_each_architectural_choice_changes_the_output(change: dict[str, object]) -> None:
    base = seed_genome().architecture
    of_block = not hasattr(base, next(iter(change)))
    edited = (
        replace(base, blocks=(replace(base.blocks[0], **change), base.blocks[1]))  # type: ignore[arg-type]
        if of_block
        else replace(base, **change)  # type: ignore[arg-type]
    )
    tokens = torch.arange(CONTEXT).unsqueeze(0) % VOCAB
    models = [make(base), make(edited)]
    for model in models:
        scramble(model)
    with torch.no_grad():
        assert not torch.allclose(models[0](tokens), models[1](tokens), atol=1e-3)


def test_equal_seeds_give_equal_weights_and_other_seeds_others(one_of_each: Architecture) -> None:
    first, again, other = make(one_of_each, 5), make(one_of_each, 5), make(one_of_each, 6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embed.W_E, other.embed.W_E)


def test_building_leaves_the_global_random_state_alone(one_of_each: Architecture) -> None:
    before = torch.get_rng_state()
    make(one_of_each)
    assert torch.equal(before, torch.get_rng_state())


def test_parameters_shared_by_parent_and_child_start_equal(one_of_each: Architecture) -> None:
    child = replace(one_of_each, blocks=(replace(one_of_each.blocks[0], channel="relu"), *one_of_each.blocks[1:]))
    parent_state, child_state = make(one_of_each).state_dict(), make(child).state_dict()
    assert all(torch.equal(parent_state[name], child_state[name]) for name in parent_state)


def test_weights_start_with_gpt2s_gain_and_scaled_residual_outputs() -> None:
    model = build(seed_genome().architecture, vocab_size=64, context=CONTEXT, seed=0)
    std = 0.02 * (768 / 64) ** 0.5
    assert model.get_parameter("blocks.0.attn.W_Q").std().item() == pytest.approx(std, rel=0.05)
    assert model.get_parameter("blocks.0.attn.W_O").std().item() == pytest.approx(std / 2, rel=0.05)
    assert model.get_parameter("blocks.1.mlp.W_out").std().item() == pytest.approx(std / 2, rel=0.05)


def test_zero_init_makes_every_block_start_as_the_identity(one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(replace(one_of_each, zero_init=True))
    _, seen = run_with_taps(model, tokens)
    assert torch.equal(seen["blocks.2.hook_resid_post"], seen["hook_embed"])


def test_a_convolution_on_q_k_v_with_identity_taps_is_plain_attention(tokens: Tensor) -> None:
    plain = seed_genome().architecture
    conv = replace(plain, blocks=tuple(replace(block, conv_qkv=True) for block in plain.blocks))
    model = make(conv)
    with torch.no_grad():
        for name, taps in model.named_parameters():
            if name.rpartition(".")[2].startswith("conv"):
                assert taps.abs().max() <= 3**-0.5  # drawn at random to begin with
                taps.zero_()[-1] = 1.0
        torch.testing.assert_close(make(plain)(tokens), model(tokens), atol=1e-6, rtol=1e-5)


def test_the_explicit_path_calls_every_tap(one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(one_of_each)
    model.explicit = True
    _, seen = run_with_taps(model, tokens)
    assert set(seen) == {name for name, module in model.named_modules() if isinstance(module, Tap)}


def test_the_fused_path_skips_only_what_its_kernels_swallow(one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(one_of_each)
    _, seen = run_with_taps(model, tokens)
    skipped = {name for name, module in model.named_modules() if isinstance(module, Tap)} - set(seen)
    swallowed = {"hook_scale", "hook_normalized", "hook_attn_scores", "hook_pattern"}
    assert {name.rpartition(".")[2] for name in skipped} == swallowed


def test_taps_have_their_canonical_names_and_shapes(tokens: Tensor) -> None:
    block = Block(heads=4, channel="swiglu", mlp_ratio=2.0)
    model = make(Architecture(width=32, blocks=(block,), positions="learned"))
    model.explicit = True
    _, seen = run_with_taps(model, tokens)
    stream, heads, square = (3, 12, 32), (3, 12, 4, 8), (3, 4, 12, 12)
    norms = {f"{ln}.hook_{what}": size for ln in ("blocks.0.ln1", "blocks.0.ln2", "ln_final") for what, size in
             (("scale", (3, 12, 1)), ("normalized", stream))}  # fmt: skip
    assert {name: tuple(value.shape) for name, value in seen.items()} == norms | {
        "hook_embed": stream,
        "hook_pos_embed": stream,
        **{f"blocks.0.hook_{name}": stream for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")},
        **{f"blocks.0.attn.hook_{name}": heads for name in "qkvz"},
        **{f"blocks.0.attn.hook_{name}": square for name in ("attn_scores", "pattern")},
        **{f"blocks.0.mlp.hook_{name}": (3, 12, 64) for name in ("pre", "pre_linear", "post")},
    }


@pytest.mark.parametrize("explicit", [False, True])
def test_the_residual_stream_is_the_sum_of_its_parts(explicit: bool, one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(one_of_each)
    model.explicit = explicit
    _, seen = run_with_taps(model, tokens)
    parts = [seen["hook_embed"]] + [
        seen[f"blocks.{layer}.hook_{part}"] for layer in range(3) for part in ("attn_out", "mlp_out")
    ]
    torch.testing.assert_close(torch.stack(parts).sum(0), seen["blocks.2.hook_resid_post"], atol=1e-5, rtol=1e-5)


def test_patterns_are_causal_distributions(one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(one_of_each)
    model.explicit = True
    pattern = run_with_taps(model, tokens)[1]["blocks.0.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    assert not pattern.triu(1).any()


def test_heads_times_w_o_give_the_attention_output(one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(one_of_each)
    _, seen = run_with_taps(model, tokens)
    z, weight = seen["blocks.0.attn.hook_z"], model.get_parameter("blocks.0.attn.W_O")
    by_head = torch.einsum("bthk,hkd->bthd", z, weight)
    torch.testing.assert_close(by_head.sum(2), seen["blocks.0.hook_attn_out"], atol=1e-5, rtol=1e-5)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(8, generator=generator).expand(1, CONTEXT, 1, 8) for _ in range(2))
    table = rope_table(CONTEXT, 8)
    products = torch.einsum("bqhd,bkhd->qk", rotate(q, table), rotate(k, table))
    torch.testing.assert_close(products[1:, 1:], products[:-1, :-1], atol=1e-5, rtol=1e-5)


def test_the_causal_convolution_equals_torchs_in_value_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = F.conv1d(F.pad(x.transpose(1, 2), (2, 0)), taps.T.unsqueeze(1), groups=5).transpose(1, 2)
    torch.testing.assert_close(causal_conv(x, taps), reference)
    assert torch.autograd.gradcheck(causal_conv, (x, taps))


@pytest.mark.parametrize("length", [1, 2])
def test_sequences_shorter_than_the_convolution_work(length: int, one_of_each: Architecture) -> None:
    model = make(one_of_each)
    model(torch.zeros(2, length, dtype=torch.long)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_every_part_runs_under_bfloat16_autocast(positions: str, one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(replace(one_of_each, positions=positions))
    exact = model(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(tokens)
    torch.testing.assert_close(rounded.float(), exact, atol=0.1, rtol=0.1)


def test_a_deep_copy_of_a_tied_model_is_tied_to_its_own_embedding(one_of_each: Architecture, tokens: Tensor) -> None:
    model = make(replace(one_of_each, tie_embeddings=True))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.embed.W_E.zero_()
    assert "unembed.W_U" not in twin.state_dict()
    assert torch.equal(twin.W_U, twin.embed.W_E.T)
    assert twin(tokens).any()


def test_the_config_says_where_layers_differ(one_of_each: Architecture) -> None:
    assert make(one_of_each).cfg.n_heads == (4, 0, 2)
    uniform = make(seed_genome().architecture).cfg
    assert (uniform.n_heads, uniform.d_head, uniform.d_mlp, uniform.act_fn) == (4, 16, 256, "gelu")
    assert uniform.normalization_type == "LN"


def test_what_is_embedded_already_is_read_as_its_tokens_are(one_of_each: Architecture, tokens: Tensor) -> None:
    for positions in ("rope", "learned"):
        model = make(replace(one_of_each, positions=positions))
        scramble(model)
        torch.testing.assert_close(model.read(model.embed(tokens)), model(tokens))
