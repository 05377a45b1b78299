"""Checkpoints that are something else, or say something else than they hold."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_anything

from selfimprove.archive.audit import audit
from selfimprove.archive.checkpoint import HEADER_CAP, ingest, store
from selfimprove.containment.redteam.attack import TrustedAttack
from selfimprove.containment.redteam.forged.ledgers import Book, open_book
from selfimprove.errors import LedgerError

SHAPES = {"a": (2, 3), "b": (4,)}
_BOMB_TENSORS = 40_000


def checkpoint(arrays: Mapping[str, np.ndarray[Any, Any]], **header: Any) -> bytes:
    """Return safetensors bytes; ``header`` replaces what the format would say."""
    said, parts, at = {}, [], 0
    for name, array in arrays.items():
        data = array.tobytes()
        kind = {"float32": "F32", "float16": "F16"}[str(array.dtype)]
        said[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    return framed(json.dumps(said | header), b"".join(parts))


def framed(header: str, data: bytes) -> bytes:
    """Return a header of any text in front of bytes."""
    text = header.encode()
    return len(text).to_bytes(8, "little") + text + data


def honest() -> dict[str, np.ndarray[Any, Any]]:
    """Return the tensors that the genome implies."""
    return {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}


class _Payload:
    """Runs code where it is unpickled: makes one empty file, nothing else."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def _pickle(folder: Path) -> tuple[bytes, Path]:
    return pickle.dumps(_Payload(folder / "mark")), folder / "mark"


def _take_pickle(made: tuple[bytes, Path]) -> bool:
    data, mark = made
    try:
        ingest(data, SHAPES)
    finally:
        assert not mark.exists(), "the payload ran"
    return True


def _unpickle(made: tuple[bytes, Path]) -> bool:
    """The one place that loads a pickle: the attack's own, in a process of its own."""
    data, mark = made
    pickle.loads(data)
    return mark.exists()


def _header_bomb(folder: Path) -> bytes:
    """Tens of thousands of empty tensors: megabytes of header to read before a single weight."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return framed(json.dumps({f"tensor{number}": empty for number in range(_BOMB_TENSORS)}), b"")


def _with(**tensors: np.ndarray[Any, Any]) -> bytes:
    return checkpoint(honest() | tensors)


def _overlapping(folder: Path) -> bytes:
    parts = {"a": [0, 24], "b": [8, 24]}
    said = {name: {"dtype": "F32", "shape": list(SHAPES[name]), "data_offsets": parts[name]} for name in SHAPES}
    return framed(json.dumps(said), bytes(24))


def _duplicate(folder: Path) -> bytes:
    """One name twice: a checker may see the first, a loader the second."""
    honest_bytes = _with()
    length = int.from_bytes(honest_bytes[:8], "little")
    header = honest_bytes[8 : 8 + length].decode()
    twice = header[:-1] + ', "b": ' + json.dumps(json.loads(header)["b"]) + "}"
    return framed(twice, honest_bytes[8 + length :])


def _take(data: bytes) -> bool:
    """The real ingest: raises, or the attack went through."""
    ingest(data, SHAPES)
    return True


def _loads(data: bytes) -> bool:
    """The library loads it without complaint."""
    return bool(load_anything(data))


def _parses(data: bytes) -> bool:
    """A reader that only looks for the names it knows takes it."""
    length = int.from_bytes(data[:8], "little")
    return set(SHAPES) <= set(json.loads(data[8 : 8 + length]))


def _trusts_header(data: bytes) -> bool:
    length = int.from_bytes(data[:8], "little")
    return length > HEADER_CAP and len(json.loads(data[8 : 8 + length])) == _BOMB_TENSORS


def _fills_up(data: bytes) -> bool:
    """A reader that takes what is there leaves the rest of the weights as they were."""
    length = int.from_bytes(data[:8], "little")
    return 0 < len(np.frombuffer(data[8 + length :][:32], np.float32)) < 10


def _kept(folder: Path) -> tuple[Book, Path]:
    """A run with one stored checkpoint, named in its ledger."""
    book = open_book(folder)
    stored = store(book.folder / "checkpoints", "g001", _with(), {"genome_sha256": "00"})
    body = {"path": "checkpoints/g001.safetensors", "sha256": stored.sha256, "genome": "00",
            "manifest": "checkpoints/g001.json", "manifest_sha256": stored.manifest_sha256}  # fmt: skip
    with book.ledger() as ledger:
        ledger.append("checkpoint", body)
    return book, stored.path


def _swapped(folder: Path) -> tuple[Book, Path]:
    book, path = _kept(folder)
    path.write_bytes(checkpoint({name: array * 2 for name, array in honest().items()}))
    return book, path


def _other_runs(folder: Path) -> tuple[Book, Path]:
    """Weights and manifest of another run, each whole and true, under the names of this one's."""
    book, path = _kept(folder / "mine")
    _, other = _kept(folder / "other")
    other.write_bytes(checkpoint({name: array * 3 for name, array in honest().items()}))
    manifest = json.loads(other.with_suffix(".json").read_text())
    manifest["weights_sha256"] = hashlib.sha256(other.read_bytes()).hexdigest()
    other.with_suffix(".json").write_text(json.dumps(manifest))
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(other.with_suffix(suffix), path.with_suffix(suffix))
    return book, path


