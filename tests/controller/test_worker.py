"""The worker's entry module."""

from __future__ import annotations

from typing import Any

import pytest

from selfimprove.controller import worker
from selfimprove.controller.config import ControllerConfig


def asked() -> dict[str, Any]:
    """What the worker proposes."""
    genome = ControllerConfig(width=32).genome().to_json()
    job = {"op": "ask", "seed": 1, "init": 1, "space": {}, "genome": genome, "parents": [genome]}
    return worker.run(job | {"rows": 4, "temperature": 1.0, "epsilon": 0.1}, {}, {}, lambda event: None)


def test_warming_up_needs_nothing_and_changes_no_result() -> None:
    expected = asked()
    worker.warm_up()
    assert asked() == expected
    assert len(expected["proposals"]) == 4


def test_an_unknown_operation_is_refused() -> None:
    job = {"op": "obey", "seed": 1, "init": 1, "space": {}, "genome": ControllerConfig(width=32).genome().to_json()}
    with pytest.raises(ValueError, match="ask, tell"):
        worker.run(job, {}, {}, lambda event: None)
