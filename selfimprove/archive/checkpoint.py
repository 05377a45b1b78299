"""Checkpoints: worker output is hostile until it has been ingested; stored ones are never half written.

The safetensors header is read here, strictly, with no other reader: the library accepts NaN, extra tensors, duplicate
keys and megabytes of metadata. Nothing in this module can run code from a file.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfimprove.archive.files import is_plain_name, make_folder, write_atomic
from selfimprove.canonical import canonical, parse
from selfimprove.errors import InvalidCheckpoint, LedgerError

HEADER_CAP = 1 << 20  # bytes
ITEM_BYTES = 4  # float32, the only dtype accepted
WEIGHTS_SUFFIX = ".safetensors"
MANIFEST_SUFFIX = ".json"


@dataclass(frozen=True)
class _Slice:
    """Where one tensor lies: its shape, and its bytes relative to the end of the header."""

    shape: tuple[int, ...]
    begin: int
    end: int


class Stored(NamedTuple):
    """A checkpoint on the disk; hashes are SHA-256 of whole files, hex."""

    path: Path
    sha256: str
    manifest_sha256: str

    @property
    def manifest(self) -> Path:
        return self.path.with_suffix(MANIFEST_SUFFIX)

    def record(self, run_dir: Path, weights: str = "weights") -> dict[str, str]:
        """What the ledger says of it: both paths, relative to the run folder, and both hashes.

        Args:
            run_dir: the folder that it lies in.
            weights: name of the field with the path of the weights.
        """
        return {
            weights: self.path.relative_to(run_dir).as_posix(),
            "sha256": self.sha256,
            "manifest": self.manifest.relative_to(run_dir).as_posix(),
            "manifest_sha256": self.manifest_sha256,
        }


def ingest(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check untrusted safetensors bytes against the tensors that the genome implies.

    Args:
        data: the whole file.
        shapes: every tensor expected, by name; all float32.

    Raises:
        InvalidCheckpoint: a size, header, name, dtype, shape or offset that is not exactly as expected, or a value that
            is not finite.
    """
    expected = sum(ITEM_BYTES * math.prod(shape) for shape in shapes.values())
    if len(data) > 8 + HEADER_CAP + expected:
        raise InvalidCheckpoint("ingest a checkpoint of bytes", len(data), f"at most {8 + HEADER_CAP + expected}")
    start, slices = _layout(data)
    missing, extra = sorted(shapes.keys() - slices.keys()), sorted(slices.keys() - shapes.keys())
    if missing or extra:
        found = f"missing {_some(missing)}, not expected {_some(extra)}"
        raise InvalidCheckpoint("ingest a checkpoint's tensors", found, f"the genome's {len(shapes)} tensors exactly")
    for name, shape in shapes.items():
        if slices[name].shape != tuple(shape):
            raise InvalidCheckpoint(f"ingest tensor {name} of shape", slices[name].shape, str(tuple(shape)))
    for name, array in _arrays(data, start, slices).items():
        if not np.isfinite(array).all():
            wrong = int(array.size - np.isfinite(array).sum())
            raise InvalidCheckpoint(f"ingest tensor {name}", f"{wrong} values that are not finite", "finite values")


def store(folder: Path, name: str, data: bytes, manifest: Mapping[str, Any]) -> Stored:
    """Write ``<name>.safetensors`` and ``<name>.json`` durably; a crash leaves whole files or ``*.tmp``.

    The manifest gets ``file``, ``bytes``, ``weights_sha256`` (of the file) and ``tensors_sha256`` (of the weights,
    however the file orders them). Put ``genome_sha256`` in it: an audit compares it with the ledger.

    Raises:
        InvalidCheckpoint: ``data`` is not well-formed safetensors.
        LedgerError: a name that is not a plain file name, or a manifest that JSON cannot hold.
        ValueError: a manifest that states one of the added fields differently.
        RunError: the disk is full or refuses.
    """
    if not is_plain_name(name):
        raise LedgerError("store a checkpoint named", name, "letters, digits, '.', '_' and '-'")
    folder = Path(folder)
    path = folder / f"{name}{WEIGHTS_SUFFIX}"
    sha256 = hashlib.sha256(data).hexdigest()
    added = {
        "file": path.name,
        "bytes": len(data),
        "weights_sha256": sha256,
        "tensors_sha256": tensors_sha256(data),
    }
    conflicts = [key for key in added if key in manifest and manifest[key] != added[key]]
    if conflicts:
        raise ValueError(f"the manifest states {', '.join(conflicts)} differently from the data")
    text = canonical({**manifest, **added}) + b"\n"
    make_folder(folder)
    write_atomic(path, data, sync_folder=False)
    stored = Stored(path, sha256, hashlib.sha256(text).hexdigest())
    write_atomic(stored.manifest, text)  # the folder's sync covers both names
    return stored


