"""The batches of the training split, in the mixture of a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selfimprove.genome.recipe import EVEN, Recipe
from selfimprove.tasks import registry
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.data import training_batches

THREE = TasksConfig(families=("recall", "copy", "modular"), halt_share=0.0)


def test_an_even_mixture_has_equal_shares_whatever_a_family_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", FAMILIES | {EVEN: replace(FAMILIES["copy"], name=EVEN)})
    suite = TaskSuite(replace(THREE, families=("recall", EVEN)))
    counted: list[int] = []
    draw = suite._draw
    monkeypatch.setattr(suite, "_draw", lambda *given: counted.append(given[3]) or draw(*given))
    training_batches(suite, Recipe(batch=8), seed=0)(0)
    assert counted == [256, 256]
