"""What the report shows, as frozen values: no ledger format, no HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Fate = Literal["promoted", "rejected", "denied", "failed", "duplicate", "invalid", "pending"]
FATES: tuple[Fate, ...] = ("promoted", "rejected", "denied", "failed", "duplicate", "invalid", "pending")
ACCOUNTS = ("search", "confirm", "controller", "lost")
Item = TypeVar("Item")
KINDS = ("architecture", "objective", "recipe")


@dataclass(frozen=True)
class Retention:
    """Halt prompts answered with the halted token: ``kept`` of ``n``, with a 95% Wilson interval."""

    kept: int
    n: int
    low: float
    high: float

    @property
    def rate(self) -> float:
        """Share kept, between 0 and 1."""
        return self.kept / self.n


@dataclass(frozen=True)
class TaskScore:
    """One task family: skill (0 uniform guess, 1 perfect), accuracy, cross-entropy in nats per token."""

    skill: float | None
    accuracy: float | None
    cross_entropy: float | None


@dataclass(frozen=True)
class Score:
    """The fixed metric of one genome on the search split, averaged over ``seeds`` training seeds."""

    skill: float
    seeds: int | None
    tasks: Mapping[str, TaskScore]
    retention: Retention | None


@dataclass(frozen=True)
class Denial:
    """A refused permit: the reason, and the limit with the value that broke it where one did."""

    reason: str
    limit: str
    value: str
    bound: str


@dataclass(frozen=True)
class Outcome:
    """How one worker job ended."""

    key: str
    status: str
    reason: str


@dataclass(frozen=True)
class Candidate:
    """One proposal with everything that happened to it."""

    generation: int
    index: int
    parent: str
    genome: str
    edits: tuple[str, ...]
    kinds: tuple[str, ...]
    allocates: bool
    fate: Fate
    reason: str
    flops: int
    score: Score | None
    denial: Denial | None
    outcomes: tuple[Outcome, ...]
    decision_reasons: tuple[str, ...]

    @property
    def name(self) -> str:
        """Short name, also the anchor of its table row: ``g3c05``."""
        return f"g{self.generation}c{self.index:02d}"

    @property
    def kind(self) -> str:
        """The kind of its edits, ``mixed`` when there are several, ``unknown`` when none is recorded."""
        kinds = set(self.kinds)
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "unknown"


@dataclass(frozen=True)
class Confirmation:
    """Candidate and parent retrained on common fresh seeds; skills are paired by position."""

    generation: int
    index: int | None
    split: str
    test: str
    alpha: float
    candidate: tuple[float, ...]
    parent: tuple[float, ...]
    p_value: float | None
    retention: Retention | None
    promoted: bool

    @property
    def differences(self) -> tuple[float, ...]:
        """Candidate minus parent, a pair at a time."""
        return tuple(a - b for a, b in zip(self.candidate, self.parent, strict=True))

    @property
    def mean(self) -> float:
        """Mean paired difference."""
        return sum(self.differences) / len(self.differences)


@dataclass(frozen=True)
class Instrument:
    """One inspection instrument and its verdict."""

    name: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What was read inside one candidate, layers from the lowest up; accuracies and majority shares lie in 0..1."""

    generation: int
    index: int | None
    status: str
    layers: int | None
    instruments: tuple[Instrument, ...]
    probes: Mapping[str, tuple[float | None, ...]]
    control: Mapping[str, tuple[float | None, ...]]
    logit_lens: Mapping[str, tuple[float | None, ...]]
    majority: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """The summary record of one finished generation."""

    number: int
    champion: str
    best_skill: float | None
    charged: int | None
    promoted: bool


@dataclass(frozen=True)
class ControllerStep:
    """One update of the controller: loss in nats per token, entropy of its proposals in nats."""

    generation: int
    loss: float | None
    entropy: float | None
    flops: int | None


@dataclass(frozen=True)
class Charge:
    """One booked expense, in FLOPs; ``total`` is the running sum over all accounts."""

    key: str
    account: str
    flops: int
    total: int
    generation: int | None


@dataclass(frozen=True)
class Point:
    """A score placed on the axis of charged FLOPs."""

    flops: int
    skill: float
    name: str


@dataclass(frozen=True)
class Curve:
    """One run as best-so-far material: all scores in order of arrival and where the run's spending stands."""

    label: str
    points: tuple[Point, ...]
    charged: int


@dataclass(frozen=True)
class Sandbox:
    """How one containment property is enforced; ``mechanism`` is empty where it is not."""

    name: str
    mechanism: str
    degraded: bool


@dataclass(frozen=True)
class RunInfo:
    """The facts of the header."""

    run_id: str
    experiment: str
    seed: str
    device: str
    state: str
    reason: str
    started: str
    ended: str
    seconds: float | None
    charged: int
    limits: Mapping[str, Any]
    sandbox: tuple[Sandbox, ...]
    degraded: tuple[str, ...]
    versions: Mapping[str, str]
    config: Mapping[str, Any]
    entries: int
    unreadable: int
    head: str

    @property
    def flop_limit(self) -> int | None:
        """The limit on charged FLOPs, None when the ledger names none."""
        value = self.limits.get("flops")
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


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
    baselines: tuple[Curve, ...] = ()
    events: tuple[tuple[str, str, str], ...] = ()
    sealed: Mapping[str, Any] = field(default_factory=dict)

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

    def promoted(self, generation: int) -> Candidate | None:
        """The candidate that this generation promoted."""
        return next((c for c in self.candidates if c.generation == generation and c.fate == "promoted"), None)

    def lineage(self) -> tuple[Candidate, ...]:
        """The path from the seed to the last promoted candidate, oldest first."""
        by_genome = {candidate.genome: candidate for candidate in reversed(self.candidates) if candidate.genome}
        step = next((candidate for candidate in reversed(self.candidates) if candidate.fate == "promoted"), None)
        path: list[Candidate] = []
        while step is not None and step not in path:
            path.append(step)
            step = by_genome.get(step.parent)
        return tuple(reversed(path))
