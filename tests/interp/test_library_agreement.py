"""TransformerLens's own tools and ours give the same figures on random genomes, wherever both apply.

Genomes are drawn over the whole space in three ways: freely; with attention in every block and all blocks alike, as the
library's sweeps over heads suppose; and so that heads write ``z @ W_O`` and nothing else joins the stream, as its cache
supposes when it takes the stream apart. Each test counts the genomes that it really compared and asks for at least
`LEAST`, so that it cannot pass by leaving them out. Where layers differ the library refuses or mislabels; there ours is
compared with plain loops.

The library patches a copy only where gradients are on. Without them it writes into the model's own tensor, which an
embedding residual may hold as well; so they stay on in its sweeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import pytest
import torch
from torch import Tensor
from transformer_lens import ActivationCache, patching
from transformer_lens.head_detector import detect_head
from transformer_lens.tools.analysis import direct_logit_attribution
from transformer_lens.tools.analysis import logit_lens as library_lens

from interp import attribution, circuits, lenses
from interp.attention_keys import KINDS
from interp.cache import LayerwiseCache
from interp.components import HEADS, Component, Kind, components
from interp.hooked import HookedModel, to_hooked
from interp.patching import sweep
from selfimprove.genome.architecture import Architecture
from tests.interp.conftest import VOCAB, build_shaken, draw_architecture

LEAST = 50  # genomes that each test compares
POOLS = {"free": 40, "alike": 28, "plain": 56}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
SHORT, FEW = 2, 4  # positions and heads that a sweep goes over


@dataclass(frozen=True)
class Case:
    """A random genome as a hooked model, two runs' tokens, and the library's own cache beside ours."""

    model: HookedModel
    tokens: Tensor
    other: Tensor
    cache: LayerwiseCache
    library: ActivationCache

    @property
    def heads_alike(self) -> bool:
        return isinstance(self.model.cfg.n_heads, int) and self.model.cfg.n_heads > 0

    @property
    def directions(self) -> Tensor:
        return self.model.tokens_to_residual_directions(self.other)


def draw(pool: str, seed: int) -> Architecture:
    if pool == "free":
        return draw_architecture(seed)
    drawn = draw_architecture(seed, attention=True, uniform=True)
    drawn = replace(drawn, blocks=drawn.blocks[:2])  # a sweep costs one run a head
    if pool == "alike":
        return drawn
    blocks = tuple(replace(b, channel="relu" if b.channel == "none" else b.channel) for b in drawn.blocks)
    joins = {"embedding_residual": False, "unet_skips": False}
    return replace(drawn, blocks=blocks, norm_placement="pre", residual_scale="one", **joins)


@cache
def case(pool: str, seed: int) -> Case:
    model = to_hooked(build_shaken(draw(pool, seed), seed))
    generator = torch.Generator().manual_seed(seed)
    tokens, other = torch.randint(VOCAB // 4, (2, 2, 9), generator=generator)  # few tokens, so that they come again
    with torch.no_grad():
        _, kept = model.run_with_cache(tokens)
    return Case(model, tokens, other, kept, ActivationCache(dict(kept.cache_dict), model))


def cases(*pools: str) -> Iterator[Case]:
    yield from (case(pool, seed) for pool in pools or POOLS for seed in range(POOLS[pool]))


def answer_logit(logits: Tensor) -> Tensor:
    return logits[:, -1, 7].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_a_kind_are_those_of_the_head_detector(kind: str) -> None:
    """Its score: the share of all of a head's attention that lies on them, queries without such keys included."""
    compared = 0
    for one in cases():
        if one.heads_alike and not circuits.left_out(one.model):
            keys, layers = KINDS[kind](one.tokens)[:, None], range(one.model.cfg.n_layers)
            patterns = torch.stack([one.cache[f"blocks.{layer}.attn.hook_pattern"] for layer in layers])
            ours = ((patterns * keys).sum((-2, -1)) / patterns.sum((-2, -1))).mean(1)
            library = torch.stack([detect_head(one.model, sequence, f"{kind}_head") for sequence in one.tokens]).mean(0)
            torch.testing.assert_close(ours, library, **CLOSE)
            compared += 1
    assert compared >= LEAST


def test_patching_heads_is_the_librarys_sweep() -> None:
    compared = 0
    for one in cases("plain", "free", "alike"):
        if one.heads_alike and one.model.cfg.n_heads <= FEW and compared < LEAST:
            ours = sweep(one.model, one.other, one.cache, answer_logit, components(one.model, HEADS))
            library = patching.get_act_patch_attn_head_out_all_pos(one.model, one.other, one.cache, answer_logit)
            torch.testing.assert_close(ours.values, library.flatten(), **CLOSE)
            compared += 1
    assert compared >= LEAST


