"""How large the steps are: what grows only grows, covers every step, and is whole from the middle on."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from selfimprove.genome.fields import FIELDS
from selfimprove.genome.recipe import SMALLEST_BATCH, Recipe
from selfimprove.nets.phases import GROWN, Size, phases, sizes

GROWING = ("batch", "batch_start", "context", "context_start")
recipes = st.builds(Recipe, **{name: st.sampled_from(FIELDS[f"recipe.{name}"].choices) for name in GROWING})


@given(recipe=recipes, context=st.integers(1, 64), steps=st.integers(0, 500))
def test_phases_cover_every_step_once_in_order(recipe: Recipe, context: int, steps: int) -> None:
    seen = [step for part in phases(recipe, context, steps) for step in range(part.first, part.last)]
    assert seen == list(range(steps))


@given(recipe=recipes, context=st.integers(1, 64))
def test_nothing_shrinks_and_two_sizes_in_a_row_differ(recipe: Recipe, context: int) -> None:
    for one, other in pairwise(sizes(recipe, context).values()):
        assert one.rows <= other.rows
        assert one.length <= other.length
        assert one != other


@given(recipe=recipes, context=st.integers(1, 64))
def test_sizes_are_whole_from_the_middle_on_and_no_batch_is_too_small(recipe: Recipe, context: int) -> None:
    found = sizes(recipe, context)
    assert max(found) <= GROWN
    assert list(found.values())[-1].rows == recipe.batch
    assert list(found.values())[-1].length == max(1, round(context * recipe.context))
    assert all(size.rows >= SMALLEST_BATCH and size.length >= 1 for size in found.values())


def test_a_batch_doubles_at_equal_intervals() -> None:
    found = sizes(Recipe(batch=64, batch_start=0.125), 24)
    assert {at: size.rows for at, size in found.items()} == {
        Fraction(0): 8,
        Fraction(1, 6): 16,
        Fraction(1, 3): 32,
        Fraction(1, 2): 64,
    }


def test_batch_and_sequences_grow_side_by_side() -> None:
    grown = sizes(Recipe(batch=32, batch_start=0.25, context=0.75, context_start=0.5), 24)
    assert list(grown.values()) == [Size(8, 9), Size(16, 9), Size(32, 18)]


@given(recipe=recipes, context=st.integers(1, 64))
def test_recipes_of_one_effect_have_the_same_sizes(recipe: Recipe, context: int) -> None:
    smaller = replace(recipe, batch_start=recipe.first_batch)
    assert smaller.effective() == recipe.effective()
    assert sizes(smaller, context) == sizes(recipe, context)
