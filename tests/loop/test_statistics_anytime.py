"""Best so far against compute: values counted by hand, and known limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.loop.anytime import Steps, area_under, best_so_far, simple_regret, threshold

CURVE = best_so_far([10, 20, 20, 40], [0.2, 0.1, 0.5, 0.4])


def test_only_what_is_better_than_all_before_makes_a_step() -> None:
    assert Steps((10, 20), (0.2, 0.5)) == CURVE
    assert [CURVE.at(place) for place in (9, 10, 19.9, 20, 99)] == [None, 0.2, 0.2, 0.5, 0.5]


def test_what_becomes_known_at_the_same_moment_is_one_step_of_the_best_of_it() -> None:
    assert best_so_far([5, 5, 5], [0.1, 0.3, 0.2]) == Steps((5,), (0.3,))


def test_the_area_is_counted_by_hand() -> None:
    assert area_under(CURVE, 40) == pytest.approx((10 * 0.2 + 20 * 0.5) / 40)
    assert area_under(CURVE, 40, low=0.1, high=0.6) == pytest.approx((10 * 0.1 + 20 * 0.4) / (40 * 0.5))
    assert area_under(CURVE, 15) == pytest.approx(5 * 0.2 / 15)
    assert area_under(CURVE, 10) == 0.0


def test_the_best_from_the_start_has_the_whole_area() -> None:
    assert area_under(best_so_far([0], [1.0]), 7) == 1.0
    assert area_under(best_so_far([], []), 7) == 0.0


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1)), min_size=1, max_size=20))
def test_more_compute_never_makes_the_best_worse_and_regret_mirrors_it(points: list[tuple[int, float]]) -> None:
    points.sort(key=lambda point: point[0])
    curve = best_so_far([x for x, _ in points], [y for _, y in points])
    assert list(curve.values) == sorted(set(curve.values))
    assert curve.values[-1] == max(y for _, y in points)
    assert simple_regret(curve, 100) == 1 - curve.values[-1]
    assert 0 <= area_under(curve, 100) <= 1


def test_there_is_no_regret_before_the_first_value() -> None:
    assert simple_regret(CURVE, 5) is None


def test_a_threshold_is_passed_where_the_curve_first_stands_on_it_or_not_at_all() -> None:
    assert threshold(CURVE, 0.2) == 10
    assert threshold(CURVE, 0.21) == 20
    assert threshold(CURVE, 0.51) is None


@pytest.mark.parametrize(("charged", "values"), [([2, 1], [0, 0]), ([1], [0, 0])])
def test_compute_that_falls_or_does_not_match_is_refused(charged: list[int], values: list[float]) -> None:
    with pytest.raises(ValueError, match="never falling"):
        best_so_far(charged, values)


def test_no_budget_and_no_height_have_no_area() -> None:
    for bad in ({"budget": 0.0}, {"budget": 1.0, "low": 1.0, "high": 1.0}):
        with pytest.raises(ValueError, match="allowed"):
            area_under(CURVE, **bad)
