"""The worker's entry module."""

from __future__ import annotations

import pytest

from selfimprove.controller import worker
from selfimprove.controller.config import ControllerConfig


def test_warming_up_needs_nothing_and_changes_no_result() -> None:
    worker.warm_up()


def test_an_unknown_operation_is_refused() -> None:
    job = {"op": "obey", "seed": 1, "init": 1, "space": {}, "genome": ControllerConfig(width=32).genome().to_json()}
    with pytest.raises(ValueError, match="ask, tell"):
        worker.run(job, {}, {}, lambda event: None)
