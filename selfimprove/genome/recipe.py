"""How a model is trained inside its fixed FLOP allowance: optimizer, schedules, and what the allowance is spent on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SINGLE_BETA_OPTIMIZERS = ("sgd",)
"""Optimizers that read ``beta1`` (their momentum) and not ``beta2``."""
COOLING_SCHEDULES = ("wsd",)
"""Schedules that read ``cooldown``."""
EVEN = "even"
"""The mixture of equal shares."""
PROTECTED = 1.0
"""The factor of a constraint that nobody has touched."""
OMITTED = {"omitted": True}
"""Metadata of a field that JSON leaves out at its default: what was written before the field existed stays the same."""
SMALLEST_BATCH = 8
"""Below it a step's fixed costs, which no FLOP counts, outweigh its work: equal FLOPs, twice the time."""


@dataclass(frozen=True)
class Recipe:
    """One recipe. The defaults are the seed genome's."""

    optimizer: str = "adamw"
    """``adamw``, ``lion``, ``muon`` or ``sgd`` (with momentum)."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: str = "cosine"
    """``constant``, ``cosine``, ``linear`` or ``wsd`` (warm-up, stable, decay)."""
    warmup: float = 0.05
    """Fraction of the steps over which the learning rate rises from zero."""
    cooldown: float = 0.3
    """Fraction of the steps after warm-up over which ``wsd`` falls to zero; without effect for other schedules."""
    weight_decay: float = 0.01
    """Decoupled weight decay, per step and times the learning rate."""
    beta1: float = 0.9
    """First moment's decay; the momentum of SGD and Muon."""
    beta2: float = 0.95
    """Second moment's decay; without effect for SGD."""
    clip: float = 1.0
    """Largest global gradient norm; 0 switches clipping off."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which then is what is scored and kept; 0: the weights themselves."""
    init_scale: float = 1.0
    """Gain of the initial matrices over the usual one."""
    batch: int = 16
    """Sequences per step, once the batch has grown to its size."""
    batch_start: float = 1.0
    """Part of the batch in the first steps, from where it doubles; no part is smaller than ``SMALLEST_BATCH``."""
    context: float = 1.0
    """Part of each sequence that is trained on, from its first token; what is scored is always whole."""
    context_start: float = 1.0
    """Part of that part in the first steps, from where it doubles."""
    mixture: str = EVEN
    """Task family that is trained on more often than each other one; ``even``: none is. Without effect where the tasks
    have no such family."""
    mixture_weight: int = 2
    """Sequences of that family for one of each other, in turns through all; without effect where the mixture is even.
    Steps of a batch that has not grown see the first sequences of their batch: where a turn is longer and goes evenly
    into the full batch (nine families and a weight of 8, at 8 sequences of 64), its last families have to wait."""
    constraint_factor: float = field(default=PROTECTED, metadata=OMITTED)
    """What the weight of the constraint's loss term is multiplied by. Only a space that says so (its
    ``constraint_editable``) has genomes in which it is not 1; 0: the constraint is not trained at all."""

    @property
    def first_batch(self) -> float:
        """``batch_start`` as it takes effect: no batch grows from less than ``SMALLEST_BATCH``, or from itself."""
        return min(1.0, max(self.batch_start, SMALLEST_BATCH / self.batch))

    def effective(self) -> dict[str, Any]:
        """JSON-ready dict without what has no effect."""
        written = vars(self) | {"batch_start": self.first_batch}
        if self.optimizer in SINGLE_BETA_OPTIMIZERS:
            del written["beta2"]
        if self.schedule not in COOLING_SCHEDULES:
            del written["cooldown"]
        if self.mixture == EVEN:
            del written["mixture"], written["mixture_weight"]
        if self.constraint_factor == PROTECTED:
            del written["constraint_factor"]
        return written
