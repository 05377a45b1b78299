"""Entry of the sandboxed inspection worker: one job in, one JSON record out.

Runs locked down: no network, no fork, no threads, no files opened for writing. So nothing is imported here but the
standard library; `warm_up` imports the rest, in the environment that keeps the libraries from starting threads, and
runs one small inspection; a forked child only ever calls `run`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from selfimprove.archive.files import read_all
from selfimprove.errors import ConfigError, InvalidCheckpoint

if TYPE_CHECKING:
    from selfimprove.nets.transformer import Transformer

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
    inspect(model, suite, Plan(train=0, test=1, control=2, sequences=24, rows=64), parent=model)


def run(
    job: dict[str, Any],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
    emit: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Inspect one checkpoint, beside its parent's where that is given.

    Args:
        job: ``{op: "inspect", genome, suite, plan, instruments, sha256}``: the genome's JSON, the task suite's config,
            the fields of `interp.bench.Plan`, instrument names or null for all, and the hash that the weights must
            have. ``parent``, where it is there: ``{genome, context, sha256}`` of the model that the genome was edited
            from. Or ``{op: "list"}``.
        inputs: ``checkpoint``, and ``parent`` with a job that has one: descriptors of safetensors files, read-only.
        outputs: unused; the record is the return value.
        emit: called with ``{instrument, verdict}`` after each instrument.

    Returns:
        `Inspection.to_json()`; to ``list`` the ``instruments`` that are registered, by name.

    Raises:
        ConfigError: an unknown operation, plan key or instrument.
        InvalidGenome, InvalidCheckpoint: untrusted input that is not what it should be.
    """
    if job.get("op") not in ("inspect", "list"):
        raise ConfigError("inspection job", job.get("op"), "op=inspect, op=list")

    from interp.bench import Plan
    from interp.inspection import INSTRUMENTS, inspect
    from selfimprove.tasks.suite import TaskSuite
    from selfimprove.training.gpu import cap_memory
    from selfimprove.training.protocol import tasks_from_json

    if job["op"] == "list":
        return {"instruments": list(INSTRUMENTS)}
    cap_memory(job)
    suite = TaskSuite(tasks_from_json(job["suite"]))
    size = {"vocab_size": suite.config.vocab_size, "context": suite.config.context}
    model = _load(inputs["checkpoint"], job, **size)
    emit({"instrument": "checkpoint", "verdict": "read"})
    parent = None
    if (described := job.get("parent")) is not None:
        parent = _load(inputs["parent"], described, **size | {"context": described["context"]})
    inspection = inspect(
        model,
        suite,
        Plan.from_json(job["plan"]),
        parent=parent,
        names=job.get("instruments"),
        on_verdict=lambda name, verdict: emit({"instrument": name, "verdict": verdict.verdict}),
    )
    return inspection.to_json()


def _load(descriptor: int, described: Mapping[str, Any], *, vocab_size: int, context: int) -> Transformer:
    """The model in a checkpoint file, if it is the one that is described: its ``genome`` and its ``sha256``.

    The hash is of the bytes that are loaded, so that a file which was replaced after the order was given is refused.
    """
    from interp.checkpoint import load_model
    from selfimprove.genome.genome import Genome

    if (size := os.fstat(descriptor).st_size) > MAX_CHECKPOINT_BYTES:
        raise InvalidCheckpoint("read checkpoint", size, f"at most {MAX_CHECKPOINT_BYTES} bytes")
    data = read_all(descriptor)
    if (found := hashlib.sha256(data).hexdigest()) != described["sha256"]:
        raise InvalidCheckpoint("hash of the checkpoint", found, described["sha256"], "run: selfimprove audit")
    return load_model(data, Genome.from_json(described["genome"]), vocab_size=vocab_size, context=context)
