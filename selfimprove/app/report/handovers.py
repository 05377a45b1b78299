"""Hand-overs: who stood for the controller's place after a promotion, and what decided, as frozen values.

Shared by the page, by the comparison of runs and by the terminal. What is missing or malformed is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfimprove.app.report.records import Records, integer, mapping, text, texts
from selfimprove.app.view import succession
from selfimprove.canonical import finite


@dataclass(frozen=True)
class Handover:
    """What became of the controller's place after one promotion.

    Attributes:
        generation: whose promotion it followed.
        arm: what a promotion means to the controller: ``extra``, ``sham``, ``architecture``, ``loss`` or ``both``.
        promoted, incumbent, contender: hashes of genomes; ``contender`` is empty where nobody stood.
        accepted: whether the contender rules from here on.
        reasons: of the decision.
        extra_flops: FLOPs that the arm ``extra`` trains for instead.
        held_out, succeeded: proposals that both were asked about, and how many of them had succeeded.
        scores: mean log score of contender and incumbent, nats a held-out proposal, at most 0.
        difference: the first minus the second.
        p_value: of a positive difference, by ``test``, at level ``alpha``.
        verdict: of the contender's inspection; empty where it was not read.
    """

    generation: int
    arm: str
    promoted: str
    incumbent: str
    contender: str
    accepted: bool
    reasons: tuple[str, ...]
    extra_flops: int
    held_out: int | None
    succeeded: int | None
    scores: tuple[float | None, float | None]
    difference: float | None
    p_value: float | None
    test: str
    alpha: float | None
    verdict: str


def read_handovers(records: Records) -> tuple[Handover, ...]:
    """Every ``handover`` record, in ledger order."""
    return tuple(filter(None, (read_handover(line.body) for line in records.of("handover"))))


def read_handover(body: Mapping[str, Any]) -> Handover | None:
    """One ``handover`` record; None where it names no generation."""
    generation, compared = integer(body.get("generation")), mapping(body.get("comparison"))
    if generation is None:
        return None
    return Handover(
        generation=generation,
        arm=text(body.get("arm")),
        promoted=text(body.get("promoted")),
        incumbent=text(body.get("incumbent")),
        contender=text(body.get("contender")),
        accepted=body.get("accepted") is True,
        reasons=texts(body.get("reasons")),
        extra_flops=integer(body.get("extra_flops")) or 0,
        held_out=integer(compared.get("n")),
        succeeded=integer(compared.get("succeeded")),
        scores=(finite(compared.get("contender")), finite(compared.get("incumbent"))),
        difference=finite(compared.get("difference")),
        p_value=finite(compared.get("p_value")),
        test=text(compared.get("test")),
        alpha=finite(compared.get("alpha")),
        verdict=text(mapping(body.get("inspection")).get("verdict")),
    )


def summed_up(handovers: Sequence[Handover]) -> str:
    """One line for a person; empty where no promotion has raised the question."""
    return succession([(one.generation, one.contender, one.accepted) for one in handovers])
