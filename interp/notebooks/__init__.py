"""Notebooks, and what they share: a run to open, and results shown alike.

Each is a script in jupytext's percent format, paired with an ``.ipynb`` of the same name without outputs:

    jupyter lab interp/notebooks/tour.ipynb      # read and change one
    jupytext --sync interp/notebooks/*.ipynb     # after a change of either half
    python interp/notebooks/tour.py              # tables only

They need the extra ``notebooks``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from interp.runs import latest_run
from interp.verdict import NotApplicable, Unreadable
from selfimprove.errors import RunError

RUN = "SELFIMPROVE_RUN"
_T = TypeVar("_T")


def open_or_make_run(*overrides: str) -> Path:
    """The run folder in ``$SELFIMPROVE_RUN``, else the latest run, else a new, tiny one in a temporary folder.

    Args:
        overrides: of the new run; ``experiment=tiny`` without any: about a minute.

    Raises:
        RunError: the new run failed; the message ends with the last lines that it wrote.
    """
    if given := os.environ.get(RUN):
        return Path(given)
    try:
        return latest_run()
    except RunError:
        return _make_run(overrides or ("experiment=tiny",))


def _make_run(overrides: Iterable[str]) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="selfimprove-"))
    print(f"No run was found here: a tiny one is being made in {folder}, which takes about a minute.")
    command = [sys.executable, "-m", "selfimprove.app.cli", "run", *overrides, "tracking=none"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise RunError("make a run for a notebook", " ".join(overrides), f"one that ends well; it said: {said}")
    run = latest_run(folder)
    print(f"To open the same one elsewhere: {RUN}={run}")
    return run


def show(read: Callable[..., _T], *arguments: Any, digits: int = 2, **options: Any) -> _T | None:
    """Print the table of ``read(*arguments, **options)`` and plot it; say so where it does not apply to the model.

    Args:
        read: gives a result with ``to_pandas`` and ``plot``.
        arguments, options: of ``read``.
        digits: of the numbers in the table.
    """
    try:
        result: Any = read(*arguments, **options)
    except (NotApplicable, Unreadable) as reason:
        print(f"{type(reason).__name__}: {reason}")
        return None
    print(result.to_pandas().round(digits).to_string(index=False))
    result.plot()
    found: _T = result
    return found
