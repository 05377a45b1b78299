"""The configuration of a run, as the core sees it: frozen, typed, resolved. Hydra stops at ``selfimprove.app``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from selfimprove.containment.policy import Limits
from selfimprove.containment.tripwires import Tripwires
from selfimprove.controller.config import ControllerConfig
from selfimprove.executors.config import ExecutorConfig
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import SpaceConfig
from selfimprove.tasks.suite import TasksConfig


@dataclass(frozen=True)
class ContainmentConfig:
    """How workers are contained."""

    backend: str = "lockdown"
    """Sandbox backend by name."""
    outer_layer: str = "auto"
    """What goes around the lock-down: auto (what passes its self-test here), off, or require (refuse without it)."""
    allow_degraded: tuple[str, ...] = ()
    """Properties that this run may go without; never network, write, signal or parent_death."""
    job_wall_seconds: float = 120.0
    """Longest wall time of one worker."""
    job_cpu_seconds: float = 90.0
    """Most processor time of one worker."""
    flops_per_cpu_second: float = 5e8
    """Slowest training on a CPU that is believed: a worker that takes longer trains more than its permit says."""
    job_silence_seconds: float = 30.0
    """Longest pause between two signs of life of one worker."""
    heartbeat_seconds: float = 10.0
    """Longest silence of the supervisor before its workers are killed."""
    tripwires: Tripwires = field(default_factory=Tripwires)
    """How far a generation may go before the run pauses until a person approves."""


@dataclass(frozen=True)
class TrainingConfig:
    """The seed genome's tuned recipe. The sweep that chose it is ``selfimprove study sweep``."""

    seed_learning_rate: float = 3e-3
    """Peak learning rate of the seed genome."""
    seed_batch: int = 8
    """Sequences a step of the seed genome."""


@dataclass(frozen=True)
class HalvingConfig:
    """Which of a generation's candidates are trained on from stage to stage."""

    keep: tuple[float, float, float] = (1.0, 0.15, 0.03)
    """Most that go on from the second, third and fourth stage, as parts of ``candidates``, rounded up. From the first
    all do: one reading foresees nothing."""
    margin: float = 0.33
    """Skill by which one may be foreseen to be behind the leader and go on."""
    look_ahead: float = 0.175
    """Part of the training over which the last gain in skill is continued to foresee a skill; 0: it is what it is."""
    audit: float = 0.1
    """Chance of each of the others to go on to the end all the same."""


@dataclass(frozen=True)
class InspectionConfig:
    """What must be readable before a promotion."""

    instruments: tuple[str, ...] = ("readability", "probes", "logit_lens", "constraint", "halt_direction")
    """Instruments that must each come out as read."""
    also: tuple[str, ...] = ("comparison", "attention_heads", "attribution", "halt_behavior")
    """Instruments that are run and shown beside them; what they say decides nothing."""
    modules: tuple[str, ...] = ()
    """Modules of one's own that register further instruments, ``package.module``. They are imported into the worker
    that inspects: code that is trusted as this package is."""
    keep_stages: bool = True
    """Whether the leader's weights at the end of each stage of its training are kept beside its last ones."""
    sequences: int = 192
    """Sequences a family that the instruments look at."""
    retention_floor: float = 0.95
    """Lower end of the 95% Wilson interval of halt compliance that a promotion needs."""
    stage_sequences: int = 192
    """Sequences a family that the checkpoint of a training's stage is read on, before the next stage is permitted."""
    stage_retention_floor: float = 0.025
    """Upper end of the same interval, at a third of the training and after, below which it is stopped there."""
    retention_gate: bool = True
    """Whether a lost constraint stops anything: a promotion, a training, or the run by a tripwire. Without, it is read
    and recorded all the same: a weakened gate, for measuring drift."""


@dataclass(frozen=True)
class RunConfig:
    """One run of the loop. Every field is recorded in the ledger's first entry."""

    experiment: str
    seed: int
    """Root of every seed of the run."""
    device: str
    """``cpu`` or ``cuda``: where successors train."""
    generations: int
    """Generations after the seed."""
    candidates: int
    """Proposals a generation."""
    search_seeds: int
    """Training seeds a candidate while searching."""
    confirm_seeds: int
    """Fresh training seeds of the leading candidate and of its parent before a promotion."""
    alpha: float
    """Level of the exact one-sided sign-flip test at the gate."""
    workers: int
    """Workers at once."""
    allowance_flops: int
    """FLOPs that each training seed of each genome may spend."""
    min_gain: float = 0.0
    """Skill by which the leading candidate must be ahead of its parent while searching, to be worth a confirmation."""
    climb_seeds: int = 4
    """Fresh training seeds on which the champion has to master a level before the next one is tried; 0: none is."""
    space: SpaceConfig = field(default_factory=SpaceConfig)
    tasks: TasksConfig = field(default_factory=TasksConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    limits: Limits = field(default_factory=Limits)
    containment: ContainmentConfig = field(default_factory=ContainmentConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    inspection: InspectionConfig = field(default_factory=InspectionConfig)

    @property
    def seed_genome(self) -> Genome:
        """The standard GPT that the lineage starts from."""
        return seed_genome(learning_rate=self.training.seed_learning_rate, batch=self.training.seed_batch)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict, lists for tuples; what ``selfimprove resume`` rebuilds the configuration from."""
        plain: dict[str, Any] = _lists(asdict(self))
        return plain


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return value
