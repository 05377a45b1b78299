"""The job of an inspection, and what is believed of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfimprove.canonical import canonical
from selfimprove.containment.jobs import Completed, Job, JobLimits, Outcome
from selfimprove.errors import LedgerError
from selfimprove.genome.genome import Genome
from selfimprove.loop.own_instruments import INSPECTOR
from selfimprove.loop.slots import describe
from selfimprove.tasks.suite import TasksConfig
from selfimprove.training.protocol import tasks_to_json


@dataclass(frozen=True)
class Weights:
    """A checkpoint on the disk, untrusted: what it should be, and the hash that the worker will ask of it."""

    genome: Genome
    tasks: TasksConfig
    path: Path
    sha256: str


def inspection_job(
    key: str,
    child: Weights,
    parent: Weights | None,
    plan: Mapping[str, Any],
    instruments: Sequence[str] | None,
    limits: JobLimits,
) -> Job:
    """Read a checkpoint beside its parent's, on its own tasks; ``instruments`` None: all that there are."""
    payload: dict[str, Any] = {
        "entry": INSPECTOR,
        "op": "inspect",
        "genome": child.genome.to_json(),
        "sha256": child.sha256,
        "suite": tasks_to_json(child.tasks),
        "plan": dict(plan),
        "instruments": None if instruments is None else list(instruments),
    }
    inputs = {"checkpoint": child.path}
    if parent is not None:
        described = {"genome": parent.genome.to_json(), "context": parent.tasks.context, "sha256": parent.sha256}
        payload, inputs = payload | {"parent": described}, inputs | {"parent": parent.path}
    return Job(key, "lens", INSPECTOR, payload, inputs, (), limits)


def inspection_of(outcome: Outcome) -> dict[str, Any]:
    """What an inspection worker has found; an answer that is none is a failed inspection with its reason."""
    answer = readable(outcome.result) if isinstance(outcome, Completed) else None
    if answer is not None:
        return answer
    reason = describe(outcome)[1] or "the answer has not the form of an inspection"
    return {"status": "failed", "instruments": {}, "summary": {}, "coverage": 0.0, "reason": reason}


def readable(answer: dict[str, Any]) -> dict[str, Any] | None:
    """An inspection worker's answer, reduced to what an inspection consists of; None where it has not that form.

    The worker holds a checkpoint that is not trusted: it may add no field to a record, nor end the run with one that
    the ledger cannot hold.
    """
    found = {name: answer.get(name) for name in ("schema", "status", "coverage", "instruments", "summary")}
    status, coverage, instruments = found["status"], found["coverage"], found["instruments"]
    if not (isinstance(status, str) and isinstance(coverage, int | float) and isinstance(found["summary"], dict)):
        return None
    if not (isinstance(instruments, dict) and all(map(_is_verdict, instruments.values()))):
        return None
    try:
        canonical(found)
    except LedgerError:
        return None
    return found


def _is_verdict(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("verdict", "reason"))
