"""The versions that a lineage depends on."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import selfimprove

_PACKAGES = ("torch", "numpy", "transformer-lens", "scikit-learn", "optuna", "safetensors")


def versions() -> dict[str, str]:
    """This package, Python and what else moves a result, by name; ``missing`` where it is not installed."""
    found = {"selfimprove": selfimprove.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
