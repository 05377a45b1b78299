"""A planted objective on the real space of edits, in closed form: what a search can be measured on without training.

Everything is measured from the seed genome, whose skill is 0. Every value that a genome has and the seed genome has
not is a feature, worth something on its own: most values are worth nothing or do harm, one in ten helps. Numbers have
one peak somewhere on their grid. A block's values count from those of a seed genome's block, so that a copy of it
changes nothing but the depth; the loss counts by how often it holds each operation and each constant. A part of the
pairs of features is worth more, or less, together than apart (epistasis). All is drawn once, from the landscape's seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from selfimprove.genome.fields import format_value, pattern
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.operations import CONST
from selfimprove.genome.paths import value_at
from selfimprove.genome.space import Space
from selfimprove.seeds import derive

GOOD, BAD = 0.1, 0.45  # chances that a value of its own helps, or does harm
SIZE = 0.04  # mean of what it then is worth, in skill
STEP = 0.015  # mean of what a step towards the peak of a number is worth
DOOM = 0.03  # chance of a value to be denied, and of one to fail
DEPTH = "depth"

Fate = Literal["", "denied", "failed"]


@dataclass(frozen=True)
class Landscape:
    """One planted objective.

    Args:
        space: whose genomes it is of.
        seed: of all that is drawn.
        epistasis: share of the pairs of features that interact.
    """

    space: Space
    seed: int
    epistasis: float = 0.1
    _known: dict[tuple[str, ...], float] = field(default_factory=dict, repr=False, compare=False)

    def skill(self, genome: Genome) -> float:
        """The true skill, from the seed genome's."""
        found = sorted(features(genome, self.space))
        alone = sum(self._once((name,), self._worth) for name in found)
        return alone + sum(self._once(pair, self._interaction) for pair in combinations(found, 2))

    def fate(self, genome: Genome) -> Fate:
        """What becomes of a genome before it has a skill; empty: nothing."""
        for name in sorted(features(genome, self.space)):
            lot = self._rng("fate", name).random()
            if lot < 2 * DOOM:
                return "denied" if lot < DOOM else "failed"
        return ""

    def _once(self, names: tuple[str, ...], draw: Callable[..., float]) -> float:
        if names not in self._known:
            self._known[names] = draw(*names)
        return self._known[names]

    def _worth(self, name: str) -> float:
        path, _, value = name.partition("=")
        grid = self._grid(path)
        if value in grid:
            rng, origin = self._rng("peak", path), grid.index(_origin(path))
            peak, step = rng.randrange(len(grid)), rng.expovariate(1 / STEP)
            return step * (abs(origin - peak) - abs(grid.index(value) - peak))
        rng = self._rng("worth", name)
        lot, size = rng.random(), rng.expovariate(1 / SIZE)
        return size if lot < GOOD else -size if lot < GOOD + BAD else 0.0

    def _interaction(self, one: str, other: str) -> float:
        rng = self._rng("pair", one, other)
        return rng.gauss(0.0, SIZE) if rng.random() < self.epistasis else 0.0

    def _grid(self, path: str) -> list[str]:
        """The values of a number, in order; nothing for what has no order."""
        if path == DEPTH:
            return [str(count) for count in range(self.space.config.min_blocks, self.space.config.max_blocks + 1)]
        known = self.space.fields.get(pattern(path))
        ordered = known is not None and known.kind in ("integer", "number") and path.split(".")[0] != "objective"
        return [format_value(choice) for choice in known.choices] if known is not None and ordered else []

    def _rng(self, *about: str) -> random.Random:
        return random.Random(derive(self.seed, *about))


def features(genome: Genome, space: Space) -> set[str]:
    """What a genome has and the seed genome has not, as ``path=value``."""
    found = {
        f"{path}={format_value(value)}"
        for path in space.value_paths(genome)
        if (value := value_at(genome, path)) != value_at(seed_genome(), _home(path))
    }
    if (depth := len(genome.architecture.blocks)) != len(seed_genome().architecture.blocks):
        found.add(f"{DEPTH}={depth}")
    return found | {f"objective.{part}={n}" for part, n in _parts(genome).items() if n != _parts(seed_genome())[part]}


def _home(path: str) -> str:
    """Where the seed genome has the value that a path of any block is compared with."""
    return pattern(path).replace("*", "0")


def _origin(path: str) -> str:
    seed = seed_genome()
    return str(len(seed.architecture.blocks)) if path == DEPTH else format_value(value_at(seed, _home(path)))


def _parts(genome: Genome) -> Counter[str]:
    """How often the loss holds each operation, and each constant."""
    nodes = (node for _, node in genome.objective.expression.nodes())
    return Counter(format_value(node.value) if node.op == CONST else f"{node.op} {node.value}" for node in nodes)
