"""Shared by the genome's tests: the default space, and genomes some random edits away from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from selfimprove.genome import sampling
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space

Walk = Callable[..., Genome]


@pytest.fixture(scope="session")
def space() -> Space:
    return Space()


@pytest.fixture(scope="session")
def seed() -> Genome:
    return seed_genome()


@pytest.fixture(scope="session")
def walk(space: Space) -> Walk:
    """``walk(number, steps=8)``: a genome some random edits away from the seed (even numbers) or from a drawn one."""

    def go(number: int, steps: int = 8) -> Genome:
        rng = random.Random(number)
        start = draw_genome(space, rng) if number % 2 else seed_genome()
        return sampling.walk(start, space, rng, rng.randint(0, steps))

    return go
