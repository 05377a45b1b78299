"""Settings of the whole suite."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import pytest

with contextlib.suppress(ModuleNotFoundError):  # the engine's own tests run without it
    from hypothesis import HealthCheck, settings

    # a property holds or not, whatever else the machine does meanwhile: time decides nothing here
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the worker: products this small collapse when two threads share a busy core."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ModuleNotFoundError):
            import torch

            torch.set_num_threads(1)
        with contextlib.suppress(ModuleNotFoundError):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(limits=1))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """The disk of this machine is not on trial, and slow: a played run would wait a thousand times for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """pyplot keeps every figure until it is told not to, and warns at twenty, however many tests those come from."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
