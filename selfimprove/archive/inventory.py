"""The files of a run folder against the ledger: what it names must be there unchanged, and nothing else may be.

Looked at: every file that a record names with a hash, and every ``.safetensors`` and ``.jsonl`` in the run folder, with
the ``.json`` files of the folders that hold checkpoints, controllers and inspections. W&B's own files are not covered.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from selfimprove.archive.chain import Entry
from selfimprove.archive.files import LEFTOVER, read_regular
from selfimprove.archive.findings import Finding
from selfimprove.canonical import parse
from selfimprove.errors import LedgerError

CONFIG_NAME = "config.json"
TRACKED = frozenset({"checkpoints", "controller", "inspections"})  # folders where JSON files are records, too
FOREIGN = frozenset({"wandb"})
# kind -> (field with the path, field with the hash)
_NAMED = {
    "checkpoint": (("path", "sha256"), ("manifest", "manifest_sha256")),
    "stage_checkpoint": (("path", "sha256"), ("manifest", "manifest_sha256")),
    "controller": (("weights", "sha256"), ("manifest", "manifest_sha256")),
    "trial": (("weights", "sha256"), ("manifest", "manifest_sha256")),
    "inspection": (("path", "sha256"), ("manifest", "manifest_sha256")),
    "recovery": (("path", "sha256"),),
}
_BINARY = frozenset({".safetensors", ".part"})


@dataclass(frozen=True)
class Claim:
    """A file that the ledger names: its path relative to the run folder, its hash, and the naming entry."""

    path: str
    sha256: str
    entry: Entry
    is_manifest: bool = False


def claims(entries: Iterable[Entry]) -> Iterator[Claim]:
    """Every file named by ``entries``, in their order.

    In ``outcome.files`` only names with a ``/`` are paths in the run folder; others are outputs of a worker that were
    not kept.
    """
    for entry in entries:
        body = entry.body
        for path_field, hash_field in _NAMED.get(entry.kind, ()):
            if body.get(path_field) is not None:
                yield Claim(str(body[path_field]), str(body.get(hash_field)), entry, path_field == "manifest")
        if entry.kind == "run" and body.get("config_sha256") is not None:
            yield Claim(CONFIG_NAME, str(body["config_sha256"]), entry)
        files = body.get("files")
        if entry.kind == "outcome" and isinstance(files, dict):
            yield from (Claim(name, str(sha256), entry) for name, sha256 in files.items() if "/" in name)


def check_inventory(run_dir: Path, entries: Iterable[Entry], present: Iterable[str], ledger: str) -> list[Finding]:
    """Compare the run folder with the ledger; never raises.

    Args:
        present: files that were found by :func:`covered_files`, before the ledger was read: a running run adds more.
        ledger: name of the ledger file itself.
    """
    latest = {_normal(claim.path): claim for claim in claims(entries)}  # a file written again counts as last recorded
    findings: list[Finding] = []
    for name, claim in latest.items():
        findings += _check(run_dir, name, claim)
    unknown = [name for name in present if name not in latest and name != ledger]
    return findings + [Finding(name, 0 if _is_binary(name) else 1, "not in the ledger") for name in unknown]


def covered_files(run_dir: Path) -> tuple[list[str], list[Finding]]:
    """Files that must be in the ledger, relative to ``run_dir``, and folders that could not be listed."""
    found: list[str] = []
    findings: list[Finding] = []

    def unreadable(error: OSError) -> None:
        where = os.path.relpath(str(error.filename), run_dir)
        findings.append(Finding(where, 0, f"cannot be listed: {error.strerror}"))

    for folder, folders, names in os.walk(run_dir, onerror=unreadable):
        inner = PurePosixPath(os.path.relpath(folder, run_dir))
        if not inner.parts:
            folders[:] = sorted(set(folders) - FOREIGN)
        suffixes = {".safetensors", ".jsonl"} | ({".json"} if inner.parts and inner.parts[0] in TRACKED else set())
        found += [
            (inner / name).as_posix()
            for name in sorted(names)
            if PurePosixPath(name).suffix in suffixes and not name.endswith(LEFTOVER)
        ]
    return found, findings


def _check(run_dir: Path, name: str, claim: Claim) -> list[Finding]:
    named = f"ledger line {claim.entry.index + 1} ({claim.entry.kind})"
    try:
        data = _read(run_dir, name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return [Finding(name, 0, f"named by {named} but cannot be read: {reason}")]
    if hashlib.sha256(data).hexdigest() != claim.sha256:
        return [Finding(name, _first_bad_line(name, data), f"its SHA-256 is not the one in {named}")]
    return _check_manifest(name, data, claim.entry.body, named) if claim.is_manifest else []


def _check_manifest(name: str, data: bytes, body: dict[str, Any], named: str) -> list[Finding]:
    try:
        manifest = parse(data)
    except LedgerError as error:
        return [Finding(name, _first_bad_line(name, data), f"not a manifest: {error}")]
    if not isinstance(manifest, dict):
        return [Finding(name, 1, "not a manifest: no JSON object")]
    findings = []
    for field, recorded in (("weights_sha256", body.get("sha256")), ("genome_sha256", body.get("genome"))):
        if field in manifest and recorded is not None and manifest[field] != recorded:
            findings.append(Finding(name, 1, f"its {field} is not that of {named}"))
    return findings


def _read(run_dir: Path, name: str) -> bytes:
    """The bytes of a regular file inside the run folder, links resolved."""
    path = Path(os.path.realpath(run_dir / name))
    if not path.is_relative_to(os.path.realpath(run_dir)):
        raise ValueError("it lies outside of the run folder")
    return read_regular(run_dir / name)


def _first_bad_line(name: str, data: bytes) -> int:
    if _is_binary(name):
        return 0
    try:
        json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        return error.lineno
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1
    except (ValueError, RecursionError):
        return 1
    return 1


def _is_binary(name: str) -> bool:
    return PurePosixPath(name).suffix in _BINARY


def _normal(path: str) -> str:
    return PurePosixPath(path).as_posix()
