"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfimprove.genome.fields import FIELDS
from selfimprove.genome.recipe import Recipe
from selfimprove.training.schedule import rate

schedules = st.sampled_from([str(choice) for choice in FIELDS["recipe.schedule"].choices])
fractions = st.floats(0.05, 0.95)


@given(schedule=schedules, warmup=st.floats(0, 0.5), cooldown=fractions, steps=st.integers(1, 300))
@example(schedule="wsd", warmup=0.0, cooldown=0.05, steps=20)  # at its first falling step a quotient of 1 + 1e-15
def test_a_rate_is_a_positive_part_of_its_peak(schedule: str, warmup: float, cooldown: float, steps: int) -> None:
    recipe = Recipe(schedule=schedule, warmup=warmup, cooldown=cooldown)
    assert all(0 < rate(recipe, step, steps) <= 1 for step in range(steps))


@given(cooldown=fractions)
def test_wsd_is_stable_until_its_cooldown_and_falls_evenly_from_there(cooldown: float) -> None:
    recipe, steps = Recipe(schedule="wsd", warmup=0.0, cooldown=cooldown), 1000
    rates = [rate(recipe, step, steps) for step in range(steps)]
    for step, found in enumerate(rates):
        done = step / steps
        assert found == pytest.approx(min(1.0, (1 - done) / cooldown))


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", lambda done: 1.0),
        ("cosine", lambda done: (1 + math.cos(math.pi * done)) / 2),  # Loshchilov and Hutter 2017, arXiv 1608.03983
        ("linear", lambda done: 1 - done),
    ],
)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_a_rate_rises_evenly_and_then_follows_its_formula(
    schedule: str, after: Callable[[float], float], warmup: float
) -> None:
    steps, rising = 200, int(200 * warmup)
    recipe = Recipe(schedule=schedule, warmup=warmup)
    found = [rate(recipe, step, steps) for step in range(steps)]
    assert found[:rising] == pytest.approx([(step + 1) / (rising + 1) for step in range(rising)])
    assert found[rising:] == pytest.approx([after(step / (steps - rising)) for step in range(steps - rising)])


def test_only_wsd_has_a_cooldown() -> None:
    for schedule in ("constant", "cosine", "linear"):
        one, other = (Recipe(schedule=schedule, cooldown=cooldown) for cooldown in (0.1, 0.7))
        assert [rate(one, step, 50) for step in range(50)] == [rate(other, step, 50) for step in range(50)]
