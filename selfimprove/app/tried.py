"""``selfimprove candidates``: every candidate of a run in a file that optuna-dashboard opens."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from selfimprove.app import folder
from selfimprove.app.units import count
from selfimprove.app.view import CandidateRow, RunView
from selfimprove.errors import DiskError, RunError
from selfimprove.loop.optuna_journal import FILE_NAME, End, Tried, write_journal

_ENDS: dict[str, End] = {"scored": "scored", "promoted": "scored", "rejected": "scored", "stopped": "stopped",
                         "valid": "open"}  # fmt: skip


def candidates(arguments: argparse.Namespace) -> int:
    """Write the file, and say how it is opened.

    Raises:
        RunError: the ledger cannot be read, or the file not be written.
    """
    run_dir = folder.find_run(arguments.run)
    view = RunView()
    for kind, body in folder.records(run_dir):
        view.apply(kind, body)
    try:
        path = write_candidates(run_dir, view)
    except DiskError as error:
        raise RunError("write the candidates", error.value, "a disk that takes them", error.remedy) from error
    if arguments.json:
        print(json.dumps({"path": str(path), "candidates": len(view.candidates)}, indent=2))
    else:
        print(path)
        print(
            f"{count(len(view.candidates), 'candidate')}. Look at them with: optuna-dashboard {shlex.quote(str(path))}"
        )
    return 0


def write_candidates(run_dir: Path, view: RunView) -> Path:
    """Write ``candidates.optuna`` into a run folder; raises DiskError where the disk refuses."""
    rows = [_tried(row, view) for _, row in sorted(view.candidates.items())]
    about = {"experiment": view.experiment, "seed": view.config.get("seed"), "charged_flops": view.charged_flops}
    return write_journal(run_dir / FILE_NAME, view.run_id or run_dir.name, rows, about)


def _tried(row: CandidateRow, view: RunView) -> Tried:
    end = _ENDS.get(row.status, "failed")
    attributes = {
        "generation": row.generation,
        "index": row.index,
        "fate": row.status,
        "edits": list(row.edits),
        "kinds": list(row.kinds),
        "genome": row.genome,
        "parent": row.parent,
        "charged_flops": row.flops,
        "halt_retention": row.retention,
        "reason": row.reason,
    }
    if end == "scored" and row.skill is None:  # decided upon, and its score is not in this ledger
        end = "failed"
    return Tried(end, row.skill, view.genomes.get(row.genome), attributes)
