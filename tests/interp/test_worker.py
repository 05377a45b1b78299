"""The inspection worker: the same record as in process, bad jobs refused, and all of it under the real lock-down."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from interp import worker
from interp.bench import Bench, Plan
from interp.checkpoint import load_model
from interp.inspection import INSTRUMENTS, inspect
from selfimprove.containment.jobs import Completed, Crashed, Job, JobLimits
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import ConfigError, InvalidCheckpoint, RunFailed, SandboxUnavailable
from selfimprove.genome.genome import seed_genome
from selfimprove.loop.config import InspectionConfig
from selfimprove.loop.own_instruments import check_registered
from selfimprove.nets.transformer import Transformer, build
from selfimprove.own_modules import import_folders
from selfimprove.tasks.suite import TaskSuite

GENOME = seed_genome()
LIMITS = JobLimits(wall_seconds=60, cpu_seconds=60, memory_bytes=1 << 30, output_bytes=1 << 20, silence_seconds=30)


@pytest.fixture
def checkpoint(model: Transformer, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.torch.save(model.state_dict()))
    return path


@pytest.fixture
def job(suite: TaskSuite, plan: Plan, checkpoint: Path) -> dict[str, Any]:
    # through JSON, as the real job travels: tuples become lists
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    payload = {
        "op": "inspect",
        "genome": GENOME.to_json(),
        "suite": asdict(suite.config),
        "plan": asdict(plan),
        "sha256": sha256,
    }
    travelled: dict[str, Any] = json.loads(json.dumps(payload | {"instruments": None}))
    return travelled


@pytest.fixture
def parent(tmp_path: Path, suite: TaskSuite) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of the same genome, trained on half of the context, and how a job describes it."""
    context = suite.config.context // 2
    model = build(GENOME.architecture, vocab_size=suite.config.vocab_size, context=context, seed=1)
    data = safetensors.torch.save(model.state_dict())
    path = tmp_path / "parent.safetensors"
    path.write_bytes(data)
    return path, {"genome": GENOME.to_json(), "context": context, "sha256": hashlib.sha256(data).hexdigest()}


def call(job: dict[str, Any], path: Path, parent: Path | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        files = {"checkpoint": path} | ({"parent": parent} if parent else {})
        inputs = {name: stack.enter_context(file.open("rb")).fileno() for name, file in files.items()}
        return worker.run(job, inputs, {}, events.append), events


def test_a_job_gives_the_record_of_an_inspection_in_process(
    job: dict[str, Any], checkpoint: Path, model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    record, events = call(job, checkpoint)
    assert record == inspect(model, suite, plan).to_json()
    assert [e["instrument"] for e in events] == ["checkpoint", *INSTRUMENTS]
    assert events[-1]["verdict"] == record["instruments"][events[-1]["instrument"]]["verdict"]


def test_a_parent_is_compared_where_the_job_has_one(
    job: dict[str, Any], checkpoint: Path, parent: tuple[Path, dict[str, Any]]
) -> None:
    path, described = parent
    alone, _ = call(job | {"instruments": ["comparison"]}, checkpoint)
    assert alone["instruments"]["comparison"]["verdict"] == "not_applicable"
    beside, _ = call(job | {"instruments": ["comparison"], "parent": described}, checkpoint, path)
    assert beside["instruments"]["comparison"]["verdict"] == "read", beside
    assert len(beside["summary"]["comparison"]["cka"]) == 3


@pytest.mark.parametrize("which", ["checkpoint", "parent"])
def test_weights_other_than_those_that_were_meant_are_refused(
    which: str, job: dict[str, Any], checkpoint: Path, parent: tuple[Path, dict[str, Any]]
) -> None:
    path, described = parent
    swapped = {"checkpoint": checkpoint, "parent": path}[which]
    data = bytearray(swapped.read_bytes())
    data[-1] ^= 1
    swapped.write_bytes(bytes(data))
    with pytest.raises(InvalidCheckpoint, match="hash"):
        call(job | {"parent": described}, checkpoint, path)


def test_a_parent_of_another_architecture_is_refused(
    job: dict[str, Any], checkpoint: Path, parent: tuple[Path, dict[str, Any]]
) -> None:
    path, described = parent
    wider = described["genome"] | {"architecture": described["genome"]["architecture"] | {"width": 96}}
    with pytest.raises(InvalidCheckpoint, match="shapes"):
        call(job | {"parent": described | {"genome": wider}}, checkpoint, path)


def test_the_registered_instruments_can_be_listed() -> None:
    assert worker.run({"op": "list"}, {}, {}, lambda event: None) == {"instruments": list(INSTRUMENTS)}


def test_only_the_named_instruments_run(job: dict[str, Any], checkpoint: Path) -> None:
    record, _ = call(job | {"instruments": ["logit_lens"]}, checkpoint)
    assert list(record["instruments"]) == ["readability", "logit_lens"]


def test_an_unknown_operation_is_refused(job: dict[str, Any], checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="op=inspect"):
        call(job | {"op": "train"}, checkpoint)


def test_an_unknown_plan_key_lists_the_known_ones(job: dict[str, Any], checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=r"sead.*train, test, control"):
        call(job | {"plan": job["plan"] | {"sead": 1}}, checkpoint)


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "type", "noise"])
def test_weights_of_another_architecture_are_refused(damage: str, model: Transformer) -> None:
    state = dict(model.state_dict())
    name = next(iter(state))
    if damage == "missing":
        del state[name]
    elif damage == "extra":
        state["another"] = state[name].clone()
    elif damage == "shape":
        state[name] = state[name][:-1].contiguous()
    elif damage == "type":
        state[name] = state[name].double()
    data = b"no safetensors" if damage == "noise" else safetensors.torch.save(state)
    with pytest.raises(InvalidCheckpoint):
        load_model(data, GENOME, vocab_size=model.cfg.d_vocab, context=model.cfg.n_ctx)


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    try:
        backend = make_backend("lockdown")
    except SandboxUnavailable as error:
        pytest.skip(f"this machine cannot contain a worker: {error}")
    own = ("own_instruments.norms",)
    zygotes = {"lens": ZygoteSpec(("interp.worker", *own), search=import_folders(own, Path(__file__).parent))}
    with Supervisor(zygotes, backend=backend, workers=1, halt_file=None, should_stop=lambda: False) as supervisor:
        supervisor.prove("lens")
        yield supervisor


