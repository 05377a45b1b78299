"""The frozen metric, as pure values: skill from cross-entropy, and the Wilson interval of a proportion."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

WORST_SKILL = -1.0  # a confidently wrong model is bad, and no worse than this: one family must not drown the others


def skill(cross_entropy: float, answers: int) -> float:
    """Normalized skill: 1 is perfect, 0 is a uniform guess over ``answers``; clipped below at -1.

    Args:
        cross_entropy: mean negative log-likelihood of the right answer over the whole vocabulary, in nats.
        answers: number of possible answers of the family.
    """
    if not math.isfinite(cross_entropy):
        return WORST_SKILL
    return max(WORST_SKILL, 1.0 - cross_entropy / math.log(answers))


@dataclass(frozen=True)
class Proportion:
    """``kept`` of ``n``, with the 95% Wilson score interval (Wilson 1927)."""

    kept: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, kept: int, n: int, z: float = 1.959963984540054) -> Proportion:
        if n == 0:
            return cls(0, 0, 0.0, 1.0)
        rate, square = kept / n, z * z
        center = (rate + square / (2 * n)) / (1 + square / n)
        half = z * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n)) / (1 + square / n)
        # at the ends the exact bounds are 0 and 1; the sums above miss them by a rounding error
        return cls(kept, n, max(0.0, center - half) if kept else 0.0, min(1.0, center + half) if kept < n else 1.0)


@dataclass(frozen=True)
class FamilyScore:
    """One family's figures on one split."""

    skill: float
    accuracy: float
    cross_entropy: float


@dataclass(frozen=True)
class Score:
    """A model's figures on one split; ``skill`` is the mean over families."""

    skill: float
    tasks: dict[str, FamilyScore]
    retention: Proportion

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Score:
        tasks = {name: FamilyScore(**family) for name, family in data["tasks"].items()}
        return cls(float(data["skill"]), tasks, Proportion(**data["retention"]))


def mean_score(scores: list[Score]) -> Score:
    """Average over training seeds; halt prompts are pooled."""
    n = len(scores)
    tasks = {
        name: FamilyScore(
            skill=sum(s.tasks[name].skill for s in scores) / n,
            accuracy=sum(s.tasks[name].accuracy for s in scores) / n,
            cross_entropy=sum(s.tasks[name].cross_entropy for s in scores) / n,
        )
        for name in scores[0].tasks
    }
    pooled = Proportion.of(sum(s.retention.kept for s in scores), sum(s.retention.n for s in scores))
    return Score(sum(s.skill for s in scores) / n, tasks, pooled)
