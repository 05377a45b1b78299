"""Studies and benchmarks by name: ``module:function``, called with the remaining arguments, returning the exit code.

They live in the checkout's ``benchmarks/`` and are no part of the installed package.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selfimprove.app.schema import listing, suggest
from selfimprove.errors import ConfigError

STUDIES: Mapping[str, str] = {
    "improvement": "benchmarks.improvement:main",
    "meta-alignment": "benchmarks.meta_alignment:main",
    "recursion": "benchmarks.recursion:main",
    "faults": "benchmarks.faults:main",
    "halving": "benchmarks.halving:main",
    "space": "benchmarks.space:main",
    "sweep": "benchmarks.sweep:main",
    "calibration": "benchmarks.calibration:main",
    "grokking": "benchmarks.grokking:main",
    "induction": "benchmarks.induction:main",
    "controller": "benchmarks.controller:main",
    "samplers": "benchmarks.samplers:main",
    "search": "benchmarks.search:main",
}
BENCHMARKS: Mapping[str, str] = {
    "containment": "benchmarks.containment:main",
    "inspection": "benchmarks.inspection:main",
    "ladder": "benchmarks.ladder:main",
    "planted": "benchmarks.planted:main",
    "planted-recursion": "benchmarks.planted_recursion:main",
    "proposers": "benchmarks.proposers:main",
}


def dispatch(kind: str, registry: Mapping[str, str], name: str | None, arguments: Sequence[str]) -> int:
    """Run a registered study or benchmark; without a name, print those that there are.

    Raises:
        ConfigError: an unknown name, or one whose code is not there (an installed package without a checkout).
    """
    if name is None:
        width = max(map(len, registry), default=0)
        print("\n".join(f"{known:<{width}}  {purpose(entry)}" for known, entry in registry.items()))
        return 0
    if name not in registry:
        known = listing(registry) or "none in this version"
        raise ConfigError(f"choose a {kind}", name, known, suggest(name, registry) or "choose one of these")
    module, _, function = registry[name].partition(":")
    try:
        entry: Callable[[Sequence[str]], int] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise
        limit = f"a checkout that holds {module}"
        raise ConfigError(f"run {kind}", name, limit, "run it from the repository") from error
    return entry(arguments)


def purpose(entry: str) -> str:
    """The first line of what a study's module says of itself; its code is read and not imported."""
    module = entry.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        return f"in a checkout that holds {module}"
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0]
