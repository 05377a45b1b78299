"""Modules of one's own: where they lie, and importing them.

They are found among what is installed, or in the folder that the command was typed in, and named ``package.module``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from selfimprove.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def import_folders(modules: Sequence[str], here: Path, key: str = "inspection.modules") -> tuple[Path, ...]:
    """The folders that packages of one's own are imported from, each once. Nothing is imported.

    Args:
        modules: ``package.module``, each.
        here: the folder that is looked in where no such package is installed.
        key: configuration key that names them, for the message.

    Raises:
        ConfigError: a name of another form, or a module that is not there.
    """
    found = []
    for name in modules:
        if not _NAME.fullmatch(name):
            limit = "the dotted name of a module in a package: my_package.my_probe"
            raise ConfigError(f"set {key}", name, limit, "put the module into a package")
        folder = next((place for place in (*sys.path, os.fspath(here)) if _lies_in(name, place)), None)
        if folder is None and find_spec(name.partition(".")[0]) is None:  # an editable installation has its own finder
            limit = f"a module that is installed, or lies in a package in {here}"
            raise ConfigError(f"set {key}", name, limit, "install its package, or run where it lies")
        found += [] if folder is None else [Path(folder).absolute()]
    return tuple(dict.fromkeys(found))


def load(modules: Sequence[str], key: str) -> None:
    """Import modules of one's own into this very process, each once, so that they can register what they bring.

    It is code that is trusted as this package is.

    Args:
        modules: ``package.module``, each.
        key: configuration key that names them, for the message.

    Raises:
        ConfigError: see `import_folders`; also a module that cannot be imported.
    """
    for name in modules:
        if name in sys.modules:
            continue
        for folder in map(os.fspath, import_folders([name], Path.cwd(), key)):
            if folder not in sys.path:
                sys.path.append(folder)
        try:
            import_module(name)
        except ConfigError:
            raise
        except Exception as error:
            limit = f"a module that can be imported: {type(error).__name__}: {error}"
            raise ConfigError(f"import {key}", name, limit, "correct it") from error


def _lies_in(name: str, folder: str) -> bool:
    """Whether a module lies in a package in this folder; looked up part by part, without importing what holds it."""
    parts, places = name.split("."), [folder]
    for depth in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), places)
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or ())
    return True
