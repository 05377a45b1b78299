"""One claim: a statement, its control, its evidence, and whether the evidence carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfimprove.app.report.views import Comparison
from selfimprove.loop.statistics import MOST_PAIRS, exact_interval, sign_flip_p_value

ROUNDING = 1e-9  # between a recorded p-value and the one that follows from the recorded pairs


@dataclass(frozen=True)
class Evidence:
    """What a claim rests on.

    Attributes:
        split: what both sides were scored on.
        n: units of replication: trainings on fresh seeds, or root seeds.
        effect: mean paired difference of skill; of the constraint the share of prompts kept.
        interval: of the effect, 95%; None where so few units allow none.
        p_value: one-sided; None where nothing is tested.
        note: what else is to be known of it.
    """

    split: str
    n: int
    effect: float
    interval: tuple[float, float] | None
    p_value: float | None
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """One statement.

    Attributes:
        name: a stable key.
        statement: in words.
        control: what it is held against.
        claimed: whether the evidence carries it.
        reason: why it is not claimed; empty where it is.
        evidence: None where nothing was measured.
    """

    name: str
    statement: str
    control: str
    claimed: bool
    reason: str
    evidence: Evidence | None


def not_claimed(name: str, statement: str, control: str, reason: str) -> Claim:
    """A statement without evidence."""
    return Claim(name, statement, control, False, reason, None)


def paired(pair: Comparison) -> Evidence:
    """Evidence of two genomes on common fresh seeds; p is counted anew from the pairs where they can be enumerated."""
    differences = pair.differences
    few = len(differences) <= MOST_PAIRS
    return Evidence(
        split=pair.split,
        n=len(differences),
        effect=pair.mean,
        interval=exact_interval(differences) if few else None,
        p_value=sign_flip_p_value(differences) if few else pair.p_value,
        note=f"{len(differences)} pairs of trainings, each pair on a fresh seed",
    )


def judged(name: str, statement: str, control: str, pair: Comparison, against: Sequence[str] = ()) -> Claim:
    """A statement about a paired comparison: claimed where its test passed and nothing speaks against it.

    Args:
        name, statement, control: of the claim.
        pair: the comparison.
        against: what else forbids the claim.
    """
    evidence, objections = paired(pair), list(against)
    p = evidence.p_value
    if pair.parent_failed:
        objections.append(f"failed trainings of what it is compared with, which count as skill 0: {pair.parent_failed}")
    if p is None:
        objections.append("p is not recorded")
    elif pair.p_value is None or abs(p - pair.p_value) > ROUNDING:
        objections.append("the recorded p does not follow from the recorded pairs")
    if p is not None and not p < pair.alpha:
        objections.append(f"not better beyond noise: p = {p:.4f}, alpha {pair.alpha:g}")
    return Claim(name, statement, control, not objections, "; ".join(objections), evidence)
