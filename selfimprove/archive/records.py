"""The ledger's records as they stand, for whoever shows or studies a run; ``audit`` and ``ledger.read`` check them."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from selfimprove.errors import RunError

LEDGER_NAME = "ledger.jsonl"
HALT_NAME = "HALT"
"""The file in a run folder that is its kill switch."""
FINAL = "1/1"
"""The stage of a checkpoint that was trained to the end."""
Bodies = defaultdict[str, list[dict[str, Any]]]
_JOB_KEY = re.compile(r"g(\d{1,6})(?:/c(\d{1,6}))?(?:/|$)")


def records(run_dir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(kind, body)`` of every record, in order. A last line without a newline is a torn write and is skipped.

    Raises:
        OSError: the ledger cannot be read.
        RunError: a complete line that is not a record.
    """
    path = run_dir / LEDGER_NAME
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
            kind, body = record["kind"], record["body"]
            if not isinstance(kind, str) or not isinstance(body, dict):
                raise TypeError("kind or body")
        except (ValueError, KeyError, TypeError) as error:
            remedy = "selfimprove audit shows what is damaged"
            raise RunError("read", f"{path}, line {number}", "one JSON record a line", remedy) from error
        yield kind, body


def by_kind(found: Iterable[tuple[str, dict[str, Any]]]) -> Bodies:
    """Bodies by kind, oldest first; none of a kind that the ledger lacks."""
    bodies = Bodies(list)
    for kind, body in found:
        bodies[kind].append(body)
    return bodies


def gains_are_known(reference: Mapping[str, Any]) -> bool:
    """Whether every training of a generation's parent gave a model, so that a skill less the parent's says something.

    Args:
        reference: body of the generation's ``reference`` record.
    """
    return not reference.get("failed")


def job_place(key: str) -> tuple[int | None, int | None]:
    """Generation and candidate index named by a job key such as ``g003/c05/s1``; None for what it does not name."""
    found = _JOB_KEY.match(key)
    if found is None:
        return None, None
    return int(found.group(1)), None if found.group(2) is None else int(found.group(2))
