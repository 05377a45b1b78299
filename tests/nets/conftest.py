"""Random architectures, shared by the tests of this package."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from selfimprove.genome.genome import Architecture, Block

BLOCKS = st.builds(
    Block,
    mixer=st.sampled_from(["attention", "conv_attention", "short_conv"]),
    heads=st.sampled_from([1, 2, 4]),
    qk_norm=st.booleans(),
    channel=st.sampled_from(["relu", "gelu", "silu", "relu2", "swiglu"]),
    mlp_ratio=st.sampled_from([1.0, 2.0, 3.0]),
)
ARCHITECTURES = st.builds(
    Architecture,
    width=st.sampled_from([32, 64]),
    blocks=st.lists(BLOCKS, min_size=1, max_size=3).map(tuple),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    positions=st.sampled_from(["rope", "learned", "none"]),
    tie_embeddings=st.booleans(),
    zero_init=st.booleans(),
)


@pytest.fixture(scope="session")
def architectures() -> SearchStrategy[Architecture]:
    """Every combination of parts, at sizes that take a millisecond."""
    return ARCHITECTURES


@pytest.fixture(scope="session")
def one_of_each() -> Architecture:
    """Three blocks that differ in mixer, heads and activation."""
    return Architecture(
        width=32,
        blocks=(
            Block("attention", 4, True, "gelu", 2.0),
            Block("short_conv", 4, False, "swiglu", 2.0),
            Block("conv_attention", 2, False, "relu2", 3.0),
        ),
        norm="layernorm",
        positions="rope",
        tie_embeddings=False,
        zero_init=False,
    )


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(0))
