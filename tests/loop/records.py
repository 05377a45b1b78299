"""What a test reads in the ledger of a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfimprove.archive.records import records


def bodies(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The bodies of one kind, oldest first."""
    return [body for found, body in records(folder) if found == kind]
