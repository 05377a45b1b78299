"""What a task family is: a ladder of settings, each of which generates sequences and knows what follows from its knobs.

A family is one small file under ``selfimprove.tasks.families``: a setting class, whose fields are the knobs of its
difficulty, and a ``FAMILY`` with the citation and the fixed ladder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal

import numpy as np

from selfimprove.errors import ConfigError
from selfimprove.tasks.batch import Batch
from selfimprove.tasks.score import Scale


@dataclass(frozen=True)
class Stream:
    """Where a setting draws from.

    Attributes:
        rng: of the instances. A fresh one a batch: the seed is derived from split, family, level and the given seed.
        split: for a family whose splits are different material, and not only different streams.
        table: of what is fixed for a whole run, in every split alike.
    """

    rng: np.random.Generator
    split: str
    table: int


class Setting(ABC):
    """One step of a ladder. A subclass is a frozen dataclass whose fields are whole numbers, harder as they grow."""

    @property
    @abstractmethod
    def answers(self) -> int:
        """Possible answers: a uniform guess over all has skill 0, one over the few that a sequence shows has more."""

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Content tokens in use, from ``CONTENT`` on."""

    @property
    @abstractmethod
    def min_context(self) -> int:
        """Fewest tokens of a sequence."""

    @abstractmethod
    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        """``count`` sequences of ``context`` tokens, a pure function of the stream's state."""

    def floor(self, context: int) -> float:
        """Irreducible cross-entropy: what the best predictor has left on average over the asked positions, in nats.

        0 where the visible tokens determine each answer, as they do unless a family says otherwise.
        """
        return 0.0

    def scale(self, context: int) -> Scale:
        """What cross-entropies of this setting are measured against."""
        return Scale(self.answers, self.floor(context))


Where = Literal["asked", "some asked"]


@dataclass(frozen=True)
class Latent:
    """A variable of the task that probes can read.

    Attributes:
        name: key of ``Batch.latents``; begins with the family's name.
        where: position class. ``asked``: just where an answer is asked for; ``some asked``: at part of that.
        meaning: in words.
    """

    name: str
    where: Where
    meaning: str


@dataclass(frozen=True)
class Family:
    """One family of tasks.

    Attributes:
        name: as in the configuration and in ``TAGS``.
        citation: where the task comes from, and what is different here.
        ladder: settings from the first difficulty on; fixed. From one to the next no knob falls and at least one rises.
        latents: what probes can read.
        planted: whether its batches say where each answer is to be read from.

    Raises:
        ConfigError: a ladder that does not rise.
    """

    name: str
    citation: str
    ladder: tuple[Setting, ...]
    latents: tuple[Latent, ...]
    planted: bool = True

    def __post_init__(self) -> None:
        for low, high in pairwise(self.ladder):
            pairs = list(zip(knobs(low).values(), knobs(high).values(), strict=True))
            if any(b < a for a, b in pairs) or all(a == b for a, b in pairs):
                limit = "settings of which no knob falls and at least one rises"
                raise ConfigError(f"climb the ladder of {self.name}", f"{low}, then {high}", limit, "order them")

    def setting(self, level: int) -> Setting:
        """The setting of one level.

        Raises:
            ConfigError: the ladder has no such level.
        """
        if not 0 <= level < len(self.ladder):
            raise ConfigError(
                f"tasks.levels.{self.name}", level, f"0 to {len(self.ladder) - 1}", "choose a lower level"
            )
        return self.ladder[level]


def knobs(setting: Setting) -> dict[str, int]:
    """The knobs of a setting by name."""
    return {field.name: getattr(setting, field.name) for field in fields(setting)}  # type: ignore[arg-type]
