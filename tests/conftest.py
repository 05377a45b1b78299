"""Settings of the whole suite."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

with contextlib.suppress(ModuleNotFoundError):  # the engine's own tests run without it
    from hypothesis import HealthCheck, settings

    # a property holds or not, whatever else the machine does meanwhile: time decides nothing here
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """pyplot keeps every figure until it is told not to, and warns at twenty, however many tests those come from."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
