"""The budget never adds up to more than its limit, whatever happens in whichever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.containment.budget import ACCOUNTS, Budget
from selfimprove.errors import LimitReached

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "charge", "lose", "release"]),
        st.sampled_from("abcdef"),
        st.sampled_from([*ACCOUNTS, "lost", "bribes"]),
        st.integers(-5, 60),
    ),
    max_size=60,
)


def apply(budget: Budget, event: tuple[str, str, str, int]) -> Any:
    what, key, account, flops = event
    try:
        match what:
            case "reserve":
                budget.reserve(key, account, flops)
            case "charge":
                return budget.charge(key, flops)
            case "release":
                return budget.release(key)
            case _:
                return budget.lose(key)
    except (ValueError, LimitReached):
        return None


@given(events=EVENTS, limit=st.integers(0, 200), lost=st.integers(0, 100))
@settings(max_examples=300, deadline=None, database=None)
def test_charged_and_lost_together_never_pass_the_limit(
    events: list[tuple[str, str, str, int]], limit: int, lost: int
) -> None:
    budget = Budget(limit, lost)
    for event in events:
        charge = apply(budget, event)
        assert 0 <= budget.total + budget.reserved <= limit
        assert sum(budget.charged.values()) == budget.total
        assert charge is None or charge.total == budget.total


@given(events=EVENTS, limit=st.integers(0, 200))
@settings(max_examples=100, deadline=None, database=None)
def test_the_charges_alone_rebuild_the_accounts(events: list[tuple[str, str, str, int]], limit: int) -> None:
    budget = Budget(limit, limit)
    charges = [charge for event in events if (charge := apply(budget, event)) is not None]
    restored = Budget.restore(limit, limit, [(charge.account, charge.flops) for charge in charges])
    assert restored.charged == budget.charged


def test_what_a_job_did_not_use_is_free_again() -> None:
    budget = Budget(100, 0)
    budget.reserve("a", "search", 80)
    assert budget.left == 20
    assert budget.charge("a", 30).total == 30
    assert budget.left == 70


def test_a_reservation_over_what_is_left_reaches_the_limit() -> None:
    budget = Budget(100, 0)
    budget.reserve("a", "search", 80)
    with pytest.raises(LimitReached, match="at most 20"):
        budget.reserve("b", "search", 21)


def test_a_charge_over_its_reservation_is_refused() -> None:
    budget = Budget(100, 0)
    budget.reserve("a", "search", 10)
    with pytest.raises(ValueError, match="only 10"):
        budget.charge("a", 11)


def test_a_job_is_settled_once() -> None:
    budget = Budget(100, 0)
    budget.reserve("a", "search", 10)
    budget.charge("a", 10)
    with pytest.raises(ValueError, match="nothing is reserved"):
        budget.charge("a", 0)


def test_lost_work_is_charged_in_full_to_its_own_account() -> None:
    budget = Budget(100, 50)
    budget.reserve("a", "confirm", 40)
    charge = budget.lose("a")
    assert (charge.account, charge.flops) == ("lost", 40)
    assert budget.charged["confirm"] == 0


def test_what_never_began_costs_nothing_and_may_be_reserved_again() -> None:
    budget = Budget(100, 0)
    budget.reserve("a", "search", 80)
    charge = budget.release("a")
    assert (charge.account, charge.flops, charge.total) == ("lost", 0, 0)
    assert budget.left == 100
    budget.reserve("a", "search", 80)
    with pytest.raises(ValueError, match="nothing is reserved"):
        budget.release("b")


def test_once_too_much_was_lost_nothing_more_is_granted() -> None:
    budget = Budget(100, 30)
    budget.reserve("a", "search", 40)
    budget.lose("a")
    with pytest.raises(LimitReached):
        budget.reserve("a", "search", 1)


def test_what_may_be_lost_is_known_before_it_is() -> None:
    budget = Budget(100, 50)
    budget.reserve("a", "search", 30)
    budget.reserve("b", "search", 30)
    assert budget.may_lose("a")
    budget.lose("a")
    assert not budget.may_lose("b")
    assert not budget.overdrawn


def test_finished_work_of_a_dead_sitting_is_charged_to_its_own_account() -> None:
    charge = Budget(100, 0).honor("a", "confirm", 40)
    assert (charge.account, charge.flops, charge.total) == ("confirm", 40, 40)


@pytest.mark.parametrize("amount", [-1, 1.0, True, "1"])
def test_only_whole_numbers_are_reserved(amount: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        Budget(100, 0).reserve("a", "search", amount)
