"""What the report shows, as frozen values: no ledger format, no HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from selfimprove.containment.jobs import Spent

Fate = Literal["promoted", "rejected", "denied", "stopped", "failed", "duplicate", "invalid", "pending"]
FATES: tuple[Fate, ...] = ("promoted", "rejected", "denied", "stopped", "failed", "duplicate", "invalid", "pending")
ACCOUNTS = ("search", "confirm", "controller", "lost")
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
    """One task family: skill (0 uniform guess, 1 perfect) and accuracy."""

    skill: float | None
    accuracy: float | None


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
class Comparison:
    """Two genomes retrained on common fresh seeds and compared on one split; skills are paired by position.

    Attributes:
        split: name of the split.
        test: name of the test, as the ledger gives it.
        alpha: level of the test.
        candidate: skills of the candidate, or of the champion, one a training seed.
        parent: skills of its parent, or of the seed genome, with the same seeds.
        p_value: the test's; None where it is not recorded.
        tasks: skill of candidate and parent per task family, averaged over the seeds.
        retention: of the candidate, over all seeds.
        parent_failed: trainings of the parent that failed and count as skill 0.
    """

    split: str
    test: str
    alpha: float
    candidate: tuple[float, ...]
    parent: tuple[float, ...]
    p_value: float | None
    tasks: Mapping[str, tuple[float | None, float | None]]
    retention: Retention | None
    parent_failed: int = 0

    @property
    def differences(self) -> tuple[float, ...]:
        """Candidate minus parent, a pair at a time."""
        return tuple(a - b for a, b in zip(self.candidate, self.parent, strict=True))

    @property
    def mean(self) -> float:
        """Mean paired difference."""
        return sum(self.differences) / len(self.differences)

    @property
    def passed(self) -> bool:
        """Whether the candidate is better beyond noise at the level of the test."""
        return self.p_value is not None and self.p_value < self.alpha


@dataclass(frozen=True)
class Confirmation:
    """A candidate against its parent at the gate, and whether it was promoted."""

    generation: int
    index: int | None
    pair: Comparison
    promoted: bool


@dataclass(frozen=True)
class Generation:
    """The summary record of one finished generation.

    Attributes:
        skill: the champion's (gate split, once confirmed there).
        stopped: candidates that were stopped after a stage.
        regret: by how much the best of the audited beat the best of the kept, in nats; None where none was audited.
    """

    number: int
    champion: str
    skill: float | None
    charged: int | None
    promoted: bool
    stopped: int | None
    regret: float | None


@dataclass(frozen=True)
class ControllerStep:
    """One update of the controller: loss in nats per token, entropy of its proposals in nats."""

    generation: int
    loss: float | None
    entropy: float | None


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
    """A score placed on the axis of charged FLOPs; ``candidate`` is false for the seed genome's."""

    flops: int
    skill: float
    name: str
    candidate: bool = True


@dataclass(frozen=True)
class Curve:
    """One run as best-so-far material: all scores in order of arrival and where the run's spending stands."""

    label: str
    points: tuple[Point, ...]
    charged: int


@dataclass(frozen=True)
class RunRow:
    """One run beside others.

    Attributes:
        label: the name to show.
        proposer: what made the proposals, for example ``random``.
        seed, state: root seed, and how the run ended.
        charged, limit: FLOPs charged, and the limit on them if one is recorded.
        scored, promotions: candidates with a score, and promoted.
        best: best search skill, biased upward.
        final: champion against seed genome on the sealed split, if it was opened.
        differs: what its configuration has that this run's has not: ``key: value, here value``.
    """

    label: str
    proposer: str
    seed: str
    state: str
    charged: int
    limit: int | None
    scored: int
    promotions: int
    best: float | None
    final: Comparison | None
    differs: tuple[str, ...] = ()


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
    spent: Spent
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
