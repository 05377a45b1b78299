"""Random valid genomes: drawn value by value, which reaches every corner, or reached by a walk of edits."""

from __future__ import annotations

import random
from dataclasses import replace

from selfimprove.genome.architecture import Block, goes_together
from selfimprove.genome.edits import apply
from selfimprove.genome.fields import pattern
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.paths import with_value
from selfimprove.genome.space import Space


def draw_genome(space: Space, rng: random.Random) -> Genome:
    """A valid genome, every value of its architecture and recipe drawn evenly from the choices of the space.

    Values that do not go together are drawn again, one after the other. The objective is the seed's: most trees drawn
    at random are no losses.
    """

    def drawn(genome: Genome, path: str) -> Genome:
        return with_value(genome, path, rng.choice(space.fields[pattern(path)].choices))

    genome = seed_genome()
    blocks = (Block(),) * rng.randint(space.config.min_blocks, space.config.max_blocks)
    genome = replace(genome, architecture=replace(genome.architecture, blocks=blocks))
    paths = list(space.value_paths(genome))
    for path in paths:
        genome = drawn(genome, path)
    while not goes_together(genome.architecture):
        genome = drawn(genome, rng.choice(paths))
    return genome


def walk(genome: Genome, space: Space, rng: random.Random, steps: int) -> Genome:
    """The genome ``steps`` random edits on: each evenly by kind and operation, then by path, then by value."""
    for _ in range(steps):
        edits = space.edits(genome)
        for key in (lambda edit: (edit.kind, edit.op), lambda edit: edit.path):
            wanted = rng.choice(sorted({key(edit) for edit in edits}))
            edits = tuple(edit for edit in edits if key(edit) == wanted)
        genome = apply(rng.choice(edits), genome, space)
    return genome
