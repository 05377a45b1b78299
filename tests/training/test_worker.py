"""The training worker in this very process, uncontained: the device it is told, stages, signs of life."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load

from selfimprove.archive.files import read_all, write_all
from selfimprove.genome.genome import seed_genome
from selfimprove.tasks.suite import TasksConfig
from selfimprove.training import engine, worker
from selfimprove.training.gpu import GPU_MEMORY
from selfimprove.training.protocol import MEMORY, WEIGHTS, EvaluateJob, TrainJob, screen_job

STEPS = 12
GIB = 2**30
TASKS = TasksConfig(eval_sequences=24)
OPTIMIZERS = ("adamw", "lion", "muon", "sgd")
ON_EACH_DEVICE = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.cuda,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU on this machine"),
            ],
        ),
    ],
)


@pytest.fixture(scope="module", autouse=True)
def _as_in_a_zygote() -> Iterator[None]:
    """Warm up as a zygote does, deterministic algorithms included; give the other tests their settings back."""
    threads = torch.get_num_threads()
    worker.warm_up()
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_num_threads(threads)


def job(device: str, optimizer: str = "adamw", **stage: Any) -> dict[str, Any]:
    genome = seed_genome(batch=8)
    genome = replace(genome, recipe=replace(genome.recipe, optimizer=optimizer, learning_rate=1e-3))
    return TrainJob(genome, TASKS, STEPS, 0, device, **stage).to_json()


def memory_file(data: bytes = b"") -> int:
    descriptor = os.memfd_create("test")
    write_all(descriptor, data)
    return descriptor


def run(
    job: dict[str, Any], given: dict[str, bytes] | None = None, wanted: tuple[str, ...] = (WEIGHTS,)
) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """What a job writes, and the events it emits."""
    inputs = {name: memory_file(data) for name, data in (given or {}).items()}
    outputs = {name: memory_file() for name in wanted}
    events: list[dict[str, Any]] = []
    try:
        result = worker.run(job, inputs, outputs, events.append)
        assert result.get("diverged") is not True
        return {name: read_all(descriptor) for name, descriptor in outputs.items()}, events
    finally:
        for descriptor in (*inputs.values(), *outputs.values()):
            os.close(descriptor)


@ON_EACH_DEVICE
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parameters_batches_loss_and_optimizer_are_on_the_device_uncontained(
    device: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[str, str]] = set()
    step, batches = engine._step, worker.training_batches

    def watched_step(parameters: Any, optimizers: Any, loss: Any, *rest: Any) -> None:
        step(parameters, optimizers, loss, *rest)
        seen.add(("loss", loss.device.type))
        seen.update(("parameter", p.device.type) for p in parameters)
        seen.update(("gradient", p.grad.device.type) for p in parameters)
        for one in optimizers:
            states = [value for state in one.state.values() for value in state.values() if torch.is_tensor(value)]
            seen.update(("optimizer", value.device.type) for value in states if value.ndim)

    def watched_batches(*given: Any, **named: Any) -> Any:
        source = batches(*given, **named)

        def next_batch(number: int) -> Any:
            tensors = source(number)
            seen.update(("batch", tensor.device.type) for tensor in tensors)
            return tensors

        return next_batch

    monkeypatch.setattr(engine, "_step", watched_step)
    monkeypatch.setattr(worker, "training_batches", watched_batches)
    run(job(device, optimizer))
    assert seen == {(what, device) for what in ("loss", "parameter", "gradient", "optimizer", "batch")}


@ON_EACH_DEVICE
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_job_in_stages_ends_where_it_ends_in_one_go_uncontained(device: str, optimizer: str) -> None:
    whole, _ = run(job(device, optimizer))
    part, _ = run(job(device, optimizer, last=4), wanted=(WEIGHTS, MEMORY))
    rest, _ = run(job(device, optimizer, first=4), given=part)
    expected, found = load(whole[WEIGHTS]), load(rest[WEIGHTS])
    tolerance = 0.0 if device == "cpu" else 1e-5  # equal bits are promised on the CPU only
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=0.0, atol=tolerance) for name in expected)


@ON_EACH_DEVICE
def test_a_score_is_the_same_wherever_it_is_taken_uncontained(device: str) -> None:
    weights, _ = run(job("cpu"))
    genome = seed_genome(batch=8)
    found = []
    for place in ("cpu", device):
        descriptor = memory_file(weights[WEIGHTS])
        payload = EvaluateJob(genome, TASKS, "search", 0, place).to_json()
        found.append(worker.run(payload, {WEIGHTS: descriptor}, {}, lambda event: None))
        os.close(descriptor)
    assert found[0]["skill"] == pytest.approx(found[1]["skill"], abs=1e-4)


def test_training_and_scoring_give_signs_of_life_between_looks_at_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PULSE_SECONDS", 0.0)
    weights, events = run(job("cpu"))
    assert [event["step"] for event in events if "loss" not in event] == list(range(STEPS))
    payload = EvaluateJob(seed_genome(batch=8), TASKS, "search", 0, "cpu").to_json()
    _, events = run(payload, given=weights, wanted=())
    assert len(events) == 2 * len(TASKS.families)  # a pass over the sequences and one over the halt prompts


def test_a_quick_training_says_no_more_than_it_must() -> None:
    _, events = run(job("cpu"))
    assert [event["step"] for event in events if "loss" in event] == [10, STEPS]


@pytest.mark.parametrize(("limit", "share"), [(GIB, 0.25), (8 * GIB, 1.0)])
def test_the_allocator_of_a_gpu_worker_is_capped_before_its_job_begins(
    limit: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    capped: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=4 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", capped.append)
    for told in ({GPU_MEMORY: limit}, {}):
        worker.run(screen_job({}, 0) | told, {}, {}, lambda event: None)
    assert capped == [share]
