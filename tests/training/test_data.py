"""The batches of the training split, in the mixture of a recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selfimprove.genome.recipe import EVEN, Recipe
from selfimprove.tasks import registry
from selfimprove.tasks.batch import TAGS, IntArray
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.suite import TasksConfig, TaskSuite
from selfimprove.training.data import CHUNK, training_batches

THREE = TasksConfig(families=("recall", "copy", "modular"), halt_share=0.0)


def sequences(recipe: Recipe) -> IntArray:
    """Those of as many steps as are generated at a time, ``[n, pos]``."""
    next_batch = training_batches(TaskSuite(THREE), recipe, seed=0)
    return np.concatenate([next_batch(step)[0].numpy() for step in range(CHUNK)])


@pytest.mark.parametrize("weight", [2, 4, 8])
def test_a_favored_family_takes_more_turns_and_the_others_see_fewer_sequences(weight: int) -> None:
    even, favoring = (sequences(Recipe(batch=15, mixture=name, mixture_weight=weight)) for name in (EVEN, "copy"))
    assert len(favoring) == len(even)
    turn = [TAGS["recall"], *[TAGS["copy"]] * weight, TAGS["modular"]]
    assert favoring[:, 0].tolist() == (turn * len(favoring))[: len(favoring)]
    for name, shared in (("recall", 0), ("modular", 1)):  # modular draws row by row, recall a column for all rows
        usual, left = (rows[rows[:, 0] == TAGS[name]] for rows in (even, favoring))
        assert len(left) < len(usual)
        assert (left == usual[: len(left)]).all(axis=1).mean() == shared


def test_an_even_mixture_has_equal_shares_whatever_a_family_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "FAMILIES", FAMILIES | {EVEN: replace(FAMILIES["copy"], name=EVEN)})
    suite = TaskSuite(replace(THREE, families=("recall", EVEN)))
    counted: list[int] = []
    draw = suite._draw
    monkeypatch.setattr(suite, "_draw", lambda *given: counted.append(given[3]) or draw(*given))
    training_batches(suite, Recipe(batch=8), seed=0)(0)
    assert counted == [256, 256]
