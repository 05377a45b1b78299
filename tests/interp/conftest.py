"""Small models and suites that the tests of `interp` share."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from interp.bench import Plan
from selfimprove.genome.architecture import Architecture
from selfimprove.genome.genome import seed_genome
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.suite import TasksConfig, TaskSuite

VOCAB, CONTEXT = TasksConfig().vocab_size, TasksConfig().context


SPACE = Space(SpaceConfig(max_width=64, max_blocks=3))


def draw_architecture(
    seed: int, *, attention: bool = False, uniform: bool = False, additive: bool = False, joined: bool = True
) -> Architecture:
    """A random architecture over the whole space.

    Args:
        seed: of the choice.
        attention: only blocks that attend.
        uniform: all blocks are alike.
        additive: no norms after the additions, so that the stream is the sum of what is written to it.
        joined: what joins the stream between two blocks is allowed.
    """
    rng = random.Random(seed)
    while True:
        drawn = draw_genome(SPACE, rng).architecture
        if uniform:
            drawn = replace(drawn, blocks=drawn.blocks[:1] * len(drawn.blocks))
        if not joined:
            drawn = replace(drawn, embedding_residual=False, unet_skips=False)
        attends = all(block.attends for block in drawn.blocks) or not attention
        if attends and not (additive and drawn.norm_placement == "post"):
            return replace(drawn, zero_init=False)


def build_shaken(architecture: Architecture, seed: int = 0) -> Transformer:
    """A network with every parameter away from its start value: gains off 1, biases and convolutions off 0."""
    model = build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def shaken() -> Callable[..., Transformer]:
    return lambda seed, **limits: build_shaken(draw_architecture(seed, **limits), seed)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(VOCAB, (3, CONTEXT - 1), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def suite() -> TaskSuite:
    return TaskSuite(TasksConfig())


@pytest.fixture(scope="session")
def plan() -> Plan:
    return Plan(train=1, test=2, control=3, sequences=48, rows=200)


@pytest.fixture
def model() -> Transformer:
    return build(seed_genome().architecture, vocab_size=VOCAB, context=CONTEXT, seed=0)
