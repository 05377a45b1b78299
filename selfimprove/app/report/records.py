"""Ledger lines as tolerant records: whatever is missing, extra or malformed yields None, never an exception.

The report must be readable for a run that was halted, ran into a limit, is still being written, or comes from a newer
version with more fields. So every field is read through one of the small functions below, which check the type.
Trust is not decided here: `selfimprove audit` verifies the chain and the signatures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfimprove.archive.records import LEDGER_NAME as LEDGER
from selfimprove.canonical import finite
from selfimprove.errors import RunError
from selfimprove.loop.standing import is_running


@dataclass(frozen=True)
class Record:
    """One ledger line.

    Attributes:
        kind: what is recorded, for example ``score``.
        body: its fields; an empty mapping where the line has none.
        time: UTC time in ISO format, as written; empty when absent.
        hash: hash of the line in the chain, hexadecimal; empty when absent.
    """

    kind: str
    body: Mapping[str, Any]
    time: str = ""
    hash: str = ""


@dataclass(frozen=True)
class Records:
    """All readable lines of one ledger, in order.

    Attributes:
        lines: the lines.
        unreadable: how many more could not be read.
        under_way: whether a process was writing to it.
    """

    lines: tuple[Record, ...]
    unreadable: int = 0
    under_way: bool = False

    def of(self, kind: str) -> tuple[Record, ...]:
        """The records of one kind, in ledger order."""
        return tuple(line for line in self.lines if line.kind == kind)

    def last(self, kind: str) -> Mapping[str, Any]:
        """The body of the last record of one kind, or an empty mapping."""
        return next((line.body for line in reversed(self.lines) if line.kind == kind), {})


def read_records(run_dir: Path) -> Records:
    """Read ``ledger.jsonl`` of a run folder.

    Raises:
        RunError: the folder or its ledger is missing or cannot be opened.
    """
    path = run_dir / LEDGER
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(
            "read the run's ledger", str(path), f"a folder that holds {LEDGER}", f"name another run ({error.strerror})"
        ) from error
    lines = [_record(line) for line in content.splitlines() if line.strip()]
    readable = tuple(line for line in lines if line is not None)
    return Records(readable, unreadable=len(lines) - len(readable), under_way=is_running(run_dir))


def _record(line: bytes) -> Record | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        return None
    return Record(entry["kind"], mapping(entry.get("body")), text(entry.get("time")), text(entry.get("hash")))


def integer(value: object) -> int | None:
    """A whole number, else None."""
    result = finite(value)
    return int(result) if result is not None and result == int(result) else None


def text(value: object, limit: int = 600) -> str:
    """A string of at most ``limit`` characters; anything but a string gives the empty string."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= limit else value[: limit - 1] + "…"


def shown(value: object) -> str:
    """Any value as short text: strings as they are, numbers compactly, the rest as JSON."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else text(json.dumps(value, ensure_ascii=False, default=str))


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping with string keys, else an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def texts(value: object) -> tuple[str, ...]:
    """The strings of a sequence; a bare string counts as one."""
    if isinstance(value, str):
        return (text(value),)
    return tuple(text(item) for item in value if isinstance(item, str)) if isinstance(value, Sequence) else ()


def numbers(value: object) -> tuple[float | None, ...]:
    """The items of a sequence as finite numbers or None; a bare number counts as one."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        single = finite(value)
        return () if single is None else (single,)
    return tuple(finite(item) for item in value)


def place(line: Record) -> tuple[int, int] | None:
    """Generation and index of a candidate's record; None for the seed genome and for what names no candidate."""
    generation, index = integer(line.body.get("generation")), integer(line.body.get("index"))
    return None if generation is None or index is None or index < 0 else (generation, index)
