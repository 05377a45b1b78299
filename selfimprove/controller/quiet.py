"""Optuna without its messages: it announces every study."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import optuna


@contextlib.contextmanager
def quiet(level: int = optuna.logging.WARNING) -> Iterator[None]:
    """Only messages of this level and above, as long as it lasts."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(level)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
