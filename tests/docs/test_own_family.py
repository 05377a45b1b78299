"""The family that the documentation shows keeps its splits apart, and the pages say what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from selfimprove.tasks import registry
from selfimprove.tasks.suite import TasksConfig, TaskSuite, check_promises
from tests.docs.pages import DOCS, files

PAGE = DOCS / "how-to" / "task.md"


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TasksConfig:
    """Tasks with the family of the page."""
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))
    module = tmp_path / "majority.py"
    module.write_text(files((PAGE,))["my_lab/majority.py"])
    runpy.run_path(str(module))
    return TasksConfig(families=("recall", "majority"))


def test_what_the_gate_asks_is_hardly_ever_seen_in_training(tasks: TasksConfig) -> None:
    suite = TaskSuite(tasks)
    trained = {row.tobytes() for row in suite.batch("train", "majority", 4000, 0).tokens}
    asked = suite.batch("gate", "majority", 192, 0).tokens
    assert sum(row.tobytes() in trained for row in asked) < 0.05 * len(asked)


def test_it_keeps_its_promises_at_every_level(tasks: TasksConfig) -> None:
    check_promises(tasks)
