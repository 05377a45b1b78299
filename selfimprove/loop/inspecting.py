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

MOST_BYTES = 1 << 18  # of an inspection in a record; a default one has 8 KiB


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
    reason = describe(outcome)[1]
    if isinstance(outcome, Completed):
        try:
            return readable(outcome.result)
        except ValueError as error:
            reason = str(error)
    return {"status": "failed", "instruments": {}, "summary": {}, "coverage": 0.0, "reason": reason}


def readable(answer: dict[str, Any]) -> dict[str, Any]:
    """An inspection worker's answer, reduced to what an inspection consists of.

    The worker holds a checkpoint that is not trusted: it may add no field to a record, nor end the run with one that
    the ledger cannot hold, nor fill the disk.

    Raises:
        ValueError: it has not that form, or is larger than ``MOST_BYTES``.
    """
    found = {name: answer.get(name) for name in ("schema", "status", "coverage", "instruments", "summary")}
    status, coverage, instruments = found["status"], found["coverage"], found["instruments"]
    if not (
        isinstance(status, str)
        and isinstance(coverage, int | float)
        and isinstance(found["summary"], dict)
        and isinstance(instruments, dict)
        and all(map(_is_verdict, instruments.values()))
    ):
        raise ValueError("the answer has not the form of an inspection")
    try:
        size = len(canonical(found))
    except LedgerError as error:
        raise ValueError("the answer has not the form of an inspection") from error
    if size > MOST_BYTES:
        raise ValueError(f"the answer of the instruments has {size} bytes; allowed: {MOST_BYTES}")
    return found


def _is_verdict(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("verdict", "reason"))
