"""A key, an anchor, and a small run folder that holds every kind of file and record."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.checkpoint import store
from selfimprove.archive.ledger import LEDGER_NAME, Ledger
from selfimprove.canonical import canonical

SEED_GENOME = {"schema": 1, "architecture": {"width": 64}}


class Key:
    """A signer as the containment layer's: Ed25519."""

    def __init__(self, secret: bytes = b"k" * 32) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        self.public_key_hex = self._private.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes, /) -> bytes:
        return self._private.sign(message)


def ticking() -> Callable[[], str]:
    """A clock for entries that needs no time."""
    seconds = itertools.count()
    return lambda: f"2026-01-01T00:00:{next(seconds) % 60:02d}.000000Z"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A run folder with what is needed to open its ledger again."""

    folder: Path
    key: Key
    anchor: FileAnchor

    @property
    def ledger(self) -> Path:
        return self.folder / LEDGER_NAME

    def open(self) -> Ledger:
        return Ledger.open(self.ledger, self.key, self.anchor, clock=ticking())


@pytest.fixture(scope="session")
def key() -> Key:
    return Key()


@pytest.fixture(scope="session")
def stranger() -> Key:
    """A key that signed none of the runs."""
    return Key(b"s" * 32)


@pytest.fixture
def anchor(tmp_path: Path) -> FileAnchor:
    return FileAnchor(tmp_path / "state")


@pytest.fixture
def run(tmp_path: Path, key: Key, anchor: FileAnchor) -> Run:
    """A run of three entries: ``run`` and two notes."""
    folder = tmp_path / "run"
    folder.mkdir()
    body = {"run_id": "r1", "seed_genome": SEED_GENOME}
    with Ledger.create(folder / LEDGER_NAME, key, anchor, body, clock=ticking()) as ledger:
        ledger.append("note", {"text": "one"})
        ledger.append("note", {"text": "two"})
    return Run(folder, key, anchor)


@pytest.fixture
def full_run(tmp_path: Path, key: Key, anchor: FileAnchor) -> Run:
    """A finished run of two generations that used every account and stored every kind of file."""
    folder = tmp_path / "full"
    folder.mkdir()
    run = Run(folder, key, anchor)
    build_full_run(run)
    return run


def build_full_run(run: Run) -> None:
    config = canonical({"seed": 1, "name": "synthetic"})
    (run.folder / "config.json").write_bytes(config)
    body = {
        "run_id": "full",
        "seed_genome": SEED_GENOME,
        "limits": {"flops": 10**18},
        "config_sha256": hashlib.sha256(config).hexdigest(),
    }
    with Ledger.create(run.ledger, run.key, run.anchor, body, clock=ticking()) as ledger:
        ledger.append("genome", {"sha256": sha("seed"), "genome": SEED_GENOME})
        books = Books(ledger)
        for generation in (1, 2):
            _append_generation(run, ledger, books, generation)
        ledger.append("finish", {"state": "finished", "reason": "generations"})


class Books:
    """Appends permits and charges that add up."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counter = 0
        self._total = 0

    def permit(self, permit_key: str, account: str, *, reissue: bool = False, flops: int = 10**16) -> None:
        self._counter += 1
        body: dict[str, Any] = {"key": permit_key, "counter": self._counter, "account": account, "flops": flops}
        self._ledger.append("permit", {**body, "reissue": reissue, "genome": sha("g"), "tokens": 5, "steps": 1})

    def charge(self, charge_key: str, account: str, flops: int = 10**16) -> None:
        self._total += flops
        self._ledger.append("charge", {"key": charge_key, "account": account, "flops": flops, "total": self._total})


def _append_generation(run: Run, ledger: Ledger, books: Books, generation: int) -> None:
    place = {"generation": generation, "index": 0}
    genome = {"schema": 1, "architecture": {"width": 64 * generation + 64}}
    parent = sha("seed") if generation == 1 else sha("genome1")
    own = sha(f"genome{generation}")
    ledger.append("genome", {"sha256": own, "genome": genome})
    proposal = {"parent": parent, "edits": ["architecture.width=128"], "kinds": ["architecture"], "status": "valid"}
    ledger.append("proposal", {**place, **proposal, "reason": "", "allocates": True, "genome": own})
    job = f"g{generation:03d}/c00/s1"
    books.permit(f"{job}@1/1", "search")
    if generation == 2:
        books.charge(f"{job}@1/1", "lost")
        books.permit(f"{job}@1/1", "search", reissue=True)
    outcome = {"key": job, "stage": "1/1", "status": "completed", "reason": "", "files": {"weights": sha("w")}}
    ledger.append("outcome", outcome)
    books.charge(f"{job}@1/1", "search")
    ledger.append("score", {**place, "genome": own, "split": "search", "seeds": 2, "skill": 0.25 * generation})
    data = weights(generation)
    stored = store(run.folder / "checkpoints", f"g{generation:03d}", data, {"genome_sha256": own, "seed": 7})
    names = {"path": _relative(run, stored.path), "manifest": _relative(run, stored.manifest)}
    hashes = {"sha256": stored.sha256, "manifest_sha256": stored.manifest_sha256}
    ledger.append("checkpoint", {**place, "genome": own, "seed": 7, **names, **hashes})
    inspection = canonical({"probes": {"halted": [0.5, 0.75]}})
    path = run.folder / "inspections" / f"g{generation:03d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(inspection)
    named = {"path": _relative(run, path), "sha256": hashlib.sha256(inspection).hexdigest()}
    ledger.append("inspection", {**place, "genome": own, "status": "complete", **named})
    books.permit(f"g{generation:03d}/tell", "controller")
    controller = store(run.folder / "controller", f"g{generation:03d}", weights(generation + 10), {})
    ledger.append(
        "controller",
        {
            "generation": generation,
            "flops": 10**16,
            "weights": _relative(run, controller.path),
            "sha256": controller.sha256,
        }
        | {"manifest": _relative(run, controller.manifest), "manifest_sha256": controller.manifest_sha256},
    )
    books.charge(f"g{generation:03d}/tell", "controller")
    ledger.append("decision", {**place, "genome": own, "promoted": generation == 1, "reasons": []})
    ledger.append("generation", {"generation": generation, "champion": sha("genome1"), "best_skill": 0.5})


def weights(seed: int) -> bytes:
    """Two float32 tensors: ``a`` [3, 4] and ``b`` [5]."""
    random = np.random.default_rng(seed)
    tensors = {"a": random.normal(size=(3, 4)), "b": random.normal(size=(5,))}
    return save({name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def _relative(run: Run, path: Path) -> str:
    return path.relative_to(run.folder).as_posix()
