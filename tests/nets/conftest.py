"""Random architectures, shared by the tests of this package."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from selfimprove.genome.architecture import Architecture, Block
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space, SpaceConfig

SMALL = Space(SpaceConfig(max_width=64, max_blocks=3, max_window=8))


@pytest.fixture(scope="session")
def architectures() -> SearchStrategy[Architecture]:
    """Every combination of parts, at sizes that take a few milliseconds."""
    return st.integers(0, 2**32).map(lambda number: draw_genome(SMALL, random.Random(number)).architecture)


@pytest.fixture(scope="session")
def one_of_each() -> Architecture:
    """Three blocks that differ in mixer, heads and activation."""
    return Architecture(
        width=32,
        blocks=(
            Block(heads=4, qk_norm=True, channel="gelu", mlp_ratio=2.0),
            Block(mixer="short_conv", channel="swiglu", mlp_ratio=2.0),
            Block(heads=2, conv_qkv=True, channel="relu2", mlp_ratio=3.0),
        ),
    )


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(17, (3, 12), generator=torch.Generator().manual_seed(0))
