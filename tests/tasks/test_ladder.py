"""The rule of the ladder: one step up for what is mastered, never down, never past the top."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.tasks.ladder import MASTERED, climb

NAMES = ("recall", "copy", "dyck")
SKILLS = st.dictionaries(st.sampled_from(NAMES), st.floats(-1, 1.1) | st.just(math.nan))


@st.composite
def standings(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, int]]:
    tops = {name: draw(st.integers(0, 4)) for name in NAMES}
    return {name: draw(st.integers(0, top)) for name, top in tops.items()}, tops


@given(standings(), SKILLS)
def test_a_family_rises_by_one_exactly_where_it_was_mastered_below_its_top(
    standing: tuple[dict[str, int], dict[str, int]], skills: dict[str, float]
) -> None:
    levels, tops = standing
    found = climb(levels, skills, tops)
    for name in NAMES:
        mastered = skills.get(name, 0.0) > MASTERED
        assert found.levels[name] - levels[name] == (mastered and levels[name] < tops[name])
        assert (name in found.risen) == (found.levels[name] > levels[name])
        assert (name in found.capped) == (mastered and levels[name] == tops[name])


@given(standings(), st.lists(SKILLS, max_size=8))
def test_no_history_of_promotions_leads_down_or_past_the_top(
    standing: tuple[dict[str, int], dict[str, int]], history: list[dict[str, float]]
) -> None:
    levels, tops = standing
    for skills in history:
        after = climb(levels, skills, tops).levels
        assert all(levels[name] <= after[name] <= tops[name] for name in NAMES)
        levels = after


def test_a_skill_of_exactly_the_threshold_is_not_enough() -> None:
    assert climb({"copy": 0}, {"copy": MASTERED}, {"copy": 3}).risen == ()


def test_a_level_above_what_fits_now_does_not_fall() -> None:
    assert climb({"copy": 3}, {"copy": 1.0}, {"copy": 1}).levels == {"copy": 3}


def test_the_levels_given_are_left_alone() -> None:
    levels = {"copy": 0}
    climb(levels, {"copy": 1.0}, {"copy": 3})
    assert levels == {"copy": 0}


def test_a_skill_of_a_family_that_has_no_level_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="different families: dyck"):
        climb({"copy": 0}, {"dyck": 1.0}, {"copy": 3})


def test_a_family_without_a_top_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="different families: copy"):
        climb({"copy": 0}, {}, {})
