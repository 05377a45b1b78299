"""A kept generation trained again, contained as before: the same weights, or what differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.checkpoint import tensors_sha256
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.containment.keys import state_dir
from selfimprove.containment.policy import Limits
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Completed, Job, JobLimits, Supervisor, ZygoteSpec
from selfimprove.errors import RunError
from selfimprove.genome.genome import Genome
from selfimprove.loop.manifests import manifest_of
from selfimprove.loop.slots import describe
from selfimprove.loop.versions import versions
from selfimprove.own_modules import import_folders
from selfimprove.training.protocol import ENTRY, WEIGHTS, TrainJob, tasks_from_json


@dataclass(frozen=True)
class Reproduction:
    """What training a kept checkpoint again gave."""

    identical: bool
    weights_sha256: str
    expected: str
    differences: tuple[str, ...]


def reproduce(run_dir: Path, generation: int) -> Reproduction:
    """Train the kept candidate of a generation again, contained as before, and compare the weights.

    Raises:
        RunError: nothing was kept in that generation, or the worker failed.
    """
    entries = read(run_dir / LEDGER_NAME, FileAnchor(state_dir()))
    kept = {e.body["generation"]: e.body for e in entries if e.kind == "checkpoint"}
    if generation not in kept:
        raise RunError.no_generation("reproduce generation", generation, "generations with a checkpoint", kept)
    body, first = kept[generation], entries[0].body
    config = first["config"]
    genomes = {e.body["sha256"]: e.body["genome"] for e in entries if e.kind == "genome"}
    manifest = manifest_of(run_dir, body)
    genome, tasks = Genome.from_json(genomes[body["genome"]]), tasks_from_json(manifest["tasks"])
    job = TrainJob(genome, tasks, manifest["steps"], body["seed"], manifest["device"], last=manifest["last"])
    use, cuda = config["containment"], manifest["device"] == "cuda"
    backend = make_backend(
        use["backend"], use["allow_degraded"], device=manifest["device"], outer_layer=use["outer_layer"]
    )
    caps = Limits(**config["limits"])
    limits = JobLimits(600.0, 600.0, caps.memory_bytes, 1 << 28, 60.0, caps.gpu_memory_bytes)
    search = import_folders(tasks.modules, Path.cwd())
    with Supervisor(
        {"train": ZygoteSpec((ENTRY, *tasks.modules), device="cuda" if cuda else "cpu", fork=not cuda, search=search)},
        backend=backend, workers=1, halt_file=None, should_stop=lambda: False,
    ) as supervisor:  # fmt: skip
        [(_, outcome)] = list(supervisor.run([Job("reproduce", "train", ENTRY, job.to_json(), {}, (WEIGHTS,), limits)]))
    if not isinstance(outcome, Completed):
        raise RunError("reproduce generation", generation, describe(outcome)[1], "see selfimprove audit")
    found = tensors_sha256(outcome.outputs[WEIGHTS])
    here = {**versions(), "device": manifest["device"]}
    there = {**manifest["versions"], "device": manifest["device"]}
    differences = tuple(f"{k}: {there[k]} then, {here.get(k)} now" for k in there if there[k] != here.get(k))
    if found != manifest["tensors_sha256"] and not differences:
        differences = ("versions agree: another processor, or a change of the code",)
    return Reproduction(found == manifest["tensors_sha256"], found, manifest["tensors_sha256"], differences)
