"""The live view for programs: one JSON object a line on standard output, and nothing else there.

Log lines go to standard error. Every line has ``event``, ``time`` (UTC) and the totals so far; keys are stable.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.logging import RichHandler

from selfimprove.app.progress import Summary, best_so_far
from selfimprove.app.view import RunView

LEAST_SECONDS = 1.0  # between two lines of progress
TOLD = frozenset({"proposal", "denial", "decision", "handover", "generation", "tripwire", "unattended"})
_OF_EVENT = {
    "proposal": ("generation", "index", "edits", "status", "reason"),
    "denial": ("generation", "index", "reason", "limit"),
    "decision": ("generation", "index", "promoted", "reasons"),
    "handover": ("generation", "accepted", "contender", "reasons"),
    "generation": ("generation", "champion", "promoted"),
    "tripwire": ("generation", "trips"),
    "unattended": ("key", "reason"),
    "progress": ("generation", "label", "done", "total", "share"),
}


class JsonProgress:
    """An observer that writes a line for each decision, and now and then how far the run is."""

    def __init__(self, view: RunView, out: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._out = out or sys.stdout
        self._clock = clock
        self._last = float("-inf")

    def __enter__(self) -> JsonProgress:
        _log_to_standard_error()
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in a record; the view is already up to date."""
        if kind == "progress":
            if self._clock() - self._last < LEAST_SECONDS:
                return
            self._last = self._clock()
        elif kind not in TOLD or (kind == "tripwire" and not body["trips"]):
            return
        self.write(kind, {name: body.get(name) for name in _OF_EVENT[kind]})

    def end(self, summary: Summary, run_dir: Path, report: Path | None, notes: tuple[str, ...]) -> None:
        """The last line: how the run ended."""
        told = {name: getattr(summary, name) for name in ("state", "reason", "lineage_sha256", "tripped")}
        paths = {"run": str(run_dir), "report": str(report) if report else None}
        self.write("end", {**told, **paths, "notes": [" ".join(note.split()) for note in notes]})

    def write(self, event: str, fields: Mapping[str, Any]) -> None:
        """One line, at once: whoever reads it follows a run that goes on."""
        view = self._view
        totals = {
            "generations_done": view.generation,
            "generations": view.planned,
            "candidates": len(view.candidates),
            "denied": view.denied,
            "failed": view.failed,
            "best_skill": best_so_far(view),
            "charged_flops": view.charged_flops,
            "limit_flops": view.limit_flops,
        }
        line = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields, **totals}
        print(json.dumps(line, ensure_ascii=False), file=self._out, flush=True)


def _log_to_standard_error() -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RichHandler):
            handler.console = Console(stderr=True)
        elif isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(sys.stderr)
