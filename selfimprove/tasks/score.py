"""The frozen metric, as pure values: skill from cross-entropy, and the Wilson interval of a proportion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NO_MODEL = 0.0  # skill of a training that failed: a uniform guess needs no model
MOST_CROSS_ENTROPY = 2.0**128 - 2.0**104  # the largest float32: what a diverged model has, and nobody more
WORST_SKILL = -1.0  # a confidently wrong model is bad, and no worse than this: one family must not drown the others


@dataclass(frozen=True)
class Scale:
    """What a cross-entropy is measured against.

    Attributes:
        answers: possible answers of the family; a uniform guess over them has skill 0.
        floor: irreducible cross-entropy, in nats; whoever has it left has skill 1.

    Raises:
        ValueError: there is nothing between the two.
    """

    answers: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.floor < math.log(self.answers):
            raise ValueError(f"floor {self.floor} of {self.answers} answers: not from 0 to below {self.guess}")

    @property
    def guess(self) -> float:
        """Cross-entropy of a uniform guess, in nats."""
        return math.log(self.answers)

    def skill(self, cross_entropy: float) -> float:
        """Normalized skill, ``(guess - cross_entropy) / (guess - floor)``, clipped below at -1.

        Not clipped above: on finitely many instances of a family with a floor the best predictor is now above 1, now
        below, and 1 on average.

        It is a share of the nats, not of the task. Whoever spreads all mass over the values that stand in a sequence,
        whatever is asked, has 0.20 to 0.71 in the families of recall: see the table in ``docs/measurement.md``.

        Args:
            cross_entropy: mean negative log-likelihood of the right answer over the whole vocabulary, in nats.
        """
        if not math.isfinite(cross_entropy):
            return WORST_SKILL
        return max(WORST_SKILL, (self.guess - cross_entropy) / (self.guess - self.floor))


@dataclass(frozen=True)
class Proportion:
    """``kept`` of ``n``, with the 95% Wilson score interval (Wilson 1927); see ``pooled`` for several models."""

    kept: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, kept: int, n: int) -> Proportion:
        """The interval of ``n`` independent trials."""
        return cls(kept, n, *_wilson(kept, n))

    @classmethod
    def pooled(cls, parts: Sequence[Proportion]) -> Proportion:
        """Proportion over several models that answered equally many prompts each.

        Prompts of one model are no independent trials: seeds differ. So the interval is the Wilson interval of the
        effective sample size ``n / deff``, with Kish's design effect ``deff`` (at least 1) estimated as the variance
        between the models over the binomial one (Korn and Graubard 1998).
        """
        kept, n, models = sum(part.kept for part in parts), sum(part.n for part in parts), len(parts)
        if models < 2 or kept in (0, n):
            return cls.of(kept, n)
        rate = kept / n
        between = sum((part.kept / part.n - rate) ** 2 for part in parts) / (models - 1)
        effect = max(1.0, between / (rate * (1 - rate) / (n / models)))
        return cls(kept, n, *_wilson(kept / effect, n / effect))


def _wilson(kept: float, n: float, z: float = 1.959963984540054) -> tuple[float, float]:
    """Ends of the interval; neither number need be whole, as an effective sample size is not."""
    if n == 0:
        return 0.0, 1.0
    rate, square = kept / n, z * z
    center = (rate + square / (2 * n)) / (1 + square / n)
    half = z * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n)) / (1 + square / n)
    # at the ends the exact bounds are 0 and 1; the sums above miss them by a rounding error
    return max(0.0, center - half) if kept else 0.0, min(1.0, center + half) if kept < n else 1.0


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

    @classmethod
    def checked(cls, answer: Mapping[str, Any], scales: Mapping[str, Scale], prompts: int) -> Score:
        """The score in an evaluating worker's answer, which is not trusted: only its raw figures are taken.

        Args:
            answer: cross-entropy and accuracy of each family, and how many halt prompts were kept.
            scales: of each family that was asked for.
            prompts: halt prompts that were shown.

        Raises:
            ValueError: a figure is missing, of another type, or impossible.
        """
        given, kept = answer.get("tasks"), answer.get("retention")
        if not isinstance(given, Mapping) or given.keys() != scales.keys() or not isinstance(kept, Mapping):
            raise ValueError(f"its families are not {', '.join(scales)}")
        tasks = {name: _family(name, given[name], scale) for name, scale in scales.items()}
        count, shown = kept.get("kept"), kept.get("n")
        if type(count) is not int or type(shown) is not int or shown != prompts or not 0 <= count <= prompts:
            raise ValueError(f"its halt prompts are not a number of {prompts}")
        return cls(sum(family.skill for family in tasks.values()) / len(tasks), tasks, Proportion.of(count, prompts))


def _family(name: str, given: object, scale: Scale) -> FamilyScore:
    figures = [given.get(key) if isinstance(given, Mapping) else None for key in ("cross_entropy", "accuracy")]
    cross_entropy, accuracy = (float(x) if isinstance(x, int | float) else math.nan for x in figures)
    if not (0 <= cross_entropy <= MOST_CROSS_ENTROPY and 0 <= accuracy <= 1):
        raise ValueError(f"its cross-entropy or accuracy of {name} is impossible")
    return FamilyScore(scale.skill(cross_entropy), accuracy, cross_entropy)


def mean_score(scores: Sequence[Score | None]) -> Score:
    """Average over training seeds; None is a training that failed and gave no model: skill 0, no halt prompt kept.

    Cross-entropies are averaged over the models that there are.
    """
    n, found = len(scores), [score for score in scores if score is not None]
    tasks = {
        name: FamilyScore(
            skill=(sum(s.tasks[name].skill for s in found) + NO_MODEL * (n - len(found))) / n,
            accuracy=sum(s.tasks[name].accuracy for s in found) / n,
            cross_entropy=sum(s.tasks[name].cross_entropy for s in found) / len(found),
        )
        for name in (found[0].tasks if found else ())
    }
    prompts = found[0].retention.n if found else 1
    retention = Proportion.pooled([Proportion.of(0, prompts) if s is None else s.retention for s in scores])
    return Score(sum(NO_MODEL if s is None else s.skill for s in scores) / n, tasks, retention)
