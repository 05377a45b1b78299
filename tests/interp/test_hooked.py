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
from interp.patching import patch_heads
from interp.verdict import NotApplicable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.primitives import Tap
from selfimprove.nets.transformer import Transformer
from tests.interp.conftest import build_shaken

Shaken = Callable[..., Transformer]
SEEDS = range(50)


def canonical_names(model: Transformer) -> set[str]:
    """The names a TransformerLens user expects, written down independently of the taps."""
    names = {"hook_embed", "ln_final.hook_scale", "ln_final.hook_normalized"}
    names |= {"hook_pos_embed"} if model.cfg.positional_embedding_type == "standard" else set()
    names |= {"hook_uncapped"} if model.cfg.output_logits_soft_cap > 0 else set()
    for layer, block in enumerate(model.blocks):
        own = {"hook_resid_pre", "hook_resid_post"} | (set() if block.parallel else {"hook_resid_mid"})
        norms = {"ln1", "ln2", "ln1_post", "ln2_post"} & {name for name, _ in block.named_children()}
        own |= {f"{norm}.hook_{part}" for norm in norms for part in ("scale", "normalized")}
        own |= {"hook_mlp_out", "mlp.hook_pre", "mlp.hook_post"} if block.has_mlp else set()
        own |= {"hook_attn_out"} if block.has_mixer else set()
        if block.has_attention:
            own |= {f"attn.hook_{part}" for part in ("q", "k", "v", "z", "attn_scores", "pattern")}
        elif block.has_mixer:
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
    hooked = to_hooked(shaken(seed, additive=True))
    _, cache = hooked.run_with_cache(tokens)
    stack, labels = cache.stack_head_results(return_labels=True, incl_remainder=True)
    heads = [(layer, head) for layer in hooked.attending for head in range(hooked.blocks[layer].attn.W_O.shape[0])]
    assert labels == [f"L{layer}H{head}" for layer, head in heads] + ["remainder"]
    torch.testing.assert_close(stack.sum(0), cache["resid_post", hooked.cfg.n_layers - 1], rtol=1e-5, atol=1e-5)
    for layer in hooked.attending:
        rows = torch.stack([row for row, (own, _) in zip(stack, heads, strict=False) if own == layer])
        block = hooked.blocks[layer]
        bias = getattr(getattr(block, "ln1_post", None), "b", None)
        rest = 0 if bias is None else block.scaled(bias, "attn")  # of the norm after the heads: no head writes it
        torch.testing.assert_close(rows.sum(0) + rest, cache["attn_out", layer], rtol=1e-4, atol=1e-4)


