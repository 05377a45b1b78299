"""The hooked copy is the trained model: same weights, same logits, and TransformerLens's tools are right on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformer_lens import patching
from transformer_lens.hook_points import HookPoint
from transformer_lens.tools.analysis import direct_logit_attribution

from interp.hooked import to_hooked
from interp.verdict import NotApplicable
from selfimprove.nets.blocks import Tap
from selfimprove.nets.transformer import Transformer

Shaken = Callable[..., Transformer]
SEEDS = range(50)


def canonical_names(model: Transformer) -> set[str]:
    """The names a TransformerLens user expects, written down independently of the taps."""
    names = {"hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized"}
    names |= {"hook_pos_embed"} if model.cfg.positional_embedding_type == "standard" else set()
    for layer, block in enumerate(model.blocks):
        own = {f"hook_{part}" for part in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")}
        own |= {f"{norm}.hook_{part}" for norm in ("ln1", "ln2") for part in ("scale", "normalized")}
        own |= {"mlp.hook_pre", "mlp.hook_post"}
        if block.has_attention:
            own |= {f"attn.hook_{part}" for part in ("q", "k", "v", "z", "attn_scores", "pattern")}
        else:
            own |= {f"mixer.hook_{part}" for part in ("in", "gate", "out")}
        names |= {f"blocks.{layer}.{name}" for name in own}
    return names


@pytest.mark.parametrize("seed", SEEDS)
def test_hooked_copy_gives_the_logits_of_the_training_path(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    model = shaken(seed).eval()
    logits, _ = to_hooked(model).run_with_cache(tokens)
    torch.testing.assert_close(logits, model(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_cache_holds_every_canonical_name(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed))
    _, cache = hooked.run_with_cache(tokens)
    assert canonical_names(hooked) <= set(cache.keys())
    assert set(cache.keys()) == set(hooked.hook_dict)


@pytest.mark.parametrize("seed", range(12))
def test_patching_one_heads_z_changes_the_output(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed, attention=True))
    last = hooked.cfg.n_layers - 1

    def silence(z: Tensor, hook: HookPoint) -> Tensor:
        z[:, :, 0] = 0
        return z

    with torch.no_grad():
        patched = hooked.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{last}.attn.hook_z", silence)])
        assert not torch.allclose(patched, hooked(tokens), atol=1e-4)
        torch.testing.assert_close(hooked(tokens), hooked.run_with_cache(tokens)[0])  # and the hook is gone


def test_the_original_is_left_as_it_was(shaken: Shaken) -> None:
    model = shaken(0, attention=True).train()
    hooked = to_hooked(model)
    assert type(model) is Transformer
    assert model.training
    assert not model.explicit
    assert any(isinstance(m, Tap) for m in model.modules())
    assert not any(isinstance(m, Tap) for m in hooked.modules())
    assert not any(m.training for m in hooked.modules())
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in hooked.parameters()}
    assert not shared


def test_parameter_names_are_the_networks(shaken: Shaken) -> None:
    model = shaken(3)
    assert list(to_hooked(model).state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("seed", SEEDS)
def test_head_results_are_labelled_by_each_layers_own_heads(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed))
    _, cache = hooked.run_with_cache(tokens)
    stack, labels = cache.stack_head_results(return_labels=True, incl_remainder=True)
    expected = [
        (f"L{layer}H{head}", cache[f"blocks.{layer}.attn.hook_z"][:, :, head] @ block.attn.W_O[head])
        for layer, block in enumerate(hooked.blocks)
        if block.has_attention
        for head in range(block.attn.W_O.shape[0])
    ]
    assert labels == [name for name, _ in expected] + ["remainder"]
    for row, (_, value) in zip(stack, expected, strict=False):
        torch.testing.assert_close(row, value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stack.sum(0), cache["resid_post", hooked.cfg.n_layers - 1], rtol=1e-5, atol=1e-5)


def test_head_results_of_a_model_without_heads_are_not_applicable(shaken: Shaken, tokens: Tensor) -> None:
    seed = next(s for s in range(1000) if not any(b.has_attention for b in shaken(s).blocks))
    _, cache = to_hooked(shaken(seed)).run_with_cache(tokens)
    with pytest.raises(NotApplicable, match="at least one block with attention"):
        cache.stack_head_results()


@pytest.mark.parametrize("seed", SEEDS)
def test_components_of_the_stream_add_up_to_the_right_tokens_logit(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed))
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(tokens)
        answers = tokens.roll(-1, 1)
        total = cache.logit_attrs(cache.decompose_resid(), answers).sum(0)
        bias = hooked.ln_final.b
        constant = 0 if bias is None else (bias @ hooked.W_U)[answers]  # the part that no component writes
        expected = logits.gather(-1, answers[..., None])[..., 0]
    torch.testing.assert_close(total + constant, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", ["component", "layer", "head"])
def test_the_librarys_direct_logit_attribution_is_the_caches(unit: str, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(1, attention=True))
    with torch.no_grad():
        result = direct_logit_attribution(hooked, tokens, answer_tokens=5, unit=unit)
        _, cache = hooked.run_with_cache(tokens)
        stack = {
            "component": lambda: cache.decompose_resid(pos_slice=-1),
            "layer": lambda: cache.accumulated_resid(incl_mid=True, pos_slice=-1),
            "head": lambda: cache.stack_head_results(incl_remainder=True, pos_slice=-1),
        }[unit]()
        scale = cache["ln_final.hook_scale"][:, -1]
        centered = stack - stack.mean(-1, keepdim=True) if hooked.ln_final.centered else stack
        expected = (centered / scale * hooked.ln_final.w) @ hooked.W_U[:, 5]
    torch.testing.assert_close(result.attribution, expected, rtol=1e-5, atol=1e-5)


def test_the_librarys_head_patching_sweep_is_a_loop_over_hooks(shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(5, attention=True, uniform=True))
    corrupted = tokens.flip(0)
    with torch.no_grad():
        _, clean = hooked.run_with_cache(tokens)
        swept = patching.get_act_patch_attn_head_out_all_pos(
            hooked, corrupted, clean, lambda logits: logits[:, -1, 0].mean()
        )
        for layer in range(hooked.cfg.n_layers):
            for head in range(hooked.cfg.n_heads):
                name = f"blocks.{layer}.attn.hook_z"

                def patch(z: Tensor, hook: HookPoint, head: int = head, name: str = name) -> Tensor:
                    z[:, :, head] = clean[name][:, :, head]
                    return z

                logits = hooked.run_with_hooks(corrupted, fwd_hooks=[(name, patch)])
                torch.testing.assert_close(swept[layer, head], logits[:, -1, 0].mean(), rtol=1e-5, atol=1e-5)


def test_a_head_sweep_over_differing_heads_is_refused_not_mislabelled(shaken: Shaken, tokens: Tensor) -> None:
    seed = next(s for s in range(1000) if isinstance(shaken(s).cfg.n_heads, tuple))
    hooked = to_hooked(shaken(seed))
    _, clean = hooked.run_with_cache(tokens)
    with pytest.raises(TypeError):
        patching.get_act_patch_attn_head_out_all_pos(hooked, tokens, clean, lambda logits: logits.mean())


def test_text_is_refused_because_there_is_no_tokenizer(shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(0))
    assert hooked.to_tokens(tokens[0]).shape == (1, tokens.shape[1])
    with pytest.raises(NotApplicable, match="no tokenizer"):
        hooked.to_tokens("hello")