@pytest.mark.parametrize(
    ("kind", "applies", "library"),
    [
        ("stream", lambda block: True, patching.get_act_patch_resid_pre),
        ("mixer", lambda block: block.has_mixer, patching.get_act_patch_attn_out),
        ("mlp", lambda block: block.has_mlp, patching.get_act_patch_mlp_out),
    ],
)
def test_patching_by_position_is_the_librarys_sweep(kind: Kind, applies, library) -> None:  # type: ignore[no-untyped-def]
    compared = 0
    for one in cases():
        if all(applies(block) for block in one.model.blocks) and compared < LEAST:
            other = one.other[:, :SHORT]
            _, clean = one.model.run_with_cache(one.tokens[:, :SHORT])
            ours = sweep(one.model, other, clean, answer_logit, components(one.model, (kind,), range(SHORT)))
            expected = library(one.model, other, clean, answer_logit)
            torch.testing.assert_close(ours.values.view(-1, SHORT), expected, **CLOSE)
            compared += 1
    assert compared >= LEAST


def test_the_logit_lens_is_the_librarys() -> None:
    compared = 0
    for one in cases():
        if not one.model.joined:
            lens = library_lens(one.model, cache=one.cache, positions=None, return_type="log_probs")
            torch.testing.assert_close(lenses.lens_log_probs(one.model, one.cache), lens.values, **CLOSE)
            compared += 1
    assert compared >= LEAST


@pytest.mark.parametrize("unit", ["component", "head"])
def test_attribution_is_the_librarys_on_its_own_cache(unit: str) -> None:
    compared = 0
    for one in cases("plain"):
        ours, labels = attribution.attribute(one.model, one.cache, one.directions)
        library = direct_logit_attribution(one.model, answer_tokens=one.other, unit=unit, pos=None, cache=one.library)
        rows = dict(zip(library.labels, library.attribution, strict=True))
        if unit == "head":
            expected = {label: row for label, row in rows.items() if label != "remainder"}
            assert list(expected) == [label for label in labels if "H" in label]
        else:
            expected = {_translated(label): row for label, row in rows.items() if not label.endswith("attn_out")}
        for label, row in expected.items():
            torch.testing.assert_close(ours[labels.index(label)], row, **CLOSE)
        torch.testing.assert_close(ours.sum(0), library_total(one), **CLOSE)
        compared += 1
    assert compared >= LEAST


def _translated(label: str) -> str:
    """The library's ``1_mlp_out`` is our ``L1 mlp``."""
    return f"L{label[0]} mlp" if label.endswith("mlp_out") else label


def library_total(one: Case) -> Tensor:
    """Attribution of the whole final stream, as the library sees it."""
    last = one.library["resid_post", one.model.cfg.n_layers - 1]
    total: Tensor = one.library.logit_attrs(last[None], tokens=one.other)[0]
    return total


@pytest.mark.parametrize("applied", [False, True], ids=["raw", "normalized"])
def test_the_layerwise_cache_is_the_librarys(applied: bool) -> None:
    compared = 0
    for one in cases("plain"):
        for take in ("decompose_resid", "stack_head_results", "accumulated_resid"):
            (ours, names), (library, labels) = (
                getattr(kept, take)(apply_ln=applied, return_labels=True) for kept in (one.cache, one.library)
            )
            assert list(names) == list(labels)
            torch.testing.assert_close(ours, library, **CLOSE)
        compared += 1
    assert compared >= LEAST


def uneven() -> Iterator[Case]:
    """Genomes on which a sweep of the library's over heads would refuse or mislabel."""
    yield from (one for one in cases("free") if not one.heads_alike and one.model.attending)


LEAST_UNEVEN = 15


def test_head_scores_of_uneven_models_are_those_of_plain_loops() -> None:
    compared = 0
    for one in uneven():
        if not circuits.softmax_layers(one.model):
            continue
        keys = {kind: find(one.tokens) for kind, find in KINDS.items()}
        keys = {kind: found for kind, found in keys.items() if found.any()}
        scores = circuits.score_heads(one.model, one.tokens, keys)
        for kind in keys:
            assert scores.of(kind) == pytest.approx(counted(one, kind), abs=1e-5)
        compared += 1
    assert compared >= LEAST_UNEVEN


