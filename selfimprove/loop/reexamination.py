"""A kept generation inspected again, with every instrument that there is, contained as before."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.files import make_folder, write_atomic
from selfimprove.archive.ledger import LEDGER_NAME, Entry, read
from selfimprove.archive.records import FINAL
from selfimprove.canonical import canonical
from selfimprove.containment.jobs import JobLimits
from selfimprove.containment.keys import state_dir
from selfimprove.containment.policy import Limits
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Supervisor, ZygoteSpec
from selfimprove.errors import RunError
from selfimprove.genome.genome import Genome
from selfimprove.loop.inspecting import Weights, inspection_job, inspection_of
from selfimprove.loop.manifests import manifest_of
from selfimprove.loop.own_instruments import INSPECTOR
from selfimprove.own_modules import import_folders
from selfimprove.training.protocol import tasks_from_json

FOLDER = "full_inspections"  # beside the ledger's own ones: what is read later is no part of the run
SECONDS = 600.0


def inspect_again(run_dir: Path, generation: int) -> dict[str, Any]:
    """Read a generation's leader with every instrument; the record, which is also written to its ``path``.

    The sequences are those of the run's own inspection.

    Raises:
        RunError: the generation was not inspected, or its checkpoint is gone.
        LedgerError: the ledger was changed.
    """
    entries = read(run_dir / LEDGER_NAME, FileAnchor(state_dir()))
    inspections = {e.body["generation"]: e.body for e in entries if e.kind == "inspection"}  # the leader's comes last
    if generation not in inspections:
        raise RunError.no_generation("inspect generation", generation, "inspected generations", inspections)
    before = inspections[generation]
    index, config = before["index"], entries[0].body["config"]
    kept = next(b for b in _checkpoints(entries) if (b["generation"], b["index"]) == (generation, index))
    proposals = (e.body for e in entries if e.kind == "proposal")
    edited = next((b["parent"] for b in proposals if (b["generation"], b["index"]) == (generation, index)), None)
    parents = [b for b in _checkpoints(entries) if b["genome"] == edited and b["stage"] == FINAL]
    parent = _weights(run_dir, entries, parents[-1]) if parents and (run_dir / parents[-1]["path"]).is_file() else None
    caps = Limits(**config["limits"])
    limits = JobLimits(SECONDS, SECONDS, caps.memory_bytes, 1 << 20, SECONDS)
    child = _weights(run_dir, entries, kept)
    job = inspection_job("inspect", child, parent, before["plan"], None, limits)
    use, own = config["containment"], (*config["tasks"].get("modules", ()), *config["inspection"]["modules"])
    backend = make_backend(use["backend"], use["allow_degraded"], outer_layer=use["outer_layer"])
    zygotes = {"lens": ZygoteSpec((INSPECTOR, *own), search=import_folders(own, Path.cwd()))}
    with Supervisor(zygotes, backend=backend, workers=1, halt_file=None, should_stop=lambda: False) as supervisor:
        [(_, outcome)] = list(supervisor.run([job]))
    path = run_dir / FOLDER / Path(before["path"]).name
    place = {name: before[name] for name in ("generation", "index", "genome", "plan")}
    record = inspection_of(outcome) | place | {"path": path.relative_to(run_dir).as_posix()}
    make_folder(path.parent)
    write_atomic(path, canonical(record) + b"\n")
    return record


def _checkpoints(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    return [dict(entry.body) for entry in entries if entry.kind == "checkpoint"]


def _weights(run_dir: Path, entries: Iterable[Entry], record: dict[str, Any]) -> Weights:
    """What a checkpoint's record and manifest say that it is."""
    genomes = {entry.body["sha256"]: entry.body["genome"] for entry in entries if entry.kind == "genome"}
    tasks = tasks_from_json(manifest_of(run_dir, record)["tasks"])
    return Weights(Genome.from_json(genomes[record["genome"]]), tasks, run_dir / record["path"], record["sha256"])
