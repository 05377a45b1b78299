"""The worker entry of a researcher's own attacks: loads a file from a descriptor and calls one function of it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
from typing import Any, Final

from selfimprove.containment.redteam.attack import Emit

SOURCE: Final = "source"
LOADED: Final = "loaded"
_MODULE: Final = "probe"


class _FromDescriptor(importlib.abc.SourceLoader):
    """Loads a module whose path cannot be opened here: its text was handed in."""

    def __init__(self, source: int, name: str) -> None:
        self._source = source
        self._name = name

    def get_filename(self, fullname: str) -> str:
        """The name that tracebacks show."""
        return self._name

    def get_data(self, path: bytes | str) -> bytes:
        """The whole text."""
        return os.pread(self._source, os.fstat(self._source).st_size, 0)


def warm_up() -> None:
    """Nothing to warm."""


def run(job: dict[str, Any], inputs: dict[str, int], outputs: dict[str, int], emit: Emit) -> dict[str, Any]:
    """Call ``job["function"]`` of the file; returns ``escaped``, or ``unloadable`` if the file itself raised.

    Raises:
        Exception: whatever the function raises.
    """
    here = os.getpid()
    spec = importlib.util.spec_from_loader(_MODULE, _FromDescriptor(inputs[SOURCE], job["file"]))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        return {"unloadable": f"{type(error).__name__}: {error}"}
    emit({LOADED: True})
    try:
        return {"escaped": bool(getattr(module, job["function"])())}
    finally:
        if os.getpid() != here:  # a copy of the worker, which must not speak for it
            os._exit(0)
