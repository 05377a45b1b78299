"""The rule of the ladder: when a family's difficulty rises. A pure function, fixed before a run begins.

A family rises by one level when the champion's skill on it is above ``MASTERED`` at the end of a generation, never by
more and never down. Sequences grow with what the levels need. At the top of what its ladder, the vocabulary and the
longest sequence allow a family stays, and is reported as capped; so it is where what was mastered there would be over a
limit on candidates, which `selfimprove.loop.climbing` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MASTERED = 0.9  # skill


@dataclass(frozen=True)
class Climb:
    """What the end of a generation does to the levels.

    Attributes:
        levels: of the next generation, by family.
        risen: families whose level is new.
        capped: families that were mastered at the top: nothing harder is left of them.
    """

    levels: dict[str, int]
    risen: tuple[str, ...]
    capped: tuple[str, ...]


def climb(levels: Mapping[str, int], skills: Mapping[str, float], tops: Mapping[str, int]) -> Climb:
    """The levels after a generation.

    Args:
        levels: of the families now; each must have a top.
        skills: the champion's skill by family, measured at ``levels``. A family that has none, or one that
            is not a number, was not mastered.
        tops: highest level of each family; see ``TasksConfig.top``.

    Raises:
        ValueError: a family without a top, or a skill of a family without a level.
    """
    if unknown := sorted({*levels} - {*tops} | {*skills} - {*levels}):
        raise ValueError(f"levels, skills and tops are of different families: {', '.join(unknown)}")
    mastered = [name for name in levels if skills.get(name, 0.0) > MASTERED]
    risen = tuple(name for name in mastered if levels[name] < tops[name])
    capped = tuple(name for name in mastered if levels[name] >= tops[name])
    return Climb({name: level + (name in risen) for name, level in levels.items()}, risen, capped)
