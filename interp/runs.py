"""Open a run folder and load any generation's checkpoint as a hooked model.

Reads the ledger's lines as they are: its chain and signatures are `selfimprove audit`'s business. What is loaded is
checked against the hash that the ledger gives for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.bench import Bench, Plan
from interp.checkpoint import load_model
from interp.hooked import HookedModel, to_hooked
from interp.inspection import Inspection, inspect_bench, instruments
from selfimprove.archive.records import FINAL, LEDGER_NAME, records
from selfimprove.errors import ConfigError, InvalidCheckpoint, RunError
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer
from selfimprove.seeds import derive
from selfimprove.tasks.suite import TaskSuite
from selfimprove.training.protocol import tasks_from_json

Records = list[tuple[str, dict[str, Any]]]
EXAMPLES = 8  # sequences of each family in `Generation.tokens`


@dataclass(frozen=True)
class Generation:
    """One generation's leading candidate, ready to be read.

    Attributes:
        run_dir: the run folder.
        number: the generation.
        stage: part of its training that these weights have seen: ``1/1``, or one of ``stages``.
        stages: of its training that weights are kept of, in order; `load_generation` takes each.
        genome: what the model was built from.
        edits: what its proposal changed in its parent; empty for the seed genome of generation 0.
        parent_genome: hash of the genome that was edited; None for the seed genome.
        skill: on the search split, at the end of its training; None where it was not scored.
        promoted: what the gate decided; None where it has not, as for the seed genome.
        record: the record in the ledger of this checkpoint.
        inspection: its ``inspection`` record, or None if it was never inspected.
        network: the trained model as it trained (fused path).
        suite: the run's task suite.
        instruments: those that the run inspects with.
        modules: those of one's own that register some of them; never imported here.
        seed: root of the seeds of its examples.
    """

    run_dir: Path
    number: int
    stage: str
    stages: tuple[str, ...]
    genome: Genome
    edits: tuple[str, ...]
    parent_genome: str | None
    skill: float | None
    promoted: bool | None
    record: dict[str, Any]
    inspection: dict[str, Any] | None
    network: Transformer
    suite: TaskSuite
    instruments: tuple[str, ...] | None
    modules: tuple[str, ...]
    seed: int

    def __str__(self) -> str:
        """One line: which generation, which genome, what made it, what became of it."""
        fate = {None: "not up for promotion", True: "promoted", False: "not promoted"}[self.promoted]
        blocks = ", ".join(f"{block.mixer} and {block.channel}" for block in self.genome.architecture.blocks)
        read = "not inspected" if self.inspection is None else f"inspection {self.inspection['status']}"
        made = f"; edits: {', '.join(self.edits)}" if self.edits else ""
        part = "" if self.stage == FINAL else f" after {self.stage} of its training"
        where = f"generation {self.number} of {self.run_dir}{part}, genome {self.genome.short}"
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

    @cached_property
    def parent(self) -> Generation | None:
        """The generation whose genome this one's was edited from, if there is one and its checkpoint is kept.

        Raises:
            InvalidCheckpoint: a file that is not what the ledger says it is.
        """
        found = ledger(self.run_dir)
        record = _last(found, "checkpoint", lambda body: body["genome"] == self.parent_genome and _is_final(body))
        if record is None or not (self.run_dir / record["path"]).is_file():
            return None
        return _load(self.run_dir, found, record)

    def bench(self, plan: Plan | None = None) -> Bench:
        """The model on a bench, for instruments, with its parent beside it where that is kept.

        The default plan is derived from the run's seed, so that all generations are read alike.
        """
        if plan is None:
            train, test, control = (derive(self.seed, "bench", part) for part in ("train", "test", "control"))
            plan = Plan(train, test, control)
        return Bench(self.network, self.suite, plan, self.parent.network if self.parent else None)

    def inspect(self, names: Sequence[str] | Literal["full"] | None = None) -> Inspection:
        """Inspect the model in this process, with the seeds and sizes of its record in the ledger, if there is one.

        Args:
            names: instruments; by default those of the run, which give the same record; ``full``: all that there are.

        Raises:
            ConfigError: an instrument that is not registered in this process; one of one's own is, once the module that
                registers it is imported.
        """
        if isinstance(names, str):
            if names != "full":
                raise ConfigError("inspect with", names, "full, or a list of instruments")
            chosen = None
        else:
            chosen = self.instruments if names is None else names
        instruments(chosen, self.modules)
        plan = Plan.from_json(self.inspection["plan"]) if self.inspection is not None else None
        return inspect_bench(self.bench(plan), names=chosen)


def load_generation(run_dir: str | Path, generation: int, stage: str = FINAL) -> Generation:
    """Load the checkpoint that a run kept for one generation.

    Args:
        run_dir: the run folder.
        generation: 0 for the seed genome.
        stage: of its training, such as ``1/3``; by default its end.

    Raises:
        RunError: no such run, a ledger that is no JSON lines, or no checkpoint for that generation or stage.
        InvalidCheckpoint: a file that is not what the ledger says it is.
    """
    run_dir = Path(run_dir)
    found = ledger(run_dir)
    kept = [body for kind, body in found if kind == "checkpoint" and body["generation"] == generation]
    if not kept:
        which = "generations with a checkpoint"
        raise RunError.no_generation("load generation", generation, which, _generations(found))
    final = next((body for body in reversed(kept) if _is_final(body)), kept[-1])  # what was stopped early comes last
    for record in (final, *_stages(found, final)):
        if stage in (record.get("stage", FINAL), FINAL):
            return _load(run_dir, found, record)
    limit = f"stages with a checkpoint: {', '.join(_load(run_dir, found, final).stages)}"
    raise RunError(f"load a stage of generation {generation}", stage, limit)


def _load(run_dir: Path, found: Records, record: dict[str, Any]) -> Generation:
    """The generation that a record of a checkpoint describes."""
    run = _last(found, "run", lambda body: True)
    if run is None:
        raise RunError("open run", str(run_dir), "a ledger that begins with a run record")
    genome = _genome(found, run, record["genome"])
    manifest = json.loads(_checked(run_dir, record["manifest"], record["manifest_sha256"]))
    suite = TaskSuite(tasks_from_json(manifest["tasks"]))
    data = _checked(run_dir, record["path"], record["sha256"])
    network = load_model(data, genome, vocab_size=suite.config.vocab_size, context=suite.config.context)

    def about(kind: str) -> dict[str, Any] | None:
        place = (record["generation"], record["index"])
        return _last(found, kind, lambda body: (body["generation"], body["index"]) == place)

    proposal, decision, score = (about(kind) for kind in ("proposal", "decision", "score"))
    asked = run["config"].get("inspection")
    own = about("checkpoint") or record
    return Generation(
        run_dir=run_dir,
        number=record["generation"],
        stage=record.get("stage", FINAL),
        stages=tuple(body.get("stage", FINAL) for body in (*_stages(found, own), own)),
        genome=genome,
        edits=tuple(proposal["edits"]) if proposal else (),
        parent_genome=proposal.get("parent") if proposal else None,
        skill=score["skill"] if score else None,
        promoted=decision["promoted"] if decision else None,
        record=record,
        inspection=about("inspection"),
        network=network,
        suite=suite,
        instruments=None if asked is None else (*asked["instruments"], *asked["also"]),
        modules=() if asked is None else tuple(asked.get("modules", ())),
        seed=run["root_seed"],
    )


def _is_final(record: dict[str, Any]) -> bool:
    return bool(record.get("stage", FINAL) == FINAL)


def _stages(found: Records, final: dict[str, Any]) -> list[dict[str, Any]]:
    """Records of the checkpoints that were kept before the last one of a training, in order."""
    place = (final["generation"], final["index"])
    return [b for kind, b in found if kind == "stage_checkpoint" and (b["generation"], b["index"]) == place]


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
    return tuple(sorted(_generations(ledger(Path(run_dir)))))


def _generations(found: Records) -> set[int]:
    return {body["generation"] for kind, body in found if kind == "checkpoint"}


def ledger(run_dir: Path) -> Records:
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


def _last(found: Records, kind: str, wanted: Any) -> dict[str, Any] | None:
    return next((body for k, body in reversed(found) if k == kind and wanted(body)), None)


def _genome(found: Records, run: dict[str, Any], sha256: str) -> Genome:
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
