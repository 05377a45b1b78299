"""What the studies share: the default experiment, where results go, and a description of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.executors.node import processor
from selfimprove.loop.config import RunConfig
from selfimprove.tasks.suite import TasksConfig

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def default_config(*overrides: str) -> RunConfig:
    """The default experiment on the CPU, with overrides."""
    return settings_from(compose(["device=cpu", *overrides])).run


def tasks_described(tasks: TasksConfig) -> dict[str, Any]:
    """What a line of a study says about the tasks that it was measured on; as JSON would give it back."""
    return {
        "families": list(tasks.families),
        "levels": [tasks.levels.get(name, 0) for name in tasks.families],
        "vocab_size": tasks.vocab_size,
        "context": tasks.context,
        "eval_sequences": tasks.eval_sequences,
    }


_CODE = (
    *("selfimprove", "interp", "conf", "benchmarks/*.py", "benchmarks/black_box_split.json"),
    *("pyproject.toml", "constraints.txt"),
)
"""What a figure depends on, as git finds it; not the results, which change as they are measured."""


def machine() -> dict[str, str | int]:
    """Where a figure was measured, without a name that could lead there."""
    return {
        "processor": processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "optuna")},
    }


def machines(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The different machines on which rows were measured, each of which says its own among other things."""
    said = {tuple((name, row[name]) for name in machine() if name in row) for row in rows}
    return [dict(one) for one in sorted(said, key=str)]


def origin(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The commits and the machines that rows were measured with: what a summary of several sittings was made by."""
    rows = list(rows)
    return {
        "commits": sorted({row["commit"] for row in rows}),
        "machines": machines(row["machine"] for row in rows),
    }


def own_code() -> dict[str, str]:
    """The environment of a process that must run the code of this checkout, whatever is installed."""
    return {**os.environ, "PYTHONPATH": os.fspath(ROOT)}


def commit() -> str:
    """The commit of the checkout, with a plus sign if tracked code differs from it; ``unknown`` without git."""
    try:
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return _git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
