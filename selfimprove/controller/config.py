"""Configuration of the controllers. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from selfimprove.errors import ConfigError
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import Genome, seed_genome

ARMS: Mapping[str, str] = {
    "none": "the controller keeps its genome and learns",
    "frozen": "the controller never learns",
    "extra": "it keeps its genome and, at each promotion, trains for what a hand-over would have cost",
    "sham": "a random valid genome, as many edits from the seed as the promoted one, may become its own",
    "architecture": "the promoted architecture may become its own; it keeps objective and recipe",
    "loss": "the promoted objective may become its own; it keeps architecture and recipe",
    "both": "the whole promoted genome may become its own: architecture, objective and recipe",
}
"""What a promotion means to the controller, by the name of the arm."""
INHERITING = ("architecture", "loss", "both")
"""Arms in which a promoted genome may become the controller's own."""


@dataclass(frozen=True)
class ControllerConfig:
    """How edits are proposed and what is learned from their outcomes.

    Args:
        name: a key of ``registry.CONTROLLERS``. From ``width`` to ``oversample`` the fields matter to ``transformer``,
            ``frozen`` and ``reinforce`` only, ``epsilon`` to ``forecaster``, too.
        width: of the initial controller genome (the standard seed genome otherwise).
        batch: sequences per training step of the initial controller genome.
        learning_rate: of the initial controller genome.
        steps: training steps per generation.
        temperature: divides the logits when sampling.
        epsilon: share of a uniform choice mixed into each sampling step, in (0, 1].
        oversample: sequences drawn per proposal wanted; the surplus replaces repetitions.
        prior_count: how many successes weigh as much as the random proposals that ``transformer`` rehearses.
        baseline: share of the moving baseline of ``reinforce`` that a generation leaves, in [0, 1).
        population: youngest proposals that ``evolution`` breeds from.
        tournament: how many of them, drawn by lot, compete to be a parent.
        startup: random suggestions before ``tpe_tuned`` begins to model.
        candidates: draws of which ``tpe_tuned`` suggests the most promising.
        gamma: share of the trials that ``tpe_tuned`` takes for good ones, in (0, 1).
        learned: whether ``forecaster`` asks its transformer, or goes by its experts alone.
        initial_random: generations at the start that are proposed at random, by the root seed alone, whatever the
            controller: so runs of one root seed begin alike.
        recursion: what a promoted genome may become to the controller: a key of ``ARMS``.
        modules: modules of one's own that register controllers, ``package.module``; imported into the supervisor.
        handover_cost: most FLOPs that a proposal of a new controller may cost, in those of the first one's.
    """

    name: str = "transformer"
    width: int = 64
    batch: int = 16
    learning_rate: float = 3e-3
    steps: int = 40
    temperature: float = 1.0
    epsilon: float = 0.1
    oversample: int = 3
    prior_count: float = 4.0
    baseline: float = 0.7
    population: int = 64
    tournament: int = 16
    startup: int = 32
    candidates: int = 24
    gamma: float = 0.25
    learned: bool = True
    initial_random: int = 0
    recursion: str = "none"
    handover_cost: float = 4.0
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 100_000),
            ("oversample", 1, 100),
            ("temperature", 1e-3, 1e3),
            ("epsilon", 1e-6, 1.0),
            ("prior_count", 0.0, 1e6),
            ("baseline", 0.0, 0.999),
            ("population", 1, 100_000),
            ("tournament", 1, 10_000),
            ("startup", 1, 100_000),
            ("candidates", 1, 10_000),
            ("gamma", 0.001, 0.999),
            ("initial_random", 0, 100_000),
            ("handover_cost", 0.01, 1000.0),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"controller.{name}", value, f"{low} to {high}")

        if self.recursion not in ARMS:
            raise ConfigError("controller.recursion", self.recursion, ", ".join(ARMS))
        if self.recursion != "none" and self.name != "transformer":
            raise ConfigError("controller.recursion", self.recursion, f"none, as controller={self.name} has no genome")
        for name in ("width", "batch", "learning_rate"):
            field = FIELDS[f"architecture.{name}" if name == "width" else f"recipe.{name}"]
            if field.coerce(getattr(self, name)) is None:
                raise ConfigError(f"controller.{name}", getattr(self, name), field.limit)

    def genome(self) -> Genome:
        """The genome of the first controller: the standard seed genome at this width, batch and learning rate."""
        seed = seed_genome(learning_rate=self.learning_rate, batch=self.batch)
        return replace(seed, architecture=replace(seed.architecture, width=self.width))
