"""Stages: a training is granted in slices of its quote, so that it can be read, and stopped, before it converges."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from selfimprove.archive.records import FINAL
from selfimprove.nets.cost import Quote

STAGES: dict[str, Fraction] = {name: Fraction(name) for name in ("1/9", "5/18", "1/3", "4/9", FINAL)}
"""Name of each stage and the part of the steps that is done at its end, in their order."""
RUNGS = tuple(STAGES)[1:-1]
"""Stages after which a generation is halved: not the first, as one reading foresees nothing, and not the last."""
JUDGED = ("1/3", "4/9")  # by then a model that can keep the constraint has learnt it; at 1/9 even the seed has not


@dataclass(frozen=True)
class Slice:
    """One stage of one training, in the form that the policy prices. All numbers are integers.

    Attributes:
        stage: its name.
        first: step to begin at.
        last: step to stop before.
        flops: of these steps.
        tokens: seen in these steps.
        parameters: of the model.
        memory_bytes: at the peak.
    """

    stage: str
    first: int
    last: int
    flops: int
    tokens: int
    parameters: int
    memory_bytes: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the slice."""
        return self.last - self.first

    @property
    def final(self) -> bool:
        """Whether the training ends here."""
        return self.stage == FINAL


def slices(quote: Quote) -> dict[str, Slice]:
    """The stages of a training by name, in order; their steps and FLOPs add up to the quote's.

    A stage that would have no steps, or all that are left, is left out.
    """
    found, first = {}, 0
    for stage, part in STAGES.items():
        last = -int(-(part * quote.steps) // 1)  # rounded up
        if stage != FINAL and not first < last < quote.steps:
            continue
        found[stage] = Slice(
            stage,
            first,
            last,
            flops=quote.flops_between(first, last),
            tokens=quote.tokens_between(first, last),
            parameters=quote.parameters,
            memory_bytes=quote.memory_bytes,
        )
        first = last
    return found
