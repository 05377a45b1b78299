"""Shared by the controller's tests: the default space, its grammar, and varied genomes."""

from __future__ import annotations

import random

import pytest

from selfimprove.controller.grammar import Grammar
from selfimprove.controller.random_search import draw_edits
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space, SpaceConfig


@pytest.fixture(scope="session")
def space() -> Space:
    return Space(SpaceConfig())


@pytest.fixture(scope="session")
def grammar(space: Space) -> Grammar:
    return Grammar(space)


@pytest.fixture(scope="session")
def parent() -> Genome:
    return seed_genome()


@pytest.fixture(scope="session")
def genomes(grammar: Grammar) -> list[Genome]:
    """200 genomes: the seed, a few from all over the space, the others up to three random edits from one before."""
    rng = random.Random(7)
    found = [seed_genome(), *(draw_genome(grammar.space, rng) for _ in range(20))]
    while len(found) < 200:
        found.append(draw_edits(grammar, rng.choice(found), rng)[1])
    return found
