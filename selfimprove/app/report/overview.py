"""The whole of what one page shows, and questions about it that several figures ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from selfimprove.app.report.claim import ClaimCard
from selfimprove.app.report.climbs import Rise
from selfimprove.app.report.controllers import ControllerReading
from selfimprove.app.report.handovers import Handover
from selfimprove.app.report.origins import Origins
from selfimprove.app.report.quality import Quality
from selfimprove.app.report.readings import Inspection
from selfimprove.app.report.views import (
    Candidate,
    Charge,
    Comparison,
    Confirmation,
    ControllerStep,
    Curve,
    Generation,
    RunInfo,
    RunRow,
    Score,
)
from selfimprove.app.report.wires import Waiting, WireRow

Item = TypeVar("Item")


def thin(items: Sequence[Item], limit: int, keep: Callable[[Item], bool]) -> tuple[Item, ...]:
    """All items, or every n-th so that about ``limit`` remain, plus those that must be kept. Order is preserved."""
    step = -(-len(items) // limit)
    return tuple(item for number, item in enumerate(items) if step <= 1 or number % step == 0 or keep(item))


@dataclass(frozen=True)
class Report:
    """Everything one page shows."""

    run: RunInfo
    seed_genome: str
    seed_score: Score | None
    candidates: tuple[Candidate, ...]
    generations: tuple[Generation, ...]
    confirmations: tuple[Confirmation, ...]
    inspections: tuple[Inspection, ...]
    controller: tuple[ControllerStep, ...]
    charges: tuple[Charge, ...]
    curve: Curve
    quality: Quality
    claims: ClaimCard
    readings: tuple[ControllerReading, ...] = ()
    handovers: tuple[Handover, ...] = ()
    baselines: tuple[Curve, ...] = ()
    runs: tuple[RunRow, ...] = ()
    events: tuple[tuple[str, str, str], ...] = ()
    finals: tuple[Comparison, ...] = ()
    rises: tuple[Rise, ...] = ()
    levels: Mapping[str, int] = field(default_factory=dict)
    exam_levels: Mapping[str, int] = field(default_factory=dict)
    capped: Mapping[str, Sequence[int]] = field(default_factory=dict)
    wires: tuple[WireRow, ...] = ()
    waiting: Waiting | None = None
    origins: Origins = field(default_factory=Origins)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Every generation that has a proposal or a summary, in order."""
        found = {candidate.generation for candidate in self.candidates} | {entry.number for entry in self.generations}
        return tuple(sorted(found))

    @property
    def dotted(self) -> tuple[Candidate, ...]:
        """The candidates that figures draw one by one: all, or evenly thinned where there are very many."""
        return thin(self.candidates, 250, lambda candidate: candidate.fate == "promoted")

    @property
    def inspected(self) -> tuple[Inspection, ...]:
        """The inspections that get a column: all, or evenly thinned, those of promoted candidates kept."""
        won = {(candidate.generation, candidate.index) for candidate in self.lineage()}
        return thin(self.inspections, 24, lambda inspection: (inspection.generation, inspection.index) in won)

    @property
    def families(self) -> tuple[str, ...]:
        """Every task family that any score names, in order of first appearance."""
        scores = [self.seed_score, *(candidate.score for candidate in self.candidates)]
        return tuple(dict.fromkeys(name for score in scores if score for name in score.tasks))

    @property
    def spent(self) -> dict[str, int]:
        """FLOPs by account, unknown accounts included."""
        totals: dict[str, int] = defaultdict(int)
        for charge in self.charges:
            totals[charge.account] += charge.flops
        return dict(totals)

    def promoted(self, generation: int) -> Candidate | None:
        """The candidate that this generation promoted."""
        return next((c for c in self.candidates if c.generation == generation and c.fate == "promoted"), None)

    def won(self, inspection: Inspection) -> bool:
        """Whether what was inspected is the candidate that its generation promoted."""
        winner = self.promoted(inspection.generation)
        return winner is not None and inspection.index in (None, winner.index)

    def leads(self, inspection: Inspection) -> bool:
        """Whether what was inspected is the leading candidate of its generation, or the seed genome.

        A candidate that was stopped for what was read in it is inspected, too, and has no score to lead by.
        """
        place = (inspection.generation, inspection.index)
        found = next((c for c in self.candidates if (c.generation, c.index) == place), None)
        return found is None or found.fate not in ("stopped", "failed")

    def lineage(self) -> tuple[Candidate, ...]:
        """The path from the seed to the last promoted candidate, oldest first."""
        promoted = [candidate for candidate in self.candidates if candidate.fate == "promoted"]
        by_genome = {candidate.genome: candidate for candidate in promoted}  # a duplicate has its original's genome
        step = promoted[-1] if promoted else None
        path: list[Candidate] = []
        while step is not None and step not in path:
            path.append(step)
            step = by_genome.get(step.parent)
        return tuple(reversed(path))
