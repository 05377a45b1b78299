"""Instruments of one's own: where the modules that register them lie, and whether they register what is asked for.

They are found among what is installed, or in the folder that the command was typed in. Nothing is imported here: that
is for the worker that inspects, which is contained.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from selfimprove.containment.jobs import Completed, Job, JobLimits
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import ConfigError, RunFailed
from selfimprove.loop.config import InspectionConfig
from selfimprove.loop.slots import describe

INSPECTOR = "interp.worker"
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def import_folders(modules: Sequence[str], here: Path) -> tuple[Path, ...]:
    """The folders that packages of one's own are imported from, each once.

    Args:
        modules: ``package.module``, each.
        here: the folder that is looked in where no such package is installed.

    Raises:
        ConfigError: a name of another form, or a module that is not there.
    """
    found = []
    for name in modules:
        if not _NAME.fullmatch(name):
            limit = "the dotted name of a module in a package: my_package.my_probe"
            raise ConfigError("set inspection.modules", name, limit, "put the module into a package")
        folder = next((place for place in (*sys.path, os.fspath(here)) if _lies_in(name, place)), None)
        if folder is None and find_spec(name.partition(".")[0]) is None:  # an editable installation has its own finder
            limit = f"a module that is installed, or lies in a package in {here}"
            raise ConfigError("set inspection.modules", name, limit, "install its package, or run where it lies")
        found += [] if folder is None else [Path(folder).absolute()]
    return tuple(dict.fromkeys(found))


def check_registered(supervisor: Supervisor, asked: InspectionConfig, limits: JobLimits) -> None:
    """Whether every instrument that is asked for is registered once the modules are imported.

    Raises:
        RunFailed: one is not, or the worker does not say.
    """
    job = Job("instruments", "lens", INSPECTOR, {"op": "list"}, {}, (), limits)
    [(_, outcome)] = list(supervisor.run([job]))
    known = outcome.result.get("instruments") if isinstance(outcome, Completed) else None
    if not isinstance(known, list):
        raise RunFailed("list the instruments", describe(outcome)[1] or known, "a worker that lists them")
    for name in (*asked.instruments, *asked.also):
        if name not in known:
            remedy = f"correct it, or register it in one of inspection.modules: {', '.join(asked.modules)}"
            raise RunFailed("inspect with instrument", name, ", ".join(map(str, known)), remedy)


def _lies_in(name: str, folder: str) -> bool:
    """Whether a module lies in a package in this folder; looked up part by part, without importing what holds it."""
    parts, places = name.split("."), [folder]
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), places)
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or ())
    return True
