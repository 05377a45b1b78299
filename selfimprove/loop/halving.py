"""Successive halving: after each stage of training only the better part of a generation's candidates goes on.

A rung is judged once, when every candidate has been read on it, so that the verdict depends on no order (synchronous
halving: Jamieson and Talwalkar 2016, arXiv 1502.07943). What leads in the end often learns late and then fast. So
candidates are compared by the skill that their last two readings let one foresee, not by what they have reached (as
rising bandits are: Li et al. 2020, arXiv 2012.04371); and beside the most that may go on there is a margin behind the
leader, so that a generation in which one is far ahead costs little, and one in which nobody is yet, more (racing: Maron
and Moore 1994, NeurIPS 6). What is cut may have been the best in the end: a random part of it goes on all the same, as
an audit, and what halving would have missed is reported as its regret.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from selfimprove.controller.quiet import quiet
from selfimprove.loop.config import HalvingConfig
from selfimprove.loop.stages import RUNGS
from selfimprove.seeds import derive

Readings = Mapping[Fraction, float]  # part of the training that is done -> skill
Reported = Mapping[int, Readings]  # by candidate


class HalvingPruner(BasePruner):
    """Prunes all but the best of the trials that have reported at a step.

    To be asked once all of them have. Of equals the earlier trial is better; a value that is not a number is the worst.

    Args:
        most: trials that go on, at least 1.
        margin: how far behind the best of them one may be; 0 or more.
    """

    def __init__(self, most: int, margin: float = math.inf) -> None:
        if most < 1:
            raise ValueError(f"most: got {most}; allowed: 1 or more")
        if not margin >= 0:
            raise ValueError(f"margin: got {margin}; allowed: 0 or more")
        self.most, self.margin = most, margin

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None:
            return False
        rivals = [other for other in study.get_trials(deepcopy=False) if step in other.intermediate_values]
        worth = {other.number: _comparable(other.intermediate_values[step]) for other in rivals}
        ranked = sorted(worth, key=lambda number: (-worth[number], number))
        kept = ranked[: self.most]
        return trial.number not in kept or worth[trial.number] < worth[ranked[0]] - self.margin


def pruner_of(halving: HalvingConfig, stage: str, candidates: int) -> HalvingPruner:
    """The pruner of the rung after a stage, in generations of so many candidates."""
    part = halving.keep[RUNGS.index(stage)]
    return HalvingPruner(math.ceil(round(part * candidates, 9)), halving.margin)  # 0.1 of 30 is 3, not 3.0000000000004


def foreseen(readings: Readings, ahead: float) -> float:
    """Skill on the straight line through the last two readings, ``ahead`` of the training later; at most 1.

    >>> foreseen({Fraction(1, 4): 0.25, Fraction(1, 2): 0.5}, 0.25)
    0.75
    >>> foreseen({Fraction(1, 4): 0.25}, 0.25)  # one reading has no slope
    0.25
    """
    done = sorted(readings)
    if len(done) < 2:
        return readings[done[-1]]
    before, now = done[-2:]
    slope = (readings[now] - readings[before]) / float(now - before)
    skill = readings[now] + slope * ahead
    return 1.0 if skill > 1 else skill  # what is not a number stays so


def pruned(pruner: BasePruner, reported: Mapping[int, Mapping[int, float]]) -> set[int]:
    """Those candidates that an Optuna pruner stops at the last of their steps; greater values are better."""
    with quiet():  # it announces every study
        study = optuna.create_study(direction="maximize", pruner=pruner)
    candidates = sorted(reported)
    for candidate in candidates:
        study.add_trial(create_trial(state=TrialState.RUNNING, intermediate_values=dict(reported[candidate])))
    trials = study.get_trials(deepcopy=False)
    return {candidate for candidate, trial in zip(candidates, trials, strict=True) if pruner.prune(study, trial)}


@dataclass(frozen=True)
class Rung:
    """The verdict on one rung: candidates by index.

    Attributes:
        kept: go on because they are among the best.
        audited: go on by lot, to the end.
        cut: stop here.
    """

    kept: tuple[int, ...]
    audited: tuple[int, ...]
    cut: tuple[int, ...]


def judge(worth: Mapping[int, float], pruner: BasePruner, *, audit: float, exempt: Sequence[int], seed: int) -> Rung:
    """Which candidates go on from a rung.

    Args:
        worth: of every candidate that was read on the rung; the greater the better.
        pruner: says who does not.
        audit: chance of each of these to go on all the same.
        exempt: audited on an earlier rung; they neither compete nor stop.
        seed: of the lot.
    """
    rivals = {index: {0: value} for index, value in worth.items() if index not in exempt}
    losers = pruned(pruner, rivals)
    audited = {index for index in losers if random.Random(derive(seed, "audit", index)).random() < audit}
    return Rung(
        kept=tuple(sorted(rivals.keys() - losers)),
        audited=tuple(sorted(audited | {index for index in exempt if index in worth})),
        cut=tuple(sorted(losers - audited)),
    )


def regret(scores: Mapping[int, Mapping[str, Any]], audited: Sequence[int]) -> dict[str, float] | None:
    """By how much the best of the audited beat the best of the kept at the end; None where none was audited.

    Args:
        scores: final scores by candidate, as they are recorded.
        audited: candidates that halving would have cut.

    Returns:
        ``skill`` and ``nats`` (mean cross-entropy of the families), each 0 where halving missed nothing.
    """
    missed = [scores[index] for index in audited if index in scores]
    kept = [score for index, score in scores.items() if index not in audited]
    if not missed or not kept:
        return None
    skill = max(score["skill"] for score in missed) - max(score["skill"] for score in kept)
    nats = min(map(_nats, kept)) - min(map(_nats, missed))
    return {"skill": max(0.0, skill), "nats": max(0.0, nats)}


def _nats(score: Mapping[str, Any]) -> float:
    families = [family["cross_entropy"] for family in score["tasks"].values()]
    return float(sum(families) / len(families))


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