def tensors_sha256(data: bytes) -> str:
    """SHA-256 over (name, dtype, shape, bytes) in order of names: equal weights, equal hash, whatever the header says.

    Raises:
        InvalidCheckpoint: bytes that are not well-formed safetensors.
    """
    start, slices = _layout(data)
    view = memoryview(data)
    hashed = hashlib.sha256()
    for name, part in sorted(slices.items()):
        hashed.update(canonical([name, "F32", list(part.shape)]) + b"\n")
        hashed.update(view[start + part.begin : start + part.end])
    return hashed.hexdigest()


def _layout(data: bytes) -> tuple[int, dict[str, _Slice]]:
    """Offset of the first tensor byte, and where every tensor lies: contiguous, complete, no byte left over."""
    if len(data) < 8:
        raise InvalidCheckpoint("read a checkpoint of bytes", len(data), "at least 8")
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_CAP or length > len(data) - 8:
        raise InvalidCheckpoint("read a checkpoint header of bytes", length, f"at most {HEADER_CAP}, within the file")
    start = 8 + length
    slices = {name: _slice(name, info) for name, info in _header(data[8:start]).items()}
    position = 0
    for name, part in sorted(slices.items(), key=lambda item: (item[1].begin, item[1].end)):
        if part.begin != position:
            raise InvalidCheckpoint(f"read tensor {name} at offset", part.begin, f"{position}: no gaps, no overlaps")
        position = part.end
    if start + position != len(data):
        raise InvalidCheckpoint("read a checkpoint of bytes", len(data), f"{start + position}, as its header says")
    return start, slices


def _header(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise InvalidCheckpoint("read a checkpoint header", limit="a JSON object from its first byte")
    try:
        header = parse(raw.rstrip(b" "))  # the format pads with spaces
    except LedgerError as error:
        raise InvalidCheckpoint(f"read a checkpoint header: {error}") from None
    metadata = header.pop("__metadata__", {})
    if metadata != {}:
        raise InvalidCheckpoint("read a checkpoint header", "__metadata__ with content", "none")
    return dict(header)


def _slice(name: str, info: object) -> _Slice:
    if not (name.isascii() and name.isprintable()):
        raise InvalidCheckpoint("read a tensor named", _short(name), "printable ASCII names")
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise InvalidCheckpoint(f"read tensor {_short(name)}", limit="exactly dtype, shape and data_offsets")
    if info["dtype"] != "F32":
        raise InvalidCheckpoint(f"read tensor {_short(name)} of dtype", _short(info["dtype"]), "F32")
    shape, offsets = info["shape"], info["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise InvalidCheckpoint(f"read tensor {_short(name)}", limit="shape and two offsets: integers from 0")
    begin, end = offsets
    if len(shape) > 8 or end - begin != ITEM_BYTES * math.prod(shape):
        raise InvalidCheckpoint(f"read tensor {_short(name)} of bytes", end - begin, "4 for each element of its shape")
    return _Slice(tuple(shape), begin, end)


def _arrays(data: bytes, start: int, slices: Mapping[str, _Slice]) -> dict[str, NDArray[np.float32]]:
    values = np.frombuffer(data, dtype="<f4", offset=start) if len(data) > start else np.empty(0, dtype="<f4")
    return {
        name: values[part.begin // ITEM_BYTES : part.end // ITEM_BYTES].reshape(part.shape)
        for name, part in slices.items()
    }


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _some(names: list[str]) -> str:
    shown = ", ".join(_short(name) for name in names[:3]) or "none"
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _short(value: object) -> str:
    """Hostile text for a message: printable and short."""
    return json.dumps(str(value))[:80]
