"""Small models and suites that the tests of `interp` share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from threadpoolctl import threadpool_limits

from interp.bench import Plan
from selfimprove.genome.genome import Architecture, Block, seed_genome
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.suite import TasksConfig, TaskSuite

VOCAB, CONTEXT = TasksConfig().vocab_size, TasksConfig().context


def draw_architecture(seed: int, *, attention: bool = False, uniform: bool = False) -> Architecture:
    """A random architecture over every choice that blocks have; blocks differ unless ``uniform``."""
    rng = random.Random(seed)
    mixers = ["attention", "conv_attention"] + ([] if attention else ["short_conv"])

    def block() -> Block:
        return Block(
            mixer=rng.choice(mixers),
            heads=rng.choice([1, 2, 4]),
            qk_norm=rng.random() < 0.5,
            channel=rng.choice(["relu", "gelu", "silu", "relu2", "swiglu"]),
            mlp_ratio=rng.choice([1.0, 2.0, 3.0]),
        )

    depth = rng.randint(1, 3)
    first = block()
    return Architecture(
        width=rng.choice([32, 64]),
        blocks=(first,) * depth if uniform else (first, *(block() for _ in range(depth - 1))),
        norm=rng.choice(["layernorm", "rmsnorm"]),
        positions=rng.choice(["rope", "learned", "none"]),
        tie_embeddings=rng.random() < 0.5,
        zero_init=False,
    )


def build_shaken(architecture: Architecture, seed: int = 0) -> Transformer:
    """A network with every parameter away from its start value: gains off 1, biases and convolutions off 0."""
    model = build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the worker: products this small collapse when two threads share a busy core."""
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        yield


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
