"""Jobs that a training worker understands, as JSON. Both ends import this page; neither trusts the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from selfimprove.genome.genome import Genome
from selfimprove.tasks.suite import TasksConfig

ENTRY = "selfimprove.training.worker"
WEIGHTS = "weights"  # name of the descriptor that carries a checkpoint, in or out
_LISTS = ("families", "held_out", "modules")  # tuples of TasksConfig
MEMORY = "memory"  # likewise what the optimizers remember, between two stages of a training


@dataclass(frozen=True)
class TrainJob:
    """Train one genome with one seed, from one step to another of a fixed number of steps."""

    genome: Genome
    tasks: TasksConfig
    steps: int
    """Of the whole training: what the learning-rate schedule refers to."""
    seed: int
    """Of the weights and, by derivation, of the training stream. A hash of the run's root seed and a purpose: who can
    guess the root, and a small one is guessed in a moment, can derive the seeds of every other split. A genome cannot,
    since it holds no code; a worker that runs other code than ours could."""
    device: str
    first: int = 0
    """Step to begin at; above 0 the job has ``weights`` and ``memory`` as inputs."""
    last: int | None = None
    """Step to stop before, None for the end; before the end ``memory`` is an output beside ``weights``."""

    def to_json(self) -> dict[str, Any]:
        return {
            "entry": ENTRY,
            "op": "train",
            "genome": self.genome.to_json(),
            "tasks": tasks_to_json(self.tasks),
            "steps": self.steps,
            "seed": self.seed,
            "device": self.device,
            "first": self.first,
            "last": self.steps if self.last is None else self.last,
        }


@dataclass(frozen=True)
class EvaluateJob:
    """Score a checkpoint on one split."""

    genome: Genome
    tasks: TasksConfig
    split: str
    seed: int
    """Of the instances; a training job never carries it."""
    device: str

    def to_json(self) -> dict[str, Any]:
        return {
            "entry": ENTRY,
            "op": "evaluate",
            "genome": self.genome.to_json(),
            "tasks": tasks_to_json(self.tasks),
            "split": self.split,
            "seed": self.seed,
            "device": self.device,
        }


def screen_job(expressions: dict[str, str], seed: int) -> dict[str, Any]:
    """Screen loss expressions, by name, before any budget is spent on them."""
    return {"entry": ENTRY, "op": "screen", "expressions": expressions, "seed": seed}


def tasks_to_json(tasks: TasksConfig) -> dict[str, Any]:
    plain = asdict(tasks)
    return plain | {name: list(plain[name]) for name in _LISTS}


def tasks_from_json(data: dict[str, Any]) -> TasksConfig:
    return TasksConfig(**(data | {name: tuple(data[name]) for name in _LISTS if name in data}))
