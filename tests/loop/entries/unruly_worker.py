"""A training worker that misbehaves for chosen genomes and is the real one for all others.

Which genome does what stands in ``unruly_plan.py`` on the import path: ``PLAN``, from a genome's hash, or from
``<hash>/<training seed>``, to the name of a function of this module. Nothing here reaches beyond its own process.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save
from unruly_plan import PLAN

from selfimprove.archive.files import write_all
from selfimprove.genome.genome import Genome
from selfimprove.nets.cost import memory_shapes, parameter_shapes
from selfimprove.training import worker

State = dict[str, torch.Tensor]
Job = dict[str, Any]


def warm_up() -> None:
    """The real entry warms up for both."""


def run(job: Job, inputs: dict[str, int], outputs: dict[str, int], emit: Callable[[Job], None]) -> Any:
    if job["op"] != "train":
        return worker.run(job, inputs, outputs, emit)
    sha256 = Genome.from_json(job["genome"]).sha256
    keys = (f"{sha256}/{job['seed']}", f"*/{job['seed']}", sha256)
    name = next((PLAN[key] for key in keys if key in PLAN), None)
    if name == "run away":
        recipe = {**job["genome"]["recipe"], "learning_rate": 1e30}
        job = {**job, "genome": {**job["genome"], "recipe": recipe}}
    if name in (None, "run away"):
        return worker.run(job, inputs, outputs, emit)
    if name in DEEDS:
        return DEEDS[name](emit)
    state = _state(job)
    write_all(outputs["weights"], WRITINGS[name](state))
    if "memory" in outputs:
        shapes = memory_shapes(Genome.from_json(job["genome"]).recipe, {k: tuple(t.shape) for k, t in state.items()})
        write_all(outputs["memory"], save({key: torch.zeros(shape) for key, shape in shapes.items()}))
    return {"steps": job["last"], "diverged": False}


def _state(job: Job) -> State:
    tasks = job["tasks"]
    genome = Genome.from_json(job["genome"])
    shapes = parameter_shapes(genome.architecture, tasks["vocab_size"], tasks["context"], genome.heads)
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def _raise(emit: Any) -> None:
    raise RuntimeError("this candidate gives up")


def _segfault(emit: Any) -> None:
    ctypes.string_at(0)


def _exit(emit: Any) -> None:
    os._exit(7)


def _leave(emit: Any) -> None:
    os._exit(0)


def _sleep(emit: Any) -> None:
    time.sleep(600)


def _spin(emit: Any) -> None:
    while True:
        emit({"step": 1})
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass


def _grow(emit: Any) -> None:
    bytearray(1 << 40)


def _babble(emit: Any) -> dict[str, Any]:
    return {f"key{i}": 10**19 for i in range(20_000)} | {"steps": "many", "diverged": "no"}


def _answer_nothing(emit: Any) -> None:
    return None


DEEDS: dict[str, Callable[[Any], Any]] = {
    "raise": _raise,
    "segfault": _segfault,
    "exit": _exit,
    "leave": _leave,
    "sleep": _sleep,
    "spin": _spin,
    "grow": _grow,
    "babble": _babble,
    "answer nothing": _answer_nothing,
}


def _changed(state: State, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    name = sorted(state)[0]
    return save(state | {name: change(state[name]).contiguous()})


WRITINGS: dict[str, Callable[[State], bytes]] = {
    "nothing": lambda state: b"",
    "half of it": lambda state: save(state)[: len(save(state)) // 2],
    "other shapes": lambda state: _changed(state, lambda tensor: tensor.T),
    "too much": lambda state: save(state | {"more": torch.zeros(1)}),
    "not a number": lambda state: _changed(state, lambda tensor: tensor.index_fill(0, torch.tensor([0]), float("nan"))),
    "a pickle": lambda state: pickle.dumps({name: tensor.tolist() for name, tensor in state.items()}),
    "far too much": lambda state: bytes(64 << 20),
    "zeros": save,
    "extreme weights": lambda state: save({name: torch.full_like(t, 3e38) for name, t in state.items()}),
}
