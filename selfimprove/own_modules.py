"""Modules of one's own: where they lie, and importing them.

They are found among what is installed, or in the folder that the command was typed in, and named ``package.module``.
"""

from __future__ import annotations

import difflib
import os
import pkgutil
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
    """The folders that packages of one's own are imported from, each once. Nothing of them is executed.

    Args:
        modules: ``package.module``, each.
        here: the folder that is looked in where no such package is installed.
        key: configuration key that names them, for the message.

    Raises:
        ConfigError: a name of another form, or a module that is not there; the message has the nearest that is.
    """
    found = []
    for name in modules:
        if not _NAME.fullmatch(name):
            limit = "the dotted name of a module in a package: my_package.my_probe"
            raise ConfigError(f"set {key}", name, limit, "put the module into a package")
        parts, places = name.split("."), (*sys.path, os.fspath(here))
        folder = next((place for place in places if _descend(parts, 0, [place])[0] == len(parts)), None)
        if folder is None and not _is_installed(parts):
            limit = f"a module that is installed, or lies in a package in {here}"
            remedy = _nearest(parts, here) or "install its package, or run where it lies"
            raise ConfigError(f"set {key}", name, limit, remedy)
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


def _is_installed(parts: Sequence[str]) -> bool:
    """Whether a module is in a package that a finder of its own knows, as an editable installation has one."""
    return _descend(parts, 1, _known(parts[0]))[0] == len(parts)


def _known(top: str) -> list[str]:
    """Where the modules of a package lie that can be imported here, or is already."""
    try:
        spec = find_spec(top)
    except ValueError:  # what was run as a script has no specification
        return []
    return [] if spec is None else list(spec.submodule_search_locations or ())


def _descend(parts: Sequence[str], depth: int, places: Sequence[str]) -> tuple[int, Sequence[str]]:
    """Look a module's name up part by part, without importing what holds it.

    Args:
        parts: of its name.
        depth: how many of them are found already.
        places: folders that the next one may lie in.

    Returns:
        How many are found in the end, and the folders that the next one would lie in.
    """
    while depth < len(parts):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), list(places))
        if spec is None:
            break
        depth, places = depth + 1, list(spec.submodule_search_locations or ())
    return depth, places


def _nearest(parts: Sequence[str], here: Path) -> str:
    """A remedy: the name with its first missing part as the nearest one that is there; empty where none is near."""
    known = _known(parts[0])
    depth, places = _descend(parts, 1, known) if known else _descend(parts, 0, [*sys.path, os.fspath(here)])
    there = [module.name for module in pkgutil.iter_modules(places)]
    near = difflib.get_close_matches(parts[depth], there, n=1)
    return f"did you mean {'.'.join([*parts[:depth], *near, *parts[depth + 1 :]])!r}?" if near else ""
