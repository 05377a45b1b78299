"""Heads that are closed with their test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.executors.head import Head


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Head]:
    def of(*arguments: Any, **changes: Any) -> Head:
        head = Head(tmp_path, *arguments, **changes)
        request.addfinalizer(head.executor.close)
        return head

    return of
