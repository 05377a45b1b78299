"""Recursion: may a promoted genome become the controller's own? Pure: genomes and records in, decisions out.

A contender takes over only if it proposes better than the incumbent. Both are trained from the same beginning on one
half of the archive, at equal FLOPs, and asked about the other half, whose outcomes neither has seen. A controller's
word on a proposal is how much likelier it makes it, asked for a success, than a model without preference would: the
odds that it sees for the proposal, up to a factor which nobody asked it for. That factor is fitted, so that its mean
chance of success is the share that succeeded; what is scored is only how it tells proposals apart. The score is the
log score (Good 1952), a proper one: who believes what it says can gain nothing by saying something else.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfimprove.controller.grammar import GOAL
from selfimprove.controller.lessons import label
from selfimprove.controller.proposer import Experience
from selfimprove.errors import InvalidEdit
from selfimprove.genome.genome import Genome
from selfimprove.genome.sampling import walk
from selfimprove.genome.space import Space
from selfimprove.loop.gate import Decision
from selfimprove.loop.statistics import MOST_PAIRS, sign_flip_p_value
from selfimprove.seeds import derive

TEST = "exact one-sided sign-flip test on paired log scores of held-out proposals"
SHAMS = 16  # random genomes drawn for a sham promotion; the first that is valid and within the limits is it
HALVINGS = 60  # of the interval in which the fitted factor lies: down to what a float can tell
ODDS = 60.0  # nats: odds beyond these are certainty


def inherited(arm: str, own: Genome, promoted: Genome) -> Genome:
    """What the controller would become: its own genome with what the arm takes from the promoted one.

    ``both`` takes the recipe, too: a promoted genome was selected as a whole, and applies to a controller as it stands.

    Raises:
        ValueError: an arm that takes nothing.
    """
    if arm == "architecture":
        return replace(own, architecture=promoted.architecture)
    if arm == "loss":
        return replace(own, objective=promoted.objective)
    if arm == "both":
        return promoted
    raise ValueError(f"arm: got {arm!r}; allowed: architecture, loss, both")


def shams(space: Space, origin: Genome, edits: int, seed: int) -> Iterator[Genome]:
    """Random genomes of the space, each so many edits from ``origin``; fewer where a draw leads nowhere."""
    for number in range(SHAMS):
        try:
            yield walk(origin, space, random.Random(derive(seed, number)), edits)
        except InvalidEdit:  # two random edits may not go together
            continue


def succeeded(experience: Experience) -> bool:
    """Whether a proposal is what a controller is asked for."""
    return label(experience) == GOAL


def halves(history: Sequence[Experience], seed: int) -> tuple[list[Experience], list[Experience]]:
    """A history in two random halves, to learn from and to be judged by; successes are spread evenly over both.

    Of what is odd, the judging half has the larger part. Proposals whose outcome says nothing of their edits are in
    neither.
    """
    rng, judged = random.Random(seed), set[int]()
    known = [one for one in history if one.edits and one.outcome != "duplicate" and not one.is_unjudged]
    for wanted in (True, False):
        places = [place for place, one in enumerate(known) if succeeded(one) == wanted]
        judged |= set(rng.sample(places, -(-len(places) // 2)))
    parts = ([one for place, one in enumerate(known) if (place in judged) == side] for side in (False, True))
    learned, held_out = parts
    return learned, held_out


def undecidable(outcomes: Sequence[bool], alpha: float) -> str:
    """Why held-out outcomes cannot tell two controllers apart, whatever they say; empty where they can."""
    if not 0 < sum(outcomes) < len(outcomes):
        return f"{sum(outcomes)} of {len(outcomes)} held-out proposals succeeded: there is nothing to tell apart"
    if (least := 0.5 ** min(len(outcomes), MOST_PAIRS)) >= alpha:
        return f"{len(outcomes)} held-out proposals are too few: p cannot be below {least:g} >= {alpha:g}"
    return ""


def log_scores(log_odds: Sequence[float], outcomes: Sequence[bool]) -> list[float]:
    """Log score of each outcome in nats, at most 0: the log of the chance that was given to what happened.

    >>> [round(score, 3) for score in log_scores([0.0, 0.0], [True, False])]
    [-0.693, -0.693]

    Args:
        log_odds: log of how much likelier the controller makes each proposal than no preference would.
        outcomes: which succeeded; some, and not all.
    """
    odds, good = np.asarray(log_odds, dtype=np.float64), np.asarray(outcomes, dtype=bool)
    low, high = -ODDS - odds.max(), ODDS - odds.min()
    for _ in range(HALVINGS):
        shift = (low + high) / 2
        expected = (1 / (1 + np.exp(-_clipped(odds + shift)))).sum()
        low, high = (shift, high) if expected < good.sum() else (low, shift)
    signed = np.where(good, 1, -1) * _clipped(odds + shift)
    return [float(score) for score in -np.log1p(np.exp(-signed))]


@dataclass(frozen=True)
class Comparison:
    """How two controllers tell held-out proposals apart.

    Args:
        n: proposals.
        succeeded: how many of them did.
        contender, incumbent: mean log score, nats a proposal.
        difference: the first minus the second.
        p_value: of a positive difference, by ``TEST``.
    """

    n: int
    succeeded: int
    contender: float
    incumbent: float
    difference: float
    p_value: float


def compare(contender: Sequence[float], incumbent: Sequence[float], outcomes: Sequence[bool], seed: int) -> Comparison:
    """Compare two controllers' log odds of the same proposals.

    More than ``MOST_PAIRS`` differences are added up in as many random groups: their sums are as symmetric as they are.
    Not covered: each controller's fitted factor binds its scores together, by a part that falls with their number.

    Args:
        contender, incumbent: see ``log_scores``.
        outcomes: which succeeded; some, and not all.
        seed: of the groups.
    """
    ours, theirs = log_scores(contender, outcomes), log_scores(incumbent, outcomes)
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    shuffled = random.Random(seed).sample(differences, len(differences))
    groups = [math.fsum(shuffled[start::MOST_PAIRS]) for start in range(min(len(shuffled), MOST_PAIRS))]
    means = fmean(ours), fmean(theirs)
    return Comparison(len(outcomes), sum(outcomes), *means, fmean(differences), sign_flip_p_value(groups))


def decide(comparison: Comparison, reading: Mapping[str, Any] | None, alpha: float) -> Decision:
    """Hand over only where the contender is better beyond noise and can be read; the gate's rule for controllers.

    That it is finite, and within the limits, was settled before: else there is no comparison.

    Args:
        comparison: of both on what neither has seen.
        reading: ``verdict`` and ``reason`` of the contender's inspection; None where it was not worth one.
        alpha: level of the test.
    """
    figures = f"{comparison.difference:+.4f} nats a held-out proposal, p = {comparison.p_value:.4f}"
    against = []
    if comparison.p_value >= alpha:
        against.append(f"proposes no better beyond noise: {figures} >= {alpha:g}")
    elif reading is None or reading["verdict"] != "read":
        verdict, reason = (reading["verdict"], reading["reason"]) if reading is not None else ("missing", "")
        against.append(f"inspection: the contender is {verdict} {reason}".strip())
    return Decision(not against, tuple(against) or (f"proposes better: {figures}; it can be read",))


def _clipped(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return odds.clip(-ODDS, ODDS)