def test_head_results_without_a_norm_after_them_are_z_times_w_o(shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(
        build_shaken(Architecture(width=32, blocks=(Block(heads=4), Block(heads=2, mixer="linear_attention"))))
    )
    _, cache = hooked.run_with_cache(tokens)
    stack, labels = cache.stack_head_results(return_labels=True)
    assert labels == ["L0H0", "L0H1", "L0H2", "L0H3", "L1H0", "L1H1"]
    z, weight = cache["blocks.1.attn.hook_z"], hooked.blocks[1].attn.W_O
    torch.testing.assert_close(stack[5], z[:, :, 1] @ weight[1], rtol=1e-5, atol=1e-5)


def test_a_stream_that_is_normalized_after_each_addition_is_not_taken_apart(tokens: Tensor) -> None:
    hooked = to_hooked(build_shaken(Architecture(width=32, blocks=(Block(),), norm_placement="post")))
    _, cache = hooked.run_with_cache(tokens)
    for decompose in (cache.decompose_resid, cache.stack_head_results, cache.get_full_resid_decomposition):
        with pytest.raises(NotApplicable, match="norm placement post"):
            decompose()
    for refused in (lambda: cache.stack_neuron_results(-1), lambda: hooked.accumulated_bias(1)):
        with pytest.raises(NotApplicable, match="norm placement post"):
            refused()
    with pytest.raises(NotApplicable, match="a norm between stream and mixer"):
        cache.accumulated_resid(layer=0, apply_ln=True)
    assert cache.accumulated_resid(apply_ln=True).shape[0] == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_components_add_up_to_the_stream_before_any_layer(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed, additive=True))
    _, cache = hooked.run_with_cache(tokens)
    for layer in range(hooked.cfg.n_layers):
        total = cache.decompose_resid(layer=layer).sum(0)
        torch.testing.assert_close(total, cache["resid_pre", layer], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("neurons", [False, True], ids=["mlps", "neurons"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_full_decomposition_adds_up_to_the_stream_before_any_layer(
    neurons: bool, seed: int, shaken: Shaken, tokens: Tensor
) -> None:
    hooked = to_hooked(shaken(seed, additive=True))
    _, cache = hooked.run_with_cache(tokens)
    for layer in range(hooked.cfg.n_layers + 1):
        stack, labels = cache.get_full_resid_decomposition(layer=layer, expand_neurons=neurons, return_labels=True)
        end = cache["resid_pre", layer] if layer < hooked.cfg.n_layers else cache["resid_post", layer - 1]
        assert len(stack) == len(labels) == len(set(labels))
        torch.testing.assert_close(stack.sum(0), end, rtol=1e-4, atol=1e-4)


SANDWICH = Architecture(
    width=32,
    blocks=(Block(mixer="short_conv", mlp_ratio=2.0), Block(heads=2, channel="moe"), Block(channel="none")),
    norm_placement="sandwich",
    residual_scale="depth",
)


def test_the_full_decomposition_names_each_part_and_holds_what_it_writes(tokens: Tensor) -> None:
    hooked = to_hooked(build_shaken(SANDWICH))
    _, cache = hooked.run_with_cache(tokens)
    stack, labels = cache.get_full_resid_decomposition(return_labels=True)
    rows = dict(zip(labels, stack, strict=True))
    assert {"embed", "0_attn_out", "L0N0", "L0N63", "L1H0", "L1H1", "L1N0", "L2H0", "bias"} <= set(labels)
    assert not {"L0H0", "L0N64", "L2N0", "1_attn_out", "1_mlp_out"} & set(labels)
    block = hooked.blocks[0]
    post = cache["blocks.0.mlp.hook_post"][..., 3:4] * block.mlp.W_out[3]
    post = (post - post.mean(-1, keepdim=True)) / cache["blocks.0.ln2_post.hook_scale"] * block.ln2_post.w
    torch.testing.assert_close(rows["L0N3"], block.scaled(post, "mlp"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows["0_attn_out"], cache["blocks.0.hook_attn_out"])


def test_projections_and_norms_of_the_full_decomposition_are_those_of_its_rows(tokens: Tensor) -> None:
    hooked = to_hooked(build_shaken(SANDWICH))
    _, cache = hooked.run_with_cache(tokens)
    for onto in (hooked.W_U[:, 5], hooked.W_U[:, 5:8]):
        found = cache.get_full_resid_decomposition(apply_ln=True, pos_slice=-1, project_output_onto=onto)
        normed = cache.apply_ln_to_stack(cache.get_full_resid_decomposition(pos_slice=-1), pos_slice=-1)
        torch.testing.assert_close(found, normed @ onto, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_neurons_are_each_layers_own_and_add_up_to_what_its_mlp_writes(
    seed: int, shaken: Shaken, tokens: Tensor
) -> None:
    hooked = to_hooked(shaken(seed, additive=True))
    _, cache = hooked.run_with_cache(tokens)
    stack, labels = cache.stack_neuron_results(-1, return_labels=True, incl_remainder=True)
    sizes = {n: block.mlp.W_out.shape[0] for n, block in enumerate(hooked.blocks) if block.has_mlp}
    assert labels == [f"L{layer}N{n}" for layer, size in sizes.items() for n in range(size)] + ["remainder"]
    torch.testing.assert_close(stack.sum(0), cache["resid_post", hooked.cfg.n_layers - 1], rtol=1e-4, atol=1e-4)
    for layer in sizes:
        rest = hooked.accumulated_bias(layer + 1) - hooked.accumulated_bias(layer, mlp_input=True)
        total = cache.get_neuron_results(layer).sum(-2) + rest
        torch.testing.assert_close(total, cache["mlp_out", layer], rtol=1e-4, atol=1e-4)
    if not sizes:
        assert torch.equal(stack[0], cache["resid_post", hooked.cfg.n_layers - 1])


def test_a_slice_of_neurons_is_those_of_each_layer_that_it_names(tokens: Tensor) -> None:
    hooked = to_hooked(build_shaken(SANDWICH))
    _, cache = hooked.run_with_cache(tokens)
    every, all_labels = cache.stack_neuron_results(-1, return_labels=True)
    rows = dict(zip(all_labels, every, strict=True))
    for chosen, names in ((3, ["L0N3", "L1N3"]), ([1, 5], ["L0N1", "L0N5", "L1N1", "L1N5"])):
        stack, labels = cache.stack_neuron_results(-1, neuron_slice=chosen, pos_slice=-1, return_labels=True)
        assert labels == names
        torch.testing.assert_close(stack, torch.stack([rows[name][:, -1] for name in names]))


def test_the_accumulated_bias_is_what_the_norms_after_the_mixers_add(tokens: Tensor) -> None:
    hooked = to_hooked(build_shaken(SANDWICH))
    blocks = hooked.blocks
    before = blocks[0].scaled(blocks[0].ln1_post.b, "attn") + blocks[0].scaled(blocks[0].ln2_post.b, "mlp")
    torch.testing.assert_close(hooked.accumulated_bias(1), before)
    middle = before + blocks[1].scaled(blocks[1].ln1_post.b, "attn")
    torch.testing.assert_close(hooked.accumulated_bias(1, mlp_input=True), middle)
    without = blocks[0].scaled(blocks[0].ln1_post.b, "attn")
    torch.testing.assert_close(hooked.accumulated_bias(1, include_mlp_biases=False), without)
    assert not hooked.accumulated_bias(0).any()


def test_what_enters_the_mlp_of_a_parallel_block_is_not_taken_apart_by_its_middle(tokens: Tensor) -> None:
    hooked = to_hooked(build_shaken(Architecture(width=32, blocks=(Block(parallel=True),))))
    _, cache = hooked.run_with_cache(tokens)
    for decompose in (cache.decompose_resid, cache.get_full_resid_decomposition, cache.accumulated_resid):
        with pytest.raises(NotApplicable, match="a block with a middle"):
            decompose(layer=0, mlp_input=True)


def test_head_results_of_a_model_without_heads_are_not_applicable(shaken: Shaken, tokens: Tensor) -> None:
    seed = next(s for s in range(1000) if not any(b.has_attention for b in shaken(s, additive=True).blocks))
    _, cache = to_hooked(shaken(seed, additive=True)).run_with_cache(tokens)
    with pytest.raises(NotApplicable, match="at least one block with attention"):
        cache.stack_head_results()


@pytest.mark.parametrize("seed", SEEDS)
def test_components_of_the_stream_add_up_to_the_right_tokens_logit(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(seed, additive=True))
    with torch.no_grad():
        logits, cache = hooked.run_with_cache(tokens)
        answers = tokens.roll(-1, 1)
        total = cache.logit_attrs(cache.decompose_resid(), answers).sum(0)
        bias = hooked.ln_final.b
        constant = 0 if bias is None else (bias @ hooked.W_U)[answers]  # the part that no component writes
        logits = cache["hook_uncapped"] if hooked.cfg.output_logits_soft_cap > 0 else logits
        expected = logits.gather(-1, answers[..., None])[..., 0]
    torch.testing.assert_close(total + constant, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unit", ["component", "layer", "head"])
def test_the_librarys_direct_logit_attribution_is_the_caches(unit: str, shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(1, attention=True, additive=True))
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


def test_where_layers_differ_in_heads_the_library_refuses_a_sweep_and_ours_labels_it(
    shaken: Shaken, tokens: Tensor
) -> None:
    blocks = (Block(heads=4), Block(mixer="none"), Block(heads=2, kv_heads=1))
    hooked = to_hooked(build_shaken(Architecture(width=32, blocks=blocks)))
    _, clean = hooked.run_with_cache(tokens)
    with pytest.raises(TypeError):
        patching.get_act_patch_attn_head_out_all_pos(hooked, tokens, clean, lambda logits: logits.mean())
    sweep = patch_heads(hooked, tokens.flip(0), clean, lambda logits: logits[:, -1, 0].mean())
    assert sweep.labels == ("L0H0", "L0H1", "L0H2", "L0H3", "L2H0", "L2H1")
    assert len(set(sweep.values.tolist())) == 6


def test_our_head_sweep_is_the_librarys_where_heads_agree(shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(5, attention=True, uniform=True))
    _, clean = hooked.run_with_cache(tokens)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 0].mean()

    with torch.no_grad():
        library = patching.get_act_patch_attn_head_out_all_pos(hooked, tokens.flip(0), clean, metric)
    torch.testing.assert_close(patch_heads(hooked, tokens.flip(0), clean, metric).values, library.flatten())


@pytest.mark.parametrize("seed", range(12))
def test_sweeps_over_shared_keys_and_values_have_their_own_heads(seed: int, shaken: Shaken, tokens: Tensor) -> None:
    block = Block(heads=4, kv_heads=2)
    hooked = to_hooked(build_shaken(Architecture(width=32, blocks=(block, block)), seed))
    corrupted = tokens.flip(0)
    _, clean = hooked.run_with_cache(tokens)
    with torch.no_grad():
        swept = patching.get_act_patch_attn_head_v_all_pos(hooked, corrupted, clean, lambda x: x[:, -1, 0].mean())
        assert swept.shape == (2, 2)
        for layer in range(2):
            for head in range(2):
                name = f"blocks.{layer}.attn.hook_v"

                def patch(v: Tensor, hook: HookPoint, head: int = head, name: str = name) -> Tensor:
                    v[:, :, head] = clean[name][:, :, head]
                    return v

                logits = hooked.run_with_hooks(corrupted, fwd_hooks=[(name, patch)])
                torch.testing.assert_close(swept[layer, head], logits[:, -1, 0].mean(), rtol=1e-5, atol=1e-5)
    assert len(set(swept.flatten().tolist())) == 4


def test_text_is_refused_because_there_is_no_tokenizer(shaken: Shaken, tokens: Tensor) -> None:
    hooked = to_hooked(shaken(0))
    assert hooked.to_tokens(tokens[0]).shape == (1, tokens.shape[1])
    with pytest.raises(NotApplicable, match="no tokenizer"):
        hooked.to_tokens("hello")
