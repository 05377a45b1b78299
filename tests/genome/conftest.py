"""Shared by the genome's tests: the default space, and genomes some random edits away from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from selfimprove.genome.edits import apply
from selfimprove.genome.genome import Genome, seed_genome
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
    """``walk(number, steps=8)``: the genome at the end of one random walk, even over kinds of edits."""

    def go(number: int, steps: int = 8) -> Genome:
        rng = random.Random(number)
        genome = seed_genome()
        for _ in range(rng.randint(0, steps)):
            edits = space.edits(genome)
            kind = rng.choice(sorted({edit.kind for edit in edits}))
            genome = apply(rng.choice([edit for edit in edits if edit.kind == kind]), genome, space)
        return genome

    return go
