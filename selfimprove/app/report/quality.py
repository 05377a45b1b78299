"""How good the proposals of a run were, generation by generation, and what they bought: figures from its ledger alone.

Shared by the page and by tracking.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from selfimprove.app.report.candidates import build_candidates, read_charges
from selfimprove.app.report.climbs import first_rise
from selfimprove.app.report.comparisons import read_confirmations
from selfimprove.app.report.human import Standing, compare_with_ladder
from selfimprove.app.report.records import Records, integer, place
from selfimprove.app.report.scores import read_curve, read_score
from selfimprove.app.report.views import Candidate, Confirmation, ControllerStep, Fate
from selfimprove.archive.records import gains_are_known
from selfimprove.canonical import finite
from selfimprove.loop.anytime import Steps, area_under, best_so_far, simple_regret
from selfimprove.loop.growth import Exponent, acceleration_exponent
from selfimprove.loop.improvement import imp_at_k

SUBSETS = (1, 4, 16)
"""The k of imp@k, beside the number of all proposals of a generation."""


@dataclass(frozen=True)
class GenerationQuality:
    """The proposals of one generation.

    Attributes:
        generation: its number.
        charged: FLOPs that were charged when it ended; None while it has not.
        fates: proposals by what became of them.
        kinds: the same for the proposals that contain an edit of a kind; one with edits of two kinds counts twice.
        imp: imp@k by k, in skill over the parent; empty where the parent's score is not known.
        fresh: imp@k of all proposals, the leader's gain taken from the seeds of its confirmation; None without imp@k.
        gained: mean paired difference of what was promoted, on fresh seeds; 0 where nothing was.
        entropy: of the proposals, nats a choice; None where the controller has none.
        loss: of the controller's training after the generation, nats a token.
    """

    generation: int
    charged: int | None
    fates: Mapping[Fate, int]
    kinds: Mapping[str, Mapping[Fate, int]]
    imp: Mapping[int, float]
    fresh: float | None
    gained: float
    entropy: float | None
    loss: float | None

    @property
    def proposals(self) -> int:
        """How many there were."""
        return sum(self.fates.values())

    def share(self, fate: Fate) -> float | None:
        """Share of the proposals with this fate; None where there were none."""
        return self.fates.get(fate, 0) / self.proposals if self.proposals else None


@dataclass(frozen=True)
class Quality:
    """A run as a search.

    Attributes:
        best: best search skill so far against charged FLOPs: the best of many, and so biased upward, and on instances
            that get harder as families rise.
        confirmed: sum of the gains of all promotions so far, each on the fresh seeds of its confirmation and at the
            level of difficulty of its generation, against charged FLOPs.
        generations: in order.
        regret: what the best search skill misses of a perfect one.
        area: area under ``best`` up to what was charged: 1 is a perfect skill from the start.
        acceleration: growth of ``confirmed`` with charged FLOPs, fitted to the generations.
        human: the run beside the frozen ladder of human discoveries.
    """

    best: Steps
    confirmed: Steps
    generations: tuple[GenerationQuality, ...]
    regret: float | None
    area: float | None
    acceleration: Exponent
    human: Standing


def read_quality(records: Records) -> Quality:
    """The figures of a run, whole or cut off anywhere; what is missing or malformed is left out."""
    curve = read_curve("", records)
    best = best_so_far([point.flops for point in curve.points], [point.skill for point in curve.points])
    confirmations = read_confirmations(records)
    gained = _gained(confirmations)
    confirmed = _confirmed(records, gained)
    ends = _ends(records)
    generations = _generations(records, ends, confirmations, gained)
    return Quality(
        best=best,
        confirmed=confirmed,
        generations=generations,
        regret=simple_regret(best, curve.charged),
        area=area_under(best, curve.charged) if curve.charged else None,
        acceleration=_acceleration([one for one in generations if (one.charged or 0) > 0], first_rise(records)),
        human=compare_with_ladder(records, confirmed),
    )


def read_steps(records: Records) -> tuple[ControllerStep, ...]:
    """Every update of the controller, in ledger order."""
    found = ((integer(line.body.get("generation")), line.body) for line in records.of("controller"))
    return tuple(
        ControllerStep(generation, finite(body.get("loss")), finite(body.get("entropy")))
        for generation, body in found
        if generation is not None
    )


def _gained(confirmations: Collection[Confirmation]) -> dict[tuple[int, int | None], float]:
    return {(one.generation, one.index): one.pair.mean for one in confirmations if one.promoted}


def _confirmed(records: Records, gained: Mapping[tuple[int, int | None], float]) -> Steps:
    """Gains added up where they were decided upon, from the seed genome's score on."""
    charged, total, steps = 0, 0.0, dict[float, float]()
    for line in records.lines:
        if line.kind == "charge":
            charged = max(charged, integer(line.body.get("total")) or 0)
        elif line.kind == "score" and not steps:
            steps[charged] = 0.0
        elif line.kind == "decision" and line.body.get("promoted") is True and (spot := place(line)):
            total += gained.get(spot, 0.0)
            steps[charged] = total
    return Steps(tuple(steps), tuple(steps.values()))