def counted(one: Case, kind: str) -> dict[str, float]:
    """A kind's score by head, position by position, from its definition in words."""
    found = {}
    for layer, block in enumerate(one.model.blocks):
        if not block.has_attention or block.attn.linear:
            continue
        patterns = one.cache[f"blocks.{layer}.attn.hook_pattern"]
        for head in range(patterns.shape[1]):
            attended = []
            for row, sequence in enumerate(one.tokens.tolist()):
                for query, token in enumerate(sequence):
                    before = [place for place in range(query) if sequence[place] == token]
                    wanted = {
                        "previous_token": [query - 1] if query else [],
                        "duplicate_token": before,
                        "induction": [place + 1 for place in before],
                    }[kind]
                    if wanted:
                        attended.append(sum(patterns[row, head, query, key].item() for key in wanted))
            found[f"L{layer}H{head}"] = sum(attended) / len(attended)
    return found


def exchange(one: Case, part: Component, module: torch.nn.Module, given: object, seen: Tensor) -> Tensor:
    clean = one.cache[part.hook]
    if part.head is None:
        return clean
    seen = seen.clone()
    seen[:, :, part.head] = clean[:, :, part.head]
    return seen


def test_patching_uneven_models_is_a_loop_over_plain_torch_hooks() -> None:
    compared = 0
    for one in uneven():
        parts = components(one.model)
        ours = sweep(one.model, one.other, one.cache, answer_logit, parts)
        assert len(set(ours.labels)) == len(parts)
        for part, value in zip(parts, ours.values, strict=True):
            layer = int(part.label[1])
            assert part.hook.startswith(f"blocks.{layer}.")
            if part.kind == "head":
                assert part.label == f"L{layer}H{part.head}"
            handle = one.model.get_submodule(part.hook).register_forward_hook(partial(exchange, one, part))
            with torch.no_grad():
                expected = answer_logit(one.model(one.other))
            handle.remove()
            torch.testing.assert_close(value, expected, **CLOSE)
        compared += 1
    assert compared >= LEAST_UNEVEN


def test_attribution_of_uneven_models_is_a_loop_over_parts() -> None:
    compared = 0
    for one in uneven():
        if one.model.blocks[0].placement == "post":
            continue
        ours, labels = attribution.attribute(one.model, one.cache, one.directions)
        norm, scale = one.model.ln_final, one.cache["ln_final.hook_scale"]
        expected = {}
        for label, vector in parts_written(one).items():
            centered = vector - vector.mean(-1, keepdim=True) if norm.centered else vector
            expected[label] = ((centered / scale * norm.w) @ one.model.W_U).gather(-1, one.other[..., None])[..., 0]
        assert set(expected) == set(labels)
        for label, row in zip(labels, ours, strict=True):
            torch.testing.assert_close(row, expected[label], rtol=1e-4, atol=1e-5)
        compared += 1
    assert compared >= LEAST_UNEVEN // 2


def parts_written(one: Case) -> dict[str, Tensor]:
    """What each part writes, by hand: embeddings, joins, heads through the norm and the scale after them, MLPs."""
    kept = one.cache
    found = {name: kept[f"hook_{name}"] for name in ("embed", "pos_embed") if f"hook_{name}" in kept.cache_dict}
    for layer, block in enumerate(one.model.blocks):
        at = f"blocks.{layer}"
        for label, hook in (("embed", "hook_embed_out"), ("skip", "hook_skip_out"), ("mlp", "hook_mlp_out")):
            if f"{at}.{hook}" in kept.cache_dict:
                found[f"L{layer} {label}"] = kept[f"{at}.{hook}"]
        if block.has_mixer and not block.has_attention:
            found[f"L{layer} convolution"] = kept[f"{at}.hook_attn_out"]
        if block.has_attention:
            gain = block.attn_scale if block.learned_scale else block.scale
            z = kept[f"{at}.attn.hook_z"]
            for head in range(z.shape[2]):
                vector = z[:, :, head] @ block.attn.W_O[head]
                if block.placement == "sandwich":
                    after = block.ln1_post
                    vector = vector - vector.mean(-1, keepdim=True) if after.centered else vector
                    vector = vector / kept[f"{at}.ln1_post.hook_scale"] * after.w
                found[f"L{layer}H{head}"] = vector * gain
            if block.placement == "sandwich" and block.ln1_post.b is not None:
                found[f"L{layer} norm"] = (block.ln1_post.b * gain).expand_as(kept[f"{at}.hook_attn_out"])
    return found
