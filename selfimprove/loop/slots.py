"""Slots: one genome and one training seed; and the bench, which holds what it takes to run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfimprove.archive.files import folder_bytes
from selfimprove.containment.budget import Budget
from selfimprove.containment.permit import PermitBook
from selfimprove.containment.policy import Used, check_run
from selfimprove.containment.supervisor import (
    Completed,
    Crashed,
    Exceeded,
    Invalid,
    Job,
    JobLimits,
    Outcome,
    Supervisor,
)
from selfimprove.executors.executor import Executor
from selfimprove.genome.genome import Genome
from selfimprove.loop.attempts import attempt, only
from selfimprove.loop.config import RunConfig
from selfimprove.loop.journal import Journal
from selfimprove.nets.cost import Quote, quote
from selfimprove.tasks.suite import TasksConfig

SCRATCH = "scratch"  # weights between training and the end of their generation
_REPORTED = ("steps", "diverged")  # of all that a training worker may say, what a record keeps


@dataclass(frozen=True)
class Slot:
    """One training run to be paid for.

    Attributes:
        key: its place in the run, e.g. ``g003/c05/s1``.
        account: who pays: search or confirm.
        genome: what is trained.
        seed: of weights and training data.
        splits: split -> seed of its instances; the trained weights are scored on each.
        tasks: what it is trained and scored on, at their levels.
        keeps_stages: the weights of every stage wait for the end of the generation, as those of the last one do.
        judged: a constraint that fails between two stages ends the training; what candidates are compared with is
            read and not judged, or it would be cut short and count as beaten.
    """

    key: str
    account: str
    genome: Genome
    seed: int
    splits: tuple[tuple[str, int], ...]
    tasks: TasksConfig
    keeps_stages: bool = False
    judged: bool = True


@dataclass(frozen=True)
class Bench:
    """What it takes to run slots: the contained workers, the accounts, and the memory of what was done."""

    config: RunConfig
    run_dir: Path
    journal: Journal
    supervisor: Supervisor
    budget: Budget
    book: PermitBook
    run_id: str
    known_genomes: set[str]
    cluster: Executor | None = None
    """Where successors are trained, if not on this machine."""

    @property
    def executor(self) -> Executor:
        """What runs trainings."""
        return self.supervisor if self.cluster is None else self.cluster

    def price(self, genome: Genome, tasks: TasksConfig) -> Quote:
        """What one training seed of a genome costs on these tasks: the longer their sequences, the fewer its steps."""
        return quote(
            genome, vocab_size=tasks.vocab_size, context=tasks.context, allowance_flops=self.config.allowance_flops
        )

    def register(self, genome: Genome) -> None:
        """Record a validated genome, once; only such a genome can get a permit."""
        body = {"sha256": genome.sha256, "genome": genome.to_json()}
        self.journal.once("genome", (genome.sha256,), lambda: body)
        self.known_genomes.add(genome.sha256)

    def check_disk(self) -> None:
        """Stop where the run folder is larger than it may be.

        Raises:
            LimitReached: it is.
        """
        check_run(self.config.limits, Used(disk_bytes=folder_bytes(self.run_dir)))

    def run_one(self, job: Job) -> Outcome:
        """Run a single job in a contained worker."""
        return only(attempt(self.supervisor, [job]))

    def waiting(self, key: str, name: str) -> Path:
        """Where an output of a training waits until its generation ends."""
        return self.run_dir / SCRATCH / f"{key.replace('/', '-')}.{name}"

    def limits(self, *, output_bytes: int = 1 << 20) -> JobLimits:
        """Limits of one worker."""
        contained = self.config.containment
        return JobLimits(
            wall_seconds=contained.job_wall_seconds,
            cpu_seconds=contained.job_cpu_seconds,
            memory_bytes=self.config.limits.memory_bytes,
            output_bytes=output_bytes,
            silence_seconds=contained.job_silence_seconds,
            gpu_memory_bytes=self.config.limits.gpu_memory_bytes,
        )


def describe(outcome: Outcome) -> tuple[str, str, dict[str, Any]]:
    """Status, reason and result of an outcome, for a record."""
    match outcome:
        case Completed(result=result):
            return "completed", "", {k: result[k] for k in _REPORTED if isinstance(result.get(k), bool | int)}
        case Exceeded(limit=limit, value=value, bound=bound):
            return "exceeded", f"{limit}: {value:g} over {bound:g}", {}
        case Crashed(reason=reason):
            return "crashed", reason, {}
        case Invalid(reason=reason):
            return "invalid", reason, {}
