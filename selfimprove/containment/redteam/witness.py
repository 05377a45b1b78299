"""A worker without intentions: reads one file if it can, or stays busy. Says what happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def warm_up() -> None:
    """Nothing to warm."""


def run(
    job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """With ``read``: whether that file could be read. With ``busy``: sign of life after sign of life."""
    while job.get("busy"):
        emit({"busy": True})
        time.sleep(0.02)
    try:
        return {"read": bool(Path(job["read"]).read_bytes()), "refusal": ""}
    except OSError as error:
        return {"read": False, "refusal": type(error).__name__}
