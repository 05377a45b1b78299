"""Which attributes of an architecture have an effect, and which values do not go together."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.errors import InvalidGenome
from selfimprove.genome.architecture import Architecture, Block, check
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.paths import value_at, with_value
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space

SECOND = "architecture.blocks.1"


def genome_of(**changes: Any) -> Genome:
    """The seed with another second block, or (with ``blocks``) other blocks, or other values of the architecture."""
    seed = seed_genome()
    of_block = {name: value for name, value in changes.items() if name in Block.__dataclass_fields__}
    rest = {name: value for name, value in changes.items() if name not in of_block}
    architecture = replace(seed.architecture, **rest)
    *others, last = architecture.blocks
    return replace(seed, architecture=replace(architecture, blocks=(*others, replace(last, **of_block))))


@pytest.mark.parametrize(
    ("base", "name", "values"),
    [
        ({"mixer": "short_conv"}, "heads", (1, 4)),
        ({"mixer": "short_conv"}, "kv_heads", (0, 1)),
        ({"mixer": "short_conv"}, "head_size", (0, 8)),
        ({"mixer": "short_conv"}, "qk_norm", (False, True)),
        ({"mixer": "short_conv"}, "gate", ("none", "head")),
        ({"mixer": "short_conv"}, "conv_qkv", (False, True)),
        ({"mixer": "short_conv"}, "value_residual", (False, True)),
        ({"mixer": "linear_attention"}, "window", (4, 8)),
        ({"heads": 4}, "kv_heads", (0, 4)),
        ({"heads": 4}, "head_size", (0, 16)),
        ({"mixer": "none"}, "token_shift", (False, True)),
        ({"mixer": "none"}, "parallel", (False, True)),
        ({"channel": "none"}, "parallel", (False, True)),
        ({"channel": "none"}, "mlp_ratio", (1.0, 4.0)),
        ({"blocks": (Block(mixer="short_conv"), Block())}, "value_residual", (False, True)),
        ({"blocks": (Block(),)}, "embedding_residual", (False, True)),
        ({"blocks": (Block(),)}, "unet_skips", (False, True)),
        ({"blocks": (Block(mixer="short_conv"),)}, "positions", ("rope", "alibi", "none")),
    ],
)
def test_a_value_without_effect_is_not_in_the_hash(base: dict[str, Any], name: str, values: tuple[Any, ...]) -> None:
    assert len({genome_of(**base, **{name: value}).sha256 for value in values}) == 1


@pytest.mark.parametrize(
    ("base", "name", "values"),
    [
        ({"mixer": "sliding_attention"}, "window", (4, 8)),
        ({"mixer": "linear_attention"}, "qk_norm", (False, True)),
        ({"mixer": "short_conv"}, "token_shift", (False, True)),
        ({}, "value_residual", (False, True)),
        ({}, "parallel", (False, True)),
        ({}, "embedding_residual", (False, True)),
        ({}, "unet_skips", (False, True)),
        ({"blocks": (Block(mixer="short_conv"),)}, "positions", ("learned", "none")),
    ],
)
def test_a_value_with_an_effect_is(base: dict[str, Any], name: str, values: tuple[Any, ...]) -> None:
    assert len({genome_of(**base, **{name: value}).sha256 for value in values}) == len(values)


def test_every_attribute_of_the_table_changes_the_hash_of_some_genome(space: Space) -> None:
    rng = random.Random(0)
    silent = {path for path, field in FIELDS.items() if path.startswith("architecture") and "set" in field.ops}
    for _ in range(60):
        genome = draw_genome(space, rng)
        for pattern in sorted(silent):
            path = pattern.replace("*", str(len(genome.architecture.blocks) - 1))
            hashes = {with_value(genome, path, choice).sha256 for choice in FIELDS[pattern].choices}
            silent -= {pattern} if len(hashes) > 1 else set()
    assert not silent


@given(number=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_the_hash_stays_under_changes_without_effect(space: Space, number: int) -> None:
    rng = random.Random(number)
    genome = draw_genome(space, rng)
    for path in space.value_paths(genome, "architecture"):
        name = path.rpartition(".")[2]
        if ".blocks." not in path:
            continue
        index = int(path.split(".")[2])
        if name in genome.architecture.effective()["blocks"][index]:
            continue
        choice = rng.choice(FIELDS[f"architecture.blocks.*.{name}"].choices)
        other = with_value(genome, path, choice)
        assert other.sha256 == genome.sha256, path
        assert value_at(other, path) == choice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 8, "width": 48}, rf"{SECOND}\.heads: got 8; allowed: 1, 2, 4 at width 48"),
        ({"heads": 2, "kv_heads": 4}, rf"{SECOND}\.kv_heads: got 4; allowed: 0, 1, 2 beside 2 heads"),
        ({"head_size": 64}, rf"{SECOND}\.head_size: got 64; allowed: 0, 8, 16, 32 at width 64"),
        ({"mixer": "none", "channel": "none"}, rf"{SECOND}\.channel: got none.*remove the block"),
        ({"value_residual": True, "kv_heads": 1}, rf"{SECOND}\.value_residual: got True.*64 channels.*has 16"),
    ],
)
def test_values_that_do_not_go_together_are_refused(space: Space, changes: dict[str, Any], message: str) -> None:
    genome = genome_of(**changes)
    with pytest.raises(InvalidGenome, match=message):
        space.validate(genome)


def test_a_given_head_size_frees_heads_from_dividing_the_width() -> None:
    check(Architecture(width=48, blocks=(Block(heads=8, head_size=8),)))


def test_a_block_without_attention_may_have_any_heads() -> None:
    check(Architecture(width=48, blocks=(Block(mixer="short_conv", heads=8),)))