@pytest.mark.slow
def test_a_locked_down_worker_gives_the_same_record_twice(
    supervisor: Supervisor, job: dict[str, Any], checkpoint: Path
) -> None:
    jobs = [Job(f"inspect/{i}", "lens", "interp.worker", job, {"checkpoint": checkpoint}, (), LIMITS) for i in range(2)]
    outcomes = [outcome for _, outcome in supervisor.run(jobs)]
    records = [outcome.result for outcome in outcomes if isinstance(outcome, Completed)]
    assert len(records) == 2, outcomes
    assert records[0] == records[1]
    assert records[0]["status"] == "complete"


@pytest.mark.slow
def test_an_instrument_of_ones_own_joins_the_contained_worker(
    supervisor: Supervisor, job: dict[str, Any], checkpoint: Path, model: Transformer, suite: TaskSuite, plan: Plan
) -> None:
    asked = job | {"instruments": ["stream_norms", "constraint"]}
    one = Job("inspect/own", "lens", "interp.worker", asked, {"checkpoint": checkpoint}, (), LIMITS)
    [(_, outcome)] = list(supervisor.run([one]))
    assert isinstance(outcome, Completed), outcome
    assert list(outcome.result["instruments"]) == ["readability", "stream_norms", "constraint"]
    expected = Bench(model, suite, plan).task("test", "mqar").residual.norm(dim=-1).mean((1, 2)).tolist()
    assert outcome.result["summary"]["stream_norms"]["mqar"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_an_instrument_that_no_module_registers_is_named(supervisor: Supervisor) -> None:
    asked = InspectionConfig(also=("stream_norms",), modules=("own_instruments.norms",))
    check_registered(supervisor, asked, LIMITS)
    with pytest.raises(RunFailed, match=r"got stream_norm; allowed: .*comparison.*own_instruments\.norms"):
        check_registered(supervisor, replace(asked, also=("stream_norm",)), LIMITS)


@pytest.mark.slow
def test_a_broken_checkpoint_costs_only_its_own_worker(
    supervisor: Supervisor, job: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(checkpoint.read_bytes()[:-100])
    sha256 = hashlib.sha256(broken.read_bytes()).hexdigest()
    jobs = [
        Job(path.stem, "lens", "interp.worker", payload, {"checkpoint": path}, (), LIMITS)
        for path, payload in ((broken, job | {"sha256": sha256}), (checkpoint, job))
    ]
    outcomes = dict(supervisor.run(jobs))
    crash = outcomes[0]
    assert isinstance(crash, Crashed)
    assert "InvalidCheckpoint" in crash.reason
    assert isinstance(outcomes[1], Completed)
