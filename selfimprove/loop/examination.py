"""Examination: the checkpoint that a generation keeps, and what the instruments read in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from selfimprove.archive.checkpoint import store
from selfimprove.archive.files import make_folder, write_atomic
from selfimprove.archive.records import FINAL
from selfimprove.canonical import canonical
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.loop.climbing import tasks_of
from selfimprove.loop.inspecting import Weights, inspection_job, inspection_of
from selfimprove.loop.measuring import verified
from selfimprove.loop.slots import Bench, Slot
from selfimprove.loop.stages import slices
from selfimprove.seeds import derive
from selfimprove.training.protocol import WEIGHTS, tasks_to_json


class Examination:
    """Keeps checkpoints and reads them.

    Args:
        bench: workers, accounts and memory.
        versions: of the packages that training depends on, for the manifests.
    """

    def __init__(self, bench: Bench, versions: Mapping[str, str]) -> None:
        self.bench = bench
        self.config = bench.config
        self.journal = bench.journal
        self._versions = versions

    def keep(
        self, n: int, index: int, slot: Slot, parent: Genome | None, edits: tuple[Edit, ...], stage: str = FINAL
    ) -> None:
        """Store the weights that a slot had at the end of a stage, with a manifest that says where they come from.

        Of a training that came to its end, those of the stages before too, if the slot keeps them.
        """

        def make(of: str, name: str) -> dict[str, Any]:
            return self._store(n, index, slot, of, name, _provenance(slot, parent, edits))

        own = _name(n, index)
        self.journal.once("checkpoint", (n, index), lambda: make(stage, own))
        if slot.keeps_stages and stage == FINAL:
            for part in slices(self.bench.price(slot.genome, slot.tasks)).values():
                if not part.final:
                    name = f"{own}-{part.stage.replace('/', '-of-')}"
                    self.journal.once("stage_checkpoint", (n, index, part.stage), partial(make, part.stage, name))

    def _store(
        self, n: int, index: int, slot: Slot, stage: str, name: str, provenance: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write a checkpoint and its manifest; the record of it."""
        price = self.bench.price(slot.genome, slot.tasks)
        manifest = {
            **provenance,
            "steps": price.steps,
            "stage": stage,
            "last": slices(price)[stage].last,
            "device": self.config.device,
            "versions": dict(self._versions),
        }
        data = verified(self.bench, slot.key, stage, WEIGHTS).read_bytes()
        stored = store(self.bench.run_dir / "checkpoints", name, data, manifest)
        return {
            "generation": n,
            "index": index,
            "genome": slot.genome.sha256,
            "stage": stage,
            "seed": slot.seed,
            **stored.record(self.bench.run_dir, "path"),
        }

    def inspect(self, n: int, index: int, genome: Genome, parent: Genome | None) -> dict[str, Any]:
        """Read a kept checkpoint through its hooks, beside its parent's, in a worker; the inspection record."""
        return self.journal.once("inspection", (n, index), lambda: self._inspect(n, index, genome, parent))

    def _inspect(self, n: int, index: int, genome: Genome, parent: Genome | None) -> dict[str, Any]:
        checkpoint = self.journal.find("checkpoint", n, index)
        assert checkpoint is not None  # a candidate is kept before it is inspected
        root, asked = self.config.seed, self.config.inspection
        plan = {
            **{name: derive(root, "inspect", n, name) for name in ("train", "test", "control")},
            "sequences": asked.sequences,
        }
        tasks = tasks_of(self.bench, n)
        child = Weights(genome, tasks, self.bench.run_dir / checkpoint["path"], checkpoint["sha256"])
        beside = None if parent is None else self._kept(parent)
        names = (*asked.instruments, *asked.also)
        job = inspection_job(f"g{n:03d}/inspect", child, beside, plan, names, self.bench.limits())
        record = inspection_of(self.bench.run_one(job))
        path = self.bench.run_dir / "inspections" / f"{_name(n, index)}.json"
        data = canonical(record) + b"\n"
        make_folder(path.parent)
        write_atomic(path, data)
        place = {"generation": n, "index": index, "genome": genome.sha256, "path": self._relative(path)}
        return record | place | {"plan": plan, "sha256": hashlib.sha256(data).hexdigest()}

    def _kept(self, genome: Genome) -> Weights | None:
        """The trained weights that are kept of a genome, if they are still on the disk."""
        records = self.journal.all("checkpoint")
        own = [body for body in records if body["genome"] == genome.sha256 and body["stage"] == FINAL]
        if not own or not (path := self.bench.run_dir / own[-1]["path"]).is_file():
            return None
        return Weights(genome, tasks_of(self.bench, own[-1]["generation"]), path, own[-1]["sha256"])

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.bench.run_dir).as_posix()


def _provenance(slot: Slot, parent: Genome | None, edits: tuple[Edit, ...]) -> dict[str, Any]:
    """What a manifest says about where weights come from, whatever their stage."""
    return {
        "genome_sha256": slot.genome.sha256,
        "genome": slot.genome.to_json(),
        "parent": parent.sha256 if parent is not None else None,
        "edits": [str(edit) for edit in edits],
        "key": slot.key,
        "seed": slot.seed,
        "tasks": tasks_to_json(slot.tasks),
    }


def _name(n: int, index: int) -> str:
    """Name of a generation's files: ``g003-c05``, and ``g000-seed`` for the seed genome."""
    return f"g{n:03d}-{'seed' if index < 0 else f'c{index:02d}'}"
