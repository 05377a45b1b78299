"""Entry of the sandboxed inspection worker: one job in, one JSON record out.

Runs locked down: no network, no fork, no threads, no files opened for writing. So nothing is imported here but the
standard library; `warm_up` imports the rest, in the environment that keeps the libraries from starting threads, and
runs one small inspection; a forked child only ever calls `run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from selfimprove.archive.files import read_all
from selfimprove.errors import ConfigError, InvalidCheckpoint

MAX_CHECKPOINT_BYTES = 1 << 30


def warm_up() -> None:
    """Import everything and run one whole inspection, so that a job does neither import nor first-call work."""
    import torch

    torch.set_num_threads(1)

    from interp.bench import Plan
    from interp.inspection import inspect
    from selfimprove.genome.genome import seed_genome
    from selfimprove.nets.transformer import build
    from selfimprove.tasks.suite import TasksConfig, TaskSuite

    suite = TaskSuite(TasksConfig())
    model = build(seed_genome().architecture, vocab_size=suite.config.vocab_size, context=suite.config.context, seed=0)
    inspect(model, suite, Plan(train=0, test=1, control=2, sequences=24, rows=64))


def run(
    job: dict[str, Any],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
    emit: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Inspect one checkpoint.

    Args:
        job: ``{op: "inspect", genome, suite, plan, instruments}``: the genome's JSON, the task suite's config, the
            fields of `interp.bench.Plan`, and instrument names or null for all.
        inputs: ``checkpoint``: descriptor of a safetensors file, read-only.
        outputs: unused; the record is the return value.
        emit: called with ``{instrument, verdict}`` after each instrument.

    Returns:
        `Inspection.to_json()`.

    Raises:
        ConfigError: an unknown operation, plan key or instrument.
        InvalidGenome, InvalidCheckpoint: untrusted input that is not what it should be.
    """
    if job.get("op") != "inspect":
        raise ConfigError("inspection job", job.get("op"), "op=inspect")

    from interp.bench import Plan
    from interp.checkpoint import load_model
    from interp.inspection import inspect
    from selfimprove.genome.genome import Genome
    from selfimprove.tasks.suite import TaskSuite
    from selfimprove.training.gpu import cap_memory
    from selfimprove.training.protocol import tasks_from_json

    cap_memory(job)
    suite = TaskSuite(tasks_from_json(job["suite"]))
    genome = Genome.from_json(job["genome"])
    descriptor = inputs["checkpoint"]
    if (size := os.fstat(descriptor).st_size) > MAX_CHECKPOINT_BYTES:
        raise InvalidCheckpoint("read checkpoint", size, f"at most {MAX_CHECKPOINT_BYTES} bytes")
    data = read_all(descriptor)
    emit({"instrument": "checkpoint", "verdict": "read"})
    model = load_model(data, genome, vocab_size=suite.config.vocab_size, context=suite.config.context)
    inspection = inspect(
        model,
        suite,
        Plan.from_json(job["plan"]),
        names=job.get("instruments"),
        on_verdict=lambda name, verdict: emit({"instrument": name, "verdict": verdict.verdict}),
    )
    return inspection.to_json()
