"""Real numerical libraries do their whole work inside the lock-down, on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.containment.supervisor import Completed, Exceeded, Job, JobLimits, Supervisor

ENTRY = "containment_torch"
LIMITS = JobLimits(wall_seconds=60, cpu_seconds=30, memory_bytes=2**29, output_bytes=2**20, silence_seconds=60)


@pytest.fixture(scope="module")
def numerics(make_supervisor: Any) -> Iterator[Supervisor]:
    spec = ZygoteSpec((ENTRY,), path=(Path(__file__).parent / "entries",))
    with make_supervisor(zygotes={"torch": spec}) as supervisor:
        supervisor.prove()
        yield supervisor


def job(op: str) -> Job:
    return Job(op, "torch", ENTRY, {"op": op}, {}, ("weights",), LIMITS)


def test_training_probing_and_linear_algebra_work(numerics: Supervisor) -> None:
    [(_, outcome)] = numerics.run([job("train")])
    assert isinstance(outcome, Completed)
    assert outcome.result["loss"] < 1.3
    assert outcome.result["probe"] > 0.9
    assert outcome.result["singular"] == pytest.approx(8)
    assert set(load(outcome.outputs["weights"])) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_the_same_job_gives_the_same_bytes_in_any_worker(numerics: Supervisor) -> None:
    outcomes = [outcome for _, outcome in numerics.run([job("train"), job("train"), job("train")])]
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    assert len({outcome.outputs["weights"] for outcome in outcomes if isinstance(outcome, Completed)}) == 1


def test_an_allocation_over_the_limit_ends_the_job_by_name(numerics: Supervisor) -> None:
    [(_, outcome)] = numerics.run([job("allocate")])
    assert isinstance(outcome, Exceeded)
    assert outcome.limit == "memory_bytes"
