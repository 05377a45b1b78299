"""What each part of a block, and of the stream between blocks, computes: against what it is defined as."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.primitives import NORM_EPS, Norm
from tests.nets.models import CONTEXT, make, run_with_taps, scramble


def test_grouped_queries_share_keys_and_values(tokens: Tensor) -> None:
    shared = make(Architecture(width=32, blocks=(Block(heads=4, kv_heads=2),)))
    every = make(Architecture(width=32, blocks=(Block(heads=4),)))
    state = shared.state_dict()
    for letter in "KV":
        state[f"blocks.0.attn.W_{letter}"] = state[f"blocks.0.attn.W_{letter}"].repeat_interleave(2, 0)
    every.load_state_dict(state)
    torch.testing.assert_close(shared(tokens), every(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mixer", ["sliding_attention", "linear_attention"])
@pytest.mark.parametrize("positions", ["rope", "alibi", "none"])
def test_patterns_of_every_form_of_attention_are_distributions_over_what_is_seen(
    mixer: str, positions: str, tokens: Tensor
) -> None:
    block = Block(mixer=mixer, heads=2, window=4)
    model = make(Architecture(width=32, blocks=(block,), positions=positions))
    model.explicit = True
    pattern = run_with_taps(model, tokens)[1]["blocks.0.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern[..., 0]), atol=1e-5, rtol=1e-5)
    assert not pattern.triu(1).any()
    assert pattern.tril(-4).any() != (mixer == "sliding_attention")


def test_a_window_of_the_whole_context_is_full_attention(tokens: Tensor) -> None:
    full, sliding = (
        make(Architecture(width=32, blocks=(Block(mixer=mixer, window=CONTEXT),)))
        for mixer in ("attention", "sliding_attention")
    )
    torch.testing.assert_close(full(tokens), sliding(tokens), atol=1e-6, rtol=1e-5)


def test_linear_attention_equals_its_recurrence(tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(mixer="linear_attention", heads=2),), positions="none"))
    model.explicit = True
    _, seen = run_with_taps(model, tokens)
    q, k, v = (seen[f"blocks.0.attn.hook_{name}"] for name in "qkv")
    q, k = F.elu(q) + 1, F.elu(k) + 1
    state, weight = torch.zeros(3, 2, 16, 16), torch.zeros(3, 2, 16)
    for position in range(CONTEXT):
        state = state + torch.einsum("bhi,bhj->bhij", k[:, position], v[:, position])
        weight = weight + k[:, position]
        z = torch.einsum("bhi,bhij->bhj", q[:, position], state) / (q[:, position] * weight).sum(-1, keepdim=True)
        torch.testing.assert_close(seen["blocks.0.attn.hook_z"][:, position], z, atol=1e-5, rtol=1e-4)


def test_alibi_lowers_scores_by_distance_and_by_head(tokens: Tensor) -> None:
    scores = []
    for positions in ("none", "alibi"):
        model = make(Architecture(width=32, blocks=(Block(heads=2),), positions=positions))
        model.explicit = True
        scores.append(run_with_taps(model, tokens)[1]["blocks.0.attn.hook_attn_scores"])
    lowered = (scores[1] - scores[0])[0, :, 9, :10]  # a query sees itself and what is before it
    expected = -torch.tensor([[2.0**-4], [2.0**-8]]) * torch.arange(9, -1, -1)
    torch.testing.assert_close(lowered, expected, atol=1e-5, rtol=1e-4)


def test_a_value_residual_brings_in_the_values_of_the_first_block_that_attends(tokens: Tensor) -> None:
    blocks = (Block(mixer="short_conv"), Block(heads=4), Block(heads=2, value_residual=True))
    model = make(Architecture(width=32, blocks=blocks))
    with torch.no_grad():
        model.get_parameter("blocks.2.attn.value_mix").fill_(1.0)
    _, seen = run_with_taps(model, tokens)
    first, last = (seen[f"blocks.{layer}.attn.hook_v"].flatten(2) for layer in (1, 2))
    torch.testing.assert_close(first, last)


def test_the_first_channel_of_a_token_shift_sees_the_present_and_the_last_one_the_past(tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(token_shift=True),)))
    model.explicit = True
    _, seen = run_with_taps(model, tokens)
    before, after = seen["blocks.0.ln1.hook_normalized"], seen["blocks.0.shift.hook_out"]
    torch.testing.assert_close(after[..., 0], before[..., 0])
    torch.testing.assert_close(after[:, 1:, -1], before[:, :-1, -1])


def test_skips_join_each_block_of_the_second_half_with_its_mirror_image(tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(),) * 4, unet_skips=True))
    scramble(model)
    _, seen = run_with_taps(model, tokens)
    for layer, mirror in ((2, 1), (3, 0)):
        gain = model.get_parameter(f"blocks.{layer}.skip_mix")
        torch.testing.assert_close(
            seen[f"blocks.{layer}.hook_skip_out"], gain * seen[f"blocks.{mirror}.hook_resid_pre"]
        )
    assert "blocks.1.hook_skip_out" not in seen


def test_the_stream_is_embedding_plus_what_joins_and_what_mixers_write(tokens: Tensor) -> None:
    architecture = Architecture(
        width=32,
        blocks=(Block(parallel=True), Block(mixer="none"), Block(channel="none")),
        norm_placement="sandwich",
        residual_scale="learned",
        embedding_residual=True,
        unet_skips=True,
    )
    model = make(architecture)
    scramble(model)
    _, seen = run_with_taps(model, tokens)
    parts = [value for name, value in seen.items() if name.endswith(("_out", "hook_embed")) and "shift" not in name]
    assert len(parts) == 1 + 2 + 1 + 4  # embedding, embedding residuals, one skip, mixers
    torch.testing.assert_close(torch.stack(parts).sum(0), seen["blocks.2.hook_resid_post"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("explicit", [False, True])
def test_norms_are_what_their_papers_say(explicit: bool) -> None:
    """Ba et al. 2016 (arXiv 1607.06450); Zhang and Sennrich 2019 (arXiv 1910.07467): no mean is taken off."""
    x, gain, bias = torch.randn(3, 5, 8), torch.randn(8), torch.randn(8)
    layer, rms = Norm("layernorm", 8), Norm("rmsnorm", 8)
    with torch.no_grad():
        for norm in (layer, rms):
            norm.explicit = explicit
            norm.w.copy_(gain)
        assert layer.b is not None
        layer.b.copy_(bias)
        centered = x - x.mean(-1, keepdim=True)
        expected = centered / (centered.square().mean(-1, keepdim=True) + NORM_EPS).sqrt() * gain + bias
        assert torch.allclose(layer(x), expected, atol=1e-5)
        assert rms.b is None
        assert torch.allclose(rms(x), x / (x.square().mean(-1, keepdim=True) + NORM_EPS).sqrt() * gain, atol=1e-5)


def test_norms_after_the_addition_leave_a_normalized_stream(tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(), Block(parallel=True)), norm_placement="post"))
    _, seen = run_with_taps(model, tokens)
    for name in ("blocks.0.hook_resid_mid", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"):
        torch.testing.assert_close(seen[name].std(-1, correction=0), torch.ones(3, 12), atol=1e-3, rtol=0)


def test_capped_logits_stay_within_their_bound(tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(),), logit_softcap=5.0))
    with torch.no_grad():
        model.unembed.W_U.mul_(1000)
    logits, seen = run_with_taps(model, tokens)
    assert logits.abs().max() <= 5 < seen["hook_uncapped"].abs().max()


def test_experts_are_weighed_by_a_distribution(tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(channel="moe"),)))
    _, seen = run_with_taps(model, tokens)
    route = seen["blocks.0.mlp.hook_expert_weights"]
    assert route.shape == (3, 12, 4)
    torch.testing.assert_close(route.sum(-1), torch.ones(3, 12))


@pytest.mark.parametrize(("gate", "shape"), [("head", (3, 12, 4)), ("channel", (3, 12, 4, 8))])
def test_a_closed_gate_silences_a_head(gate: str, shape: tuple[int, ...], tokens: Tensor) -> None:
    model = make(Architecture(width=32, blocks=(Block(gate=gate),)))
    gates = model.get_submodule("blocks.0.attn.hook_gate")
    handle = gates.register_forward_hook(
        lambda _, __, out: out * torch.tensor([0.0, 1, 1, 1]).view(4, *[1] * (out.ndim - 3))
    )
    _, seen = run_with_taps(model, tokens)
    handle.remove()
    assert seen["blocks.0.attn.hook_gate"].shape == shape
    assert not seen["blocks.0.attn.hook_z"][:, :, 0].any()
    assert seen["blocks.0.attn.hook_z"][:, :, 1].any()
