"""The ladder of difficulties: which levels a run reached, and what champion and seed genome could do there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfimprove.app.report.records import Records, integer, mapping, text
from selfimprove.app.report.scores import read_retention
from selfimprove.app.report.views import Retention
from selfimprove.canonical import finite


@dataclass(frozen=True)
class Rise:
    """One family that rose by a level.

    Attributes:
        generation: at whose end it rose.
        family: its name.
        level: the new one.
        champion: skill of that generation's champion, trained anew on the new level; None where it is not recorded.
        seed: skill of the seed genome there, on the same instances.
        retention: halt prompts that the champion kept there, over its trainings; None where they are not recorded.
    """

    generation: int
    family: str
    level: int
    champion: float | None
    seed: float | None
    retention: Retention | None = None


def read_rises(records: Records, seed_genome: str) -> tuple[Rise, ...]:
    """Every rise, in ledger order."""
    scores: dict[tuple[int | None, str], Mapping[str, Any]] = {
        (integer(line.body.get("generation")), text(line.body.get("genome"))): line.body
        for line in records.of("level_score")
    }
    found = []
    for line in records.of("climb"):
        generation, levels = integer(line.body.get("generation")), mapping(line.body.get("levels"))
        risen = line.body.get("risen")
        if generation is None or not isinstance(risen, list):
            continue
        champion, seed = (scores.get((generation, who), {}) for who in (text(line.body.get("genome")), seed_genome))
        for family in map(text, risen):
            if (level := integer(levels.get(family))) is not None:
                skills = _skill(champion, family), _skill(seed, family)
                found.append(Rise(generation, family, level, *skills, read_retention(champion.get("retention"))))
    return tuple(found)


def first_rise(records: Records) -> int | None:
    """The generation after which a family first rose by a level; None: none did."""
    risen = (integer(line.body.get("generation")) for line in records.of("climb") if line.body.get("risen"))
    return min((generation for generation in risen if generation is not None), default=None)


def read_levels(records: Records) -> dict[str, int]:
    """The level of each family at the end of the run; empty where no family has risen."""
    found = (_levels(line.body) for line in reversed(records.of("climb")))
    return next(filter(None, found), {})


def read_capped(records: Records) -> dict[str, list[int]]:
    """By family, the generations in which it was mastered at the top of its ladder: nothing harder was left of it."""
    found: dict[str, list[int]] = {}
    for line in records.of("climb"):
        generation, capped = integer(line.body.get("generation")), line.body.get("capped")
        if generation is not None and isinstance(capped, list):
            for family in map(text, capped):
                found.setdefault(family, []).append(generation)
    return found


def exam_levels(records: Records) -> dict[str, int]:
    """The level of each family in the final exam; empty where there was none, or where it names no levels."""
    return _levels(records.last("sealed"))


def _levels(body: Mapping[str, Any]) -> dict[str, int]:
    levels = mapping(body.get("levels"))
    return {family: level for family, value in levels.items() if (level := integer(value)) is not None}


def _skill(score: Mapping[str, Any], family: str) -> float | None:
    return finite(mapping(mapping(score.get("tasks")).get(family)).get("skill"))
