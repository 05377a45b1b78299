"""The untrusted child that trains, scores and screens. It knows its job and its open descriptors, nothing else.

Imported once by a zygote, warmed up with one whole step, and run once in each forked child.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load, save

from selfimprove.archive.files import read_all, write_all
from selfimprove.genome.expression import parse
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.nets.screening import screen
from selfimprove.nets.transformer import build
from selfimprove.seeds import derive
from selfimprove.tasks.evaluator import evaluate
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.data import training_batches
from selfimprove.training.engine import BatchSource, Snapshot, train
from selfimprove.training.gpu import cap_memory
from selfimprove.training.protocol import MEMORY, WEIGHTS, tasks_from_json

PULSE_SECONDS = 1.0

Emit = Callable[[dict[str, Any]], None]
Descriptors = dict[str, int]


def warm_up() -> None:
    """Pay for lazy imports and first calls before the fork: a step of every optimizer, one screen, one evaluation."""
    torch.set_num_threads(1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA refuses the next line's promise
    torch.set_deterministic_debug_mode("error")  # what use_deterministic_algorithms sets, without a second of imports
    suite = TaskSuite(TasksConfig(eval_sequences=3))
    vocab_size, context = suite.config.vocab_size, suite.config.context
    for optimizer in ("adamw", "sgd", "lion", "muon"):
        genome = seed_genome(batch=8)
        genome = replace(genome, recipe=replace(genome.recipe, optimizer=optimizer))
        source = training_batches(suite, genome.recipe, seed=0)
        train(genome, source, vocab_size=vocab_size, context=context, steps=1, seed=0, constraint_weight=1.0)
    model = build(genome.architecture, vocab_size=vocab_size, context=context, seed=0)
    evaluate(model, suite, split="search", seed=0)
    screen(genome.objective.expression, 0)


def run(job: dict[str, Any], inputs: Descriptors, outputs: Descriptors, emit: Emit) -> dict[str, Any]:
    """Do one job; see ``selfimprove.training.protocol`` for the ops."""
    torch.set_num_threads(1)
    cap_memory(job)
    return _OPS[job["op"]](job, inputs, outputs, emit)


def _train(job: dict[str, Any], inputs: Descriptors, outputs: Descriptors, emit: Emit) -> dict[str, Any]:
    genome, tasks = Genome.from_json(job["genome"]), tasks_from_json(job["tasks"])
    seed, device = int(job["seed"]), str(job["device"])
    batches = training_batches(TaskSuite(tasks), genome.recipe, seed=derive(seed, "data"), device=device)
    result = train(
        genome,
        _heard(batches, emit),
        vocab_size=tasks.vocab_size,
        context=tasks.context,
        steps=int(job["steps"]),
        seed=derive(seed, "init"),
        start=_start(int(job["first"]), inputs),
        last=int(job["last"]),
        device=device,
        constraint_weight=tasks.constraint_weight,
        on_step=lambda step, loss: emit({"step": step, "loss": loss if math.isfinite(loss) else None}),
    )
    if not result.diverged:
        write_all(outputs[WEIGHTS], save(result.end.state))
        if MEMORY in outputs:
            write_all(outputs[MEMORY], save(result.end.memory))
    return {"steps": result.end.step, "diverged": result.diverged}


def _start(first: int, inputs: Descriptors) -> Snapshot | None:
    """What the stage before left, if there was one."""
    return Snapshot(first, *(load(read_all(inputs[name])) for name in (WEIGHTS, MEMORY))) if first else None


def _heard(batches: BatchSource, emit: Emit) -> BatchSource:
    """The same batches, with a sign of life at most once a second: looking at the loss that often would slow CUDA."""
    last = time.monotonic()

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal last
        if time.monotonic() - last > PULSE_SECONDS:
            last = time.monotonic()
            emit({"step": step})
        return batches(step)

    return next_batch


def _evaluate(job: dict[str, Any], inputs: Descriptors, outputs: Descriptors, emit: Emit) -> dict[str, Any]:
    genome, tasks = Genome.from_json(job["genome"]), tasks_from_json(job["tasks"])
    model = build(genome.architecture, vocab_size=tasks.vocab_size, context=tasks.context, seed=0, heads=genome.heads)
    model.load_state_dict(load(read_all(inputs[WEIGHTS])))
    model.to(job["device"])
    score = evaluate(
        model,
        TaskSuite(tasks),
        split=job["split"],
        seed=int(job["seed"]),
        device=job["device"],
        on_chunk=lambda: emit({"op": "evaluate"}),
    )
    return score.to_json()


def _screen(job: dict[str, Any], inputs: Descriptors, outputs: Descriptors, emit: Emit) -> dict[str, Any]:
    results = {}
    for name, text in job["expressions"].items():
        try:
            result = screen(parse(text), int(job["seed"]))
            results[name] = {"ok": result.ok, "reason": result.reason, "fingerprint": result.fingerprint}
        except Exception as error:  # a loss that breaks the screen costs its proposal, not the others
            results[name] = {"ok": False, "reason": f"{type(error).__name__}: {error}"[:200], "fingerprint": ""}
        emit({"screened": name})
    return {"results": results}


_OPS = {"train": _train, "evaluate": _evaluate, "screen": _screen}