def _linked(folder: Path) -> tuple[Book, Path]:
    """The very bytes that belong there, behind a link that can point elsewhere tomorrow."""
    book, path = _kept(folder)
    os.rename(path, folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    return book, path


def _audited(kept: tuple[Book, Path]) -> bool:
    book, _ = kept
    report = audit(book.folder, book.anchor)
    if any(Path(finding.file).name.startswith("g001") for finding in report.findings):
        raise LedgerError(f"audit: {report.findings[0].what}")
    return True


def _only_loads(kept: tuple[Book, Path]) -> bool:
    return _loads(kept[1].read_bytes())


def _manifest_agrees(kept: tuple[Book, Path]) -> bool:
    """A reader that believes the manifest which lies beside the file."""
    _, path = kept
    manifest = json.loads(path.with_suffix(".json").read_text())
    return bool(manifest["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest())


_NAMES = "ingest: exactly the genome's tensors"
_LAYOUT = "ingest: no gaps, no overlaps, no byte left over"
_HASH = "the ledger holds the hash of every checkpoint"
_BIG = np.full((2, 3), np.inf, np.float32)

ATTACKS = (
    TrustedAttack("pickle", "a pickle that runs code where it is loaded", _pickle, _take_pickle, _unpickle,
                  "ingest reads one format, and runs nothing"),
    TrustedAttack("header_bomb", f"a header of {_BOMB_TENSORS} empty tensors", _header_bomb, _take, _trusts_header,
                  "ingest: at most 1 MiB of header"),
    TrustedAttack("nan", "weights that are not a number", lambda f: _with(b=np.full(4, np.nan, np.float32)), _take,
                  _loads, "ingest: every value must be finite"),
    TrustedAttack("infinite", "infinite weights", lambda f: _with(a=_BIG), _take, _loads,
                  "ingest: every value must be finite"),
    TrustedAttack("wrong_shape", "a tensor of another shape", lambda f: _with(b=np.ones(5, np.float32)), _take, _loads,
                  "ingest: exactly the genome's shapes"),
    TrustedAttack("wrong_type", "a tensor of another type", lambda f: _with(b=np.ones(4, np.float16)), _take, _loads,
                  "ingest: 32-bit floats only"),
    TrustedAttack("extra_tensor", "a tensor more, as a channel out", lambda f: _with(c=np.ones(4, np.float32)), _take,
                  _loads, _NAMES),
    TrustedAttack("missing_tensor", "a tensor less", lambda f: checkpoint({"a": honest()["a"]}), _take, _loads, _NAMES),
    TrustedAttack("metadata", "text in the metadata, as a channel out",
                  lambda f: checkpoint(honest(), __metadata__={"note": "x" * 10_000}), _take, _loads,
                  "ingest: no metadata"),
    TrustedAttack("duplicate_key", "one name twice", _duplicate, _take, _parses, "ingest: strict JSON"),
    TrustedAttack("overlap", "two tensors over the same bytes", _overlapping, _take, _parses, _LAYOUT),
    TrustedAttack("trailing_bytes", "bytes after the last tensor", lambda f: _with() + b"x" * 64, _take, _parses,
                  _LAYOUT),
    TrustedAttack("truncated", "a file that ends early", lambda f: _with()[:-16], _take, _fills_up, _LAYOUT),
    TrustedAttack("swap_after_hash", "other weights after the hash was taken", _swapped, _audited, _only_loads, _HASH),
    TrustedAttack("other_run", "weights and manifest of another run", _other_runs, _audited, _manifest_agrees, _HASH),
    TrustedAttack("symlink", "the right weights behind a symbolic link", _linked, _audited, _only_loads,
                  "the audit follows no links"),
)  # fmt: skip