def _ends(records: Records) -> dict[int, int | None]:
    bodies = (line.body for line in records.of("generation"))
    found = ((integer(body.get("generation")), body.get("charged_flops")) for body in bodies)
    return {generation: integer(charged) for generation, charged in found if generation is not None}


def _generations(
    records: Records,
    ends: Mapping[int, int | None],
    confirmations: Sequence[Confirmation],
    gained: Mapping[tuple[int, int | None], float],
) -> tuple[GenerationQuality, ...]:
    scores = {spot: score for line in records.of("score") if (spot := place(line)) and (score := read_score(line.body))}
    candidates = build_candidates(records, scores, read_charges(records), frozenset(ends))
    parents = {
        generation: score.skill
        for line in records.of("reference")
        if gains_are_known(line.body)
        and (generation := integer(line.body.get("generation"))) is not None
        and (score := read_score(line.body))
    }
    fresh = {(one.generation, one.index): one.pair.mean for one in confirmations}
    steps = {step.generation: step for step in read_steps(records)}
    found = []
    for number_ in sorted({candidate.generation for candidate in candidates}):
        mine = [candidate for candidate in candidates if candidate.generation == number_]
        step = steps.get(number_, ControllerStep(number_, None, None))
        one = GenerationQuality(
            generation=number_,
            charged=ends.get(number_),
            fates=Counter(candidate.fate for candidate in mine),
            kinds={kind: Counter(c.fate for c in mine if kind in c.kinds) for kind in _kinds(mine)},
            imp={},
            fresh=None,
            gained=sum(value for (generation, _), value in gained.items() if generation == number_),
            entropy=step.entropy,
            loss=step.loss,
        )
        parent = parents.get(number_)
        found.append(one if parent is None else _with_imp(one, mine, parent, fresh))
    return tuple(found)


def _kinds(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind for candidate in candidates for kind in candidate.kinds))


def _with_imp(
    one: GenerationQuality,
    candidates: Sequence[Candidate],
    parent: float,
    fresh: Mapping[tuple[int, int | None], float],
) -> GenerationQuality:
    n = len(candidates)
    gains = [None if c.score is None else c.score.skill - parent for c in candidates]
    again = [fresh.get((c.generation, c.index)) for c in candidates]
    imp = {k: imp_at_k(gains, k) for k in (*(k for k in SUBSETS if k < n), n)}
    return replace(one, imp=imp, fresh=imp_at_k(gains, n, again))


def _acceleration(generations: Sequence[GenerationQuality], rise: int | None) -> Exponent:
    """Of the generations up to the first rise of a level: gains after it are of harder tasks, on another scale."""
    generations = [one for one in generations if rise is None or one.generation <= rise]
    places = np.array([float(one.charged or 0) for one in generations])
    if not places.size or not (np.diff(places) > 0).all():
        return Exponent(None, None, "no generation has ended")
    return acceleration_exponent(places, np.array([[one.gained for one in generations]]), seed=0)
