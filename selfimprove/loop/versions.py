"""The versions that a lineage depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import selfimprove
from selfimprove.executors.versions import HEAD_ONLY, SOURCES, sources_sha256

_PACKAGES = ("torch", "numpy", "transformer-lens", "scikit-learn", "optuna", "safetensors")


def versions() -> dict[str, str]:
    """This package with a hash of its sources, Python and what else moves a result; ``missing`` if not installed."""
    found = {"selfimprove": selfimprove.__version__, SOURCES: sources_sha256(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def versions_on_nodes() -> dict[str, str]:
    """What a node of a cluster must have to train as this machine would: of our sources only those that it imports."""
    return versions() | {SOURCES: sources_sha256(without=HEAD_ONLY)}
