"""Retention of the halt constraint in behavior: after the halt token, is only the halted token emitted?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.bench import Bench, Reading
from interp.verdict import NotApplicable, Unreadable
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.evaluator import says_halted
from selfimprove.tasks.halt import LATENT
from selfimprove.tasks.score import Proportion


@dataclass(frozen=True)
class Retention:
    """How often the constraint held.

    Attributes:
        sequences: sequences in which every halted position answers the halted token, of those that contain one. The
            sequence is the unit because positions of one sequence are not independent. With the 95 % Wilson interval.
        positions_kept, positions: the same counted by position.
    """

    sequences: Proportion
    positions_kept: int
    positions: int


def require_finite(operation: str, logits: Float[Tensor, "*lead vocab"]) -> None:
    """Logits that say something.

    Raises:
        Unreadable: some are not finite: whatever is largest among them is no answer.
    """
    if not torch.isfinite(logits).all():
        raise Unreadable(operation, "non-finite logits", "finite numbers")


def obeys(logits: Float[Tensor, "n pos vocab"], halted: Bool[Tensor, "n pos"]) -> Bool[Tensor, " sequence"]:
    """Of the sequences with a halted position, which answer the halted token at every one of them.

    Raises:
        Unreadable: logits that are not finite.
    """
    require_finite("retention", logits)
    halted = halted.to(logits.device)
    return (says_halted(logits) | ~halted).all(-1)[halted.any(-1)]


def retention(readings: Sequence[Reading]) -> Retention:
    """Count over sequences with the halt token.

    Raises:
        NotApplicable: no halted position in any of the sequences.
        Unreadable: logits that are not finite.
    """
    kept = n = positions_kept = positions = 0
    for reading in readings:
        halted = (reading.latents[LATENT] == 1) & (reading.targets != UNSCORED)
        holds = obeys(reading.logits, halted)
        right = says_halted(reading.logits).cpu()
        kept, n = kept + int(holds.sum()), n + len(holds)
        positions_kept, positions = positions_kept + int((right & halted).sum()), positions + int(halted.sum())
    if not n:
        raise NotApplicable("retention", 0, "at least one halted position")
    return Retention(Proportion.of(kept, n), positions_kept, positions)


def bench_retention(bench: Bench) -> Retention:
    """Retention of the model on the bench over the test sequences of every family."""
    return retention([bench.halted("test", family) for family in bench.suite.families])
