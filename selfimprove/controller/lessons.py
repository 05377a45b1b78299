"""What the controller learns from: its history, weighed by rank, beside a rehearsal of the prior. No torch.

The objective is supervised, so what is learned is decided here, by which sequences are shown how often:

- A sequence is labeled with its outcome (return conditioning: Chen et al. 2021, arXiv 2106.01345); sampling asks for
  ``GOAL``.
- Better outcomes are shown more often: the weight is 1 / (0.02 n + rank)^2, after weighted retraining (Tripp et al.
  2020, arXiv 2006.09191); ties share a rank. The square is ours: in few steps on little data a model does not learn to
  tell labels apart, and at their plain weight failures leaked into what it proposes.
- Random edits, drawn as the untrained controller draws them and labeled ``GOAL``, keep a share that shrinks as
  successes accumulate: a handful of lucky results cannot collapse the policy, and while nothing has succeeded, it stays
  as it began instead of imitating failures. Edits that failed more often than they succeeded are left out of this
  rehearsal, which is how a supervised objective learns from failure.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selfimprove.controller.grammar import GOAL, LABELS, PREFIX_TOKENS, Grammar
from selfimprove.controller.proposer import Experience, GenomeOf, Outcome
from selfimprove.controller.random_search import draw_edits
from selfimprove.genome.edits import Edit

REHEARSED = 64  # random proposals per update
REDRAWS = 8  # how often a rehearsed proposal that holds an edit known to fail is drawn again
RANK_OFFSET = 0.02  # smaller: the best dominate more


@dataclass(frozen=True)
class Lesson:
    """One training sequence.

    Args:
        ids: token ids, prefix and action.
        scored_from: index of the first id that is predicted (the first of the action).
        weight: relative frequency, positive.
    """

    ids: tuple[int, ...]
    scored_from: int
    weight: float


def label(experience: Experience) -> Outcome:
    """Outcome as the controller reads it: a gain or loss within one standard error counts as 'same'.

    A promotion has passed a test of its own and counts as 'better' as it is.
    """
    if experience.outcome == "promoted":
        return GOAL
    noise, gain = experience.standard_error, experience.gain
    if experience.outcome in ("better", "worse") and noise is not None and gain is not None and abs(gain) < noise:
        return "same"
    return experience.outcome


def merit(experience: Experience) -> tuple[int, float]:
    """Sort key, better is greater: promoted, then by label, then by gain in standard errors (plain gain if unknown)."""
    tier = len(LABELS) if experience.outcome == "promoted" else LABELS.index(label(experience))
    gain = experience.gain or 0.0
    return tier, gain / experience.standard_error if experience.standard_error else gain


def rank_weights(history: Sequence[Experience]) -> list[float]:
    """Share of each experience, summing to 1: proportional to 1 / (``RANK_OFFSET`` n + rank)^2, rank 0 the best."""
    merits = [merit(experience) for experience in history]
    ordered = sorted(merits, reverse=True)
    first = {value: ordered.index(value) for value in set(merits)}
    shared = {value: first[value] + (ordered.count(value) - 1) / 2 for value in first}
    weights = [(RANK_OFFSET * len(history) + shared[value]) ** -2 for value in merits]
    total = sum(weights)
    return [weight / total for weight in weights]


def lessons(
    grammar: Grammar, history: Sequence[Experience], genome_of: GenomeOf, *, prior_count: float, seed: int
) -> list[Lesson]:
    """Training sequences of one update.

    Args:
        grammar: of the space that the edits are from.
        history: at least one experience.
        genome_of: finds the parents of the history.
        prior_count: rehearsal weighs as much as this many successes.
        seed: of the rehearsal.

    Raises:
        InvalidEdit: the history holds an edit that the grammar cannot spell.
        KeyError: ``genome_of`` does not know a parent.
    """
    shares = rank_weights(history)
    lived = [
        _lesson(grammar, grammar.prefix(genome_of(experience.parent), label(experience)), experience, share)
        for experience, share in zip(history, shares, strict=True)
    ]
    successes = [share for experience, share in zip(history, shares, strict=True) if label(experience) == GOAL]
    prior = prior_count * (sum(successes) / len(successes) if successes else 1.0)
    if prior == 0.0:
        return lived
    rehearsed = _rehearse(grammar, history, genome_of, random.Random(seed))
    return lived + [Lesson(ids, PREFIX_TOKENS, prior / REHEARSED) for ids in rehearsed]


def failing_edits(history: Sequence[Experience]) -> set[Edit]:
    """Edits that were part of more failures (anything below 'same') than successes, whatever the parent.

    A duplicate is none: of its edits nothing new is known.
    """
    balance: Counter[Edit] = Counter()
    for experience in history:
        if experience.outcome == "duplicate":
            continue
        standing = LABELS.index(label(experience)) - LABELS.index("same")
        for edit in experience.edits:
            balance[edit] += (standing > 0) - (standing < 0)
    return {edit for edit, count in balance.items() if count < 0}


def _rehearse(
    grammar: Grammar, history: Sequence[Experience], genome_of: GenomeOf, rng: random.Random
) -> Iterator[tuple[int, ...]]:
    """Sequences of random proposals for the parents of the history, as if they had succeeded."""
    parents, failing = sorted({experience.parent for experience in history}), failing_edits(history)
    for position in range(REHEARSED):
        parent = genome_of(parents[position % len(parents)])
        for _ in range(REDRAWS):
            edits, _child = draw_edits(grammar, parent, rng)
            if failing.isdisjoint(edits):
                break
        yield (*grammar.prefix(parent, GOAL), *grammar.encode(edits))


def _lesson(grammar: Grammar, prefix: list[int], experience: Experience, share: float) -> Lesson:
    return Lesson((*prefix, *grammar.encode(experience.edits)), PREFIX_TOKENS, share)
