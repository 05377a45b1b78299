"""Successive halving: after each stage of training only the better part of a generation's candidates goes on.

A rung is judged once, when every candidate has been read on it, so that the verdict depends on no order (synchronous
halving: Jamieson and Talwalkar 2016, arXiv 1502.07943; here the part kept may differ from rung to rung). What is
cut may have been the best in the end: a random part of it goes on all the same, as an audit, and what halving would
have missed is reported as its regret.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from selfimprove.seeds import derive

Reported = Mapping[int, Mapping[int, float]]  # candidate -> rung -> skill


class HalvingPruner(BasePruner):
    """Prunes all but the best part of the trials that have reported at a step.

    To be asked once all of them have. Of equals the earlier trial is better; a skill that is not a number is the worst.

    Args:
        keep: the part that goes on, rounded up; above 0, at most 1.
    """

    def __init__(self, keep: float) -> None:
        if not 0 < keep <= 1:
            raise ValueError(f"keep: got {keep}; allowed: above 0, at most 1")
        self.keep = keep

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None:
            return False
        rivals = [other for other in study.get_trials(deepcopy=False) if step in other.intermediate_values]
        ranked = sorted(rivals, key=lambda other: (-_comparable(other.intermediate_values[step]), other.number))
        kept = math.ceil(round(self.keep * len(ranked), 9))  # 0.1 of 30 is 3, not 3.0000000000000004
        return trial.number not in {other.number for other in ranked[:kept]}


def pruned(pruner: BasePruner, reported: Reported) -> set[int]:
    """Those candidates of ``reported`` that an Optuna pruner stops at their last rung; greater skill is better."""
    with _quiet():  # it announces every study
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


def judge(reported: Reported, *, keep: float, audit: float, exempt: Sequence[int], seed: int) -> Rung:
    """Which candidates go on from a rung.

    Args:
        reported: skills of every candidate that was read on the rung, on it and on the rungs before.
        keep: the part that goes on, rounded up; 1 switches halving off.
        audit: chance of each of the others to go on all the same.
        exempt: audited on an earlier rung; they neither compete nor stop.
        seed: of the lot.
    """
    rivals = {index: skills for index, skills in reported.items() if index not in exempt}
    losers = pruned(HalvingPruner(keep), rivals)
    audited = {index for index in losers if random.Random(derive(seed, "audit", index)).random() < audit}
    return Rung(
        kept=tuple(sorted(rivals.keys() - losers)),
        audited=tuple(sorted(audited | {index for index in exempt if index in reported})),
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _nats(score: Mapping[str, Any]) -> float:
    families = [family["cross_entropy"] for family in score["tasks"].values()]
    return float(sum(families) / len(families))


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
