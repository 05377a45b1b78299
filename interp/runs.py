"""Open a run folder and load any generation's checkpoint as a hooked model.

Reads the ledger's lines as they are: its chain and signatures are `selfimprove audit`'s business. What is loaded is
checked against the hash that the ledger gives for it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.bench import Bench, Plan
from interp.checkpoint import load_model
from interp.hooked import HookedModel, to_hooked
from selfimprove.archive.records import LEDGER_NAME, records
from selfimprove.errors import InvalidCheckpoint, RunError
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer
from selfimprove.seeds import derive
from selfimprove.tasks.suite import TaskSuite
from selfimprove.training.protocol import tasks_from_json

EXAMPLES = 8  # sequences of each family in `Generation.tokens`


@dataclass(frozen=True)
class Generation:
    """One generation's leading candidate, ready to be read.

    Attributes:
        run_dir: the run folder.
        number: the generation.
        genome: what the model was built from.
        edits: what its proposal changed in its parent; empty for the seed genome of generation 0.
        promoted: what the gate decided; None where it has not, as for the seed genome.
        record: its ``checkpoint`` record in the ledger.
        inspection: its ``inspection`` record, or None if it was never inspected.
        network: the trained model as it trained (fused path).
        suite: the run's task suite.
        seed: root of the seeds of its examples.
    """

    run_dir: Path
    number: int
    genome: Genome
    edits: tuple[str, ...]
    promoted: bool | None
    record: dict[str, Any]
    inspection: dict[str, Any] | None
    network: Transformer
    suite: TaskSuite
    seed: int

    def __str__(self) -> str:
        """One line: which generation, which genome, what made it, what became of it."""
        fate = {None: "not up for promotion", True: "promoted", False: "not promoted"}[self.promoted]
        blocks = ", ".join(f"{block.mixer} and {block.channel}" for block in self.genome.architecture.blocks)
        read = "not inspected" if self.inspection is None else f"inspection {self.inspection['status']}"
        made = f"; edits: {', '.join(self.edits)}" if self.edits else ""
        where = f"generation {self.number} of {self.run_dir}, genome {self.genome.short}"
        return f"{where} (blocks: {blocks}): {fate}, {read}{made}"

    @cached_property
    def model(self) -> HookedModel:
        """The hooked copy."""
        return to_hooked(self.network)

    @cached_property
    def tokens(self) -> Int[Tensor, "batch pos"]:
        """A few sequences of every task family, one family after the other."""
        return torch.cat([self.examples(family) for family in self.suite.families])

    def examples(self, family: str, count: int = EXAMPLES) -> Int[Tensor, "batch pos"]:
        """``count`` sequences of one family, the same on every call."""
        return torch.tensor(self.suite.batch("probe", family, count, derive(self.seed, "examples", family)).tokens)

    def bench(self, plan: Plan | None = None) -> Bench:
        """The model on a bench, for instruments; the default plan is derived from the run's seed."""
        if plan is None:
            train, test, control = (derive(self.seed, "bench", part) for part in ("train", "test", "control"))
            plan = Plan(train, test, control)
        return Bench(self.network, self.suite, plan)


def load_generation(run_dir: str | Path, generation: int) -> Generation:
    """Load the checkpoint that a run kept for one generation.

    Raises:
        RunError: no such run, a ledger that is no JSON lines, or no checkpoint for that generation.
        InvalidCheckpoint: a file that is not what the ledger says it is.
    """
    run_dir = Path(run_dir)
    found = ledger(run_dir)
    run = _last(found, "run", lambda body: True)
    if run is None:
        raise RunError("open run", str(run_dir), "a ledger that begins with a run record")
    record = _last(found, "checkpoint", lambda body: body["generation"] == generation)
    if record is None:
        kept = sorted({body["generation"] for kind, body in found if kind == "checkpoint"})
        raise RunError("load generation", generation, f"generations with a checkpoint: {kept}")
    genome = _genome(found, run, record["genome"])
    manifest = json.loads(_checked(run_dir, record["manifest"], record["manifest_sha256"]))
    suite = TaskSuite(tasks_from_json(manifest["tasks"]))
    data = _checked(run_dir, record["path"], record["sha256"])
    network = load_model(data, genome, vocab_size=suite.config.vocab_size, context=suite.config.context)

    def same(body: dict[str, Any]) -> bool:
        return (body["generation"], body["index"]) == (generation, record["index"])

    inspection, proposal, decision = (_last(found, kind, same) for kind in ("inspection", "proposal", "decision"))
    return Generation(
        run_dir=run_dir,
        number=generation,
        genome=genome,
        edits=tuple(proposal["edits"]) if proposal else (),
        promoted=decision["promoted"] if decision else None,
        record=record,
        inspection=inspection,
        network=network,
        suite=suite,
        seed=run["root_seed"],
    )


def latest_run(start: str | Path = ".") -> Path:
    """The newest run: ``runs/latest`` in ``start`` or the nearest folder above it.

    Raises:
        RunError: there is none.
    """
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "runs" / "latest" / LEDGER_NAME).is_file():
            return (folder / "runs" / "latest").resolve()
    raise RunError("find the latest run", str(start), "a folder in or under one with runs/latest", "make one: make run")


def generations(run_dir: str | Path) -> tuple[int, ...]:
    """Generations of a run that have a checkpoint, in order."""
    return tuple(sorted({body["generation"] for kind, body in ledger(Path(run_dir)) if kind == "checkpoint"}))


def ledger(run_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """``(kind, body)`` of every record of a run, in order, unchecked.

    Raises:
        RunError: no such run, or a ledger that is no JSON lines.
    """
    try:
        return list(records(run_dir))
    except OSError as error:
        raise RunError(
            "open run", str(run_dir), f"a folder with {LEDGER_NAME}", "list the runs with: ls runs/*"
        ) from error


def _last(found: list[tuple[str, dict[str, Any]]], kind: str, wanted: Any) -> dict[str, Any] | None:
    return next((body for k, body in reversed(found) if k == kind and wanted(body)), None)


def _genome(found: list[tuple[str, dict[str, Any]]], run: dict[str, Any], sha256: str) -> Genome:
    recorded = (body["genome"] for kind, body in found if kind == "genome" and body["sha256"] == sha256)
    genome = Genome.from_json(next(recorded, run["seed_genome"]))
    if genome.sha256 != sha256:
        raise RunError("load genome", sha256, "a genome in the ledger", "selfimprove audit")
    return genome


def _checked(run_dir: Path, name: str, sha256: str) -> bytes:
    """A file's bytes, if it lies in the run folder and has the recorded hash."""
    path = (run_dir / name).resolve()
    if not path.is_relative_to(run_dir.resolve()):
        raise InvalidCheckpoint("load checkpoint", name, "a path inside the run folder")
    if not path.is_file():
        raise InvalidCheckpoint("load checkpoint", name, "a file", "the run folder is incomplete")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise InvalidCheckpoint(f"hash of {name}", found, sha256, "run: selfimprove audit")
    return data
