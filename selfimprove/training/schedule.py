"""Learning-rate schedules, as a pure function of the step."""

from __future__ import annotations

import math

from selfimprove.errors import ConfigError
from selfimprove.genome.recipe import Recipe


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate over its peak, in (0, 1], before step ``step`` of ``steps``."""
    warmup = recipe.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1.0, steps - warmup)
    match recipe.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return 1 - done
        case "wsd":
            return min(1.0, (1 - done) / recipe.cooldown)
        case unknown:
            raise ConfigError("recipe.schedule", unknown, "constant, cosine, linear, wsd")
