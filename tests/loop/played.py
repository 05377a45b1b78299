"""A supervisor that is played: the loop, ledger, budget and files of a run are real, and it takes a tenth of a second.

Some candidates are promoted, crash, diverge, answer nonsense, or are killed from outside.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import save

from selfimprove.archive.ledger import LEDGER_NAME, Ledger
from selfimprove.containment.budget import Budget
from selfimprove.containment.jobs import Completed, Crashed, Job, Outcome, Spent, Usage
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import PermitBook
from selfimprove.containment.tripwires import Tripwires
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.transformer import TransformerProposer
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop.config import ContainmentConfig, RunConfig
from selfimprove.loop.granting import lost_cap
from selfimprove.loop.journal import Journal
from selfimprove.loop.slots import Bench
from selfimprove.nets.cost import memory_shapes, parameter_shapes
from selfimprove.seeds import derive
from selfimprove.tasks.score import FamilyScore, Proportion, Score
from selfimprove.tasks.suite import scales
from selfimprove.training.protocol import MEMORY, WEIGHTS, tasks_from_json

CONFIG = RunConfig(
    "played", 3, "cpu", generations=2, candidates=3, search_seeds=1, confirm_seeds=2, alpha=0.3, workers=2,
    allowance_flops=10**9, controller=ControllerConfig(steps=1),
    containment=ContainmentConfig(tripwires=Tripwires(gain=1.0)),  # what is played gains more than any real candidate
)  # fmt: skip
KILLED, CRASHED, DIVERGED = "g001/c02/s0@1/3", "g002/c01/s0@1/9", "g002/c00/s0@1/1"
UNSAFE = "g001/c00/s0/reading"


class Player:
    """Stands where the supervisor stands. Answers depend on the job alone; two run at once and end in reverse."""

    killed: ClassVar[set[str]] = set()
    pace: ClassVar[Spent] = Spent(0.5, 0.0)
    """What a job takes at most: how long it really took differs from run to run."""

    def __init__(self, *_: object, **__: object) -> None:
        self.spent = Spent()

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *_: object) -> None: ...
    def warm(self, name: str) -> None: ...

    def run(self, jobs: Sequence[Job], on_start: Callable[[int], None] | None = None) -> Iterator[tuple[int, Outcome]]:
        indices = list(range(len(jobs)))
        for first in indices[::2]:
            pair = indices[first : first + 2]
            for index in pair:
                if on_start is not None:
                    on_start(index)
            for index in reversed(pair):
                took = random.uniform(0.5, 1.0)
                self.spent += Spent(took * self.pace.cpu_seconds, took * self.pace.gpu_seconds)
                yield index, self._outcome(jobs[index])

    def _outcome(self, job: Job) -> Outcome:
        if job.key == KILLED and job.key not in self.killed:
            self.killed.add(job.key)
            return Crashed("killed by SIGKILL", Usage(), killed=True)
        if job.key == CRASHED:
            return Crashed("ValueError: it had to happen", Usage())
        result, outputs = PLAYED[job.payload["op"]](job)
        return Completed(result, outputs, Usage(wall_seconds=random.random()))


def trained(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    genome, tasks = Genome.from_json(job.payload["genome"]), tasks_from_json(job.payload["tasks"])
    shapes = parameter_shapes(genome.architecture, tasks.vocab_size, tasks.context, genome.heads)
    kept = {WEIGHTS: shapes, MEMORY: memory_shapes(genome.recipe, shapes)}
    return {"steps": job.payload["last"], "diverged": job.key == DIVERGED}, {
        name: zeros(kept[name]) for name in job.outputs
    }


def scored(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Later genomes are better, so that something is promoted."""
    ahead = "/c0" in job.key or "/candidate/" in job.key
    skill = 0.5 * ahead + derive(0, job.key) % 1000 / 1e5
    tasks = tasks_from_json(job.payload["tasks"])
    families = {name: FamilyScore(skill, 0.5, (1 - skill) * scale.guess) for name, scale in scales(tasks).items()}
    kept = 0 if job.key == UNSAFE else tasks.halt_prompts
    return Score(skill, families, Proportion.of(kept, tasks.halt_prompts)).to_json(), {}


def inspected(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    instruments = {name: {"verdict": "read", "reason": ""} for name in CONFIG.inspection.instruments}
    summary = {"retention": asdict(Proportion.of(64, 64))}
    return {"status": "complete", "instruments": instruments, "summary": summary, "coverage": 1.0}, {}


def screened(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    losses = job.payload["expressions"].items()
    return {"results": {number: {"ok": True, "reason": "", "fingerprint": text} for number, text in losses}}, {}


def asked(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"proposals": []}, {}  # a model that only repeats itself: uniform proposals fill up


def told(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    genome = Genome.from_json(job.payload["genome"])
    proposer = TransformerProposer(CONFIG.controller, Space(CONFIG.space), None, None, 0, genome)  # type: ignore[arg-type]
    return {"diverged": False, "loss": 1.0, "entropy": 1.0}, {WEIGHTS: zeros(proposer.shapes)}


def tried(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    said, outputs = told(job)
    return said | {"log_probs": [-1.0 for _ in job.payload["held_out"]]}, outputs


def controller_inspected(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"verdict": "unreadable", "reason": "played"}, {}


PLAYED = {
    "train": trained, "evaluate": scored, "inspect": inspected, "screen": screened, "ask": asked, "tell": told,
    "trial": tried,
    "inspect_controller": controller_inspected,
}  # fmt: skip


def zeros(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    return save({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()})


def nobody_learns(patch: pytest.MonkeyPatch) -> None:
    """Controllers are trained on no lessons, which take half a second to make and which nothing played reads."""
    patch.setattr("selfimprove.controller.transformer.lessons", lambda *_, **__: [])


class Silent:
    def on_event(self, kind: str, body: Mapping[str, Any]) -> None: ...


def bench_of(config: RunConfig, folder: Path, supervisor: Any = None, clock: Callable[[], float] = time.time) -> Bench:
    """A run that has just begun in a folder, with nobody who listens."""
    key = SigningKey.generate()
    journal = Journal(Ledger.create(folder / LEDGER_NAME, key, None, {"run_id": "r"}), Silent())
    budget = Budget(config.limits.flops, lost_cap(config.limits))
    return Bench(config, folder, journal, supervisor, budget, PermitBook("r", key, clock=clock), "r", set())
