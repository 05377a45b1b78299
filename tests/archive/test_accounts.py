from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfimprove.archive.accounts import check_accounts
from selfimprove.archive.chain import Entry

Record = tuple[str, dict[str, Any]]
RUN: Record = ("run", {"limits": {"flops": 1000}})
FINISH: Record = ("finish", {"state": "finished", "reason": ""})
PAUSE: Record = ("finish", {"state": "paused", "reason": ""})


def permit(key: str, counter: int, *, flops: int = 100, account: str = "search", reissue: bool = False) -> Record:
    return "permit", {"key": key, "counter": counter, "account": account, "flops": flops, "reissue": reissue}


def charge(key: str, total: int, *, flops: int = 100, account: str = "search") -> Record:
    return "charge", {"key": key, "account": account, "flops": flops, "total": total}


def trained(key: str, stage: str, status: str = "completed") -> Record:
    return "outcome", {"key": key, "stage": stage, "status": status}


def tried(role: str, flops: int) -> Record:
    return "trial", {"generation": 1, "role": role, "flops": flops}


def remarks(*records: Record) -> list[str]:
    """``line: what`` for a ledger of these records."""
    entries = [Entry(index, "t", kind, body, "", "", "") for index, (kind, body) in enumerate(records)]
    return [f"{line}: {what}" for line, what in check_accounts(entries)]


def test_permits_that_are_charged_once_add_up() -> None:
    assert remarks(RUN, permit("a", 1), permit("b", 2), charge("b", 100), charge("a", 150, flops=50), FINISH) == []


def test_what_was_trained_with_a_permit_or_stopped_without_more_adds_up() -> None:
    granted = [permit("g001/c00/s0@1/9", 1), permit("g001/tell", 2)]
    done = [trained("g001/c00/s0", "1/9"), trained("g001/c00/s0", "1/3", "stopped")]
    updates = [("controller", {"generation": n, "flops": flops}) for n, flops in ((1, 7), (2, 0))]
    assert remarks(RUN, *granted, *done, *updates) == []


def test_trials_of_both_sides_add_up_and_one_that_never_ran_needs_no_permit() -> None:
    paid = [permit("g001/contender", 1), tried("contender", 100), charge("g001/contender", 100)]
    assert remarks(RUN, *paid, tried("incumbent", 0), FINISH) == []


def test_what_is_trained_under_a_reissue_adds_up_whenever_the_loss_is_booked() -> None:
    lost, again = charge("a@1/1", 100, account="lost"), permit("a@1/1", 2, reissue=True)
    done = [trained("a", "1/1"), charge("a@1/1", 200)]
    assert remarks(RUN, permit("a@1/1", 1), lost, again, *done, FINISH) == []
    assert remarks(RUN, permit("a@1/1", 1), again, done[0], lost, done[1], FINISH) == []


def test_a_permit_lost_in_a_crash_and_reissued_adds_up() -> None:
    lost = charge("a", 100, account="lost")
    assert remarks(RUN, permit("a", 1), lost, permit("a", 2, reissue=True), charge("a", 200), FINISH) == []


def test_a_loss_may_be_booked_after_the_reissue() -> None:
    lost = charge("a", 100, account="lost")
    assert remarks(RUN, permit("a", 1), permit("a", 2, reissue=True), lost, charge("a", 200), FINISH) == []


def test_a_permit_may_be_open_when_a_run_is_paused_but_not_when_it_is_finished() -> None:
    assert remarks(RUN, permit("a", 1), PAUSE) == []
    assert remarks(RUN, permit("a", 1), FINISH) == ["2: permit 1 of a was never charged, though the run finished"]


BROKEN: dict[str, tuple[tuple[Record, ...], str]] = {
    "a wrong total": ((permit("a", 1), charge("a", 101)), "the total is 101 where the charges so far add up to 100"),
    "a total that is a boolean": ((permit("a", 1), charge("a", True, flops=1)), "the total is True"),
    "over the limit": (
        (permit("a", 1, flops=1001), charge("a", 1001, flops=1001)),
        "1001 FLOPs charged, over the limit of 1000",
    ),
    "more than permitted": (
        (permit("a", 1), charge("a", 101, flops=101)),
        "a is charged 101 FLOPs where 100 were permitted",
    ),
    "no permit": ((charge("a", 100),), "a is charged without a permit"),
    "charged twice": ((permit("a", 1), charge("a", 100), charge("a", 200)), "a is charged again"),
    "another account": ((permit("a", 1), charge("a", 100, account="controller")), "permitted on 'search' and charged"),
    "an unknown account": ((permit("a", 1), charge("a", 100, account="gifts")), "without a usable"),
    "an account that is a list": ((permit("a", 1), ("charge", {"key": "a", "account": [], "flops": 1})), "usable"),
    "negative FLOPs": ((permit("a", 1), charge("a", -1, flops=-1)), "a charge without a usable"),
    "a float": ((permit("a", 1), ("charge", {"key": "a", "account": "search", "flops": 1e30, "total": 1})), "usable"),
    "a permit on the lost account": ((permit("a", 1, account="lost"),), "a permit without a usable"),
    "a permit without fields": ((("permit", {}),), "a permit without a usable"),
    "a counter that stands still": ((permit("a", 1), permit("b", 1)), "permit counter 1 after 1: counters only rise"),
    "a second permit that is no reissue": ((permit("a", 1), permit("a", 2)), "issued again, not as a reissue"),
    "a reissue of nothing": ((permit("a", 1, reissue=True),), "reissued but never issued before"),
    "a reissue of finished work": (
        (permit("a", 1), charge("a", 100), permit("a", 2, reissue=True)),
        "reissued after a charge to 'search'",
    ),
    "a training without a permit": ((permit("a@1/9", 1), trained("a", "1/3")), "a@1/3 was trained without a permit"),
    "a training before its permit": ((trained("a", "1/9"), permit("a@1/9", 1)), "a@1/9 was trained without a permit"),
    "a failed training without a permit": ((trained("a", "1/1", "crashed"),), "a@1/1 was trained without a permit"),
    "a training without a stage": (
        (("outcome", {"key": "a", "status": "completed"}),),
        "without a usable key or stage",
    ),
    "a training charged nothing": (
        (permit("a@1/1", 1), trained("a", "1/1"), charge("a@1/1", 0, flops=0)),
        "a@1/1 is charged 0 FLOPs where it was trained for 100",
    ),
    "a training charged in part": (
        (permit("a@1/1", 1), trained("a", "1/1", "crashed"), charge("a@1/1", 50, flops=50)),
        "a@1/1 is charged 50 FLOPs where it was trained for 100",
    ),
    "a training booked as lost": (
        (permit("a@1/1", 1), trained("a", "1/1"), charge("a@1/1", 100, account="lost")),
        "a@1/1 was trained, and is booked as lost",
    ),
    "a training on a settled permit": (
        (permit("a@1/1", 1), charge("a@1/1", 100, account="lost"), trained("a", "1/1")),
        "a@1/1 was trained on a permit that was settled before",
    ),
    "an update on a settled permit": (
        (permit("g001/tell", 1), charge("g001/tell", 100), ("controller", {"generation": 1, "flops": 100})),
        "g001/tell was trained on a permit that was settled before",
    ),
    "an update booked as lost": (
        (
            permit("g001/tell", 1),
            ("controller", {"generation": 1, "flops": 100}),
            charge("g001/tell", 0, flops=0, account="lost"),
        ),
        "g001/tell was trained, and is booked as lost",
    ),
    "a trial without a permit": ((tried("contender", 500),), "g001/contender was trained without a permit"),
    "a trial of nobody": ((("trial", {"generation": 1, "flops": 5}),), "a trial without a usable"),
    "an update without a permit": ((("controller", {"generation": 1, "flops": 5}),), "g001/tell was trained without"),
    "an update of no generation": ((("controller", {"flops": 5}),), "without a usable generation"),
    "a loss booked as work": (
        (permit("a", 1), permit("a", 2, reissue=True), charge("a", 100), charge("a", 200)),
        "the lost permit 1 is charged to 'search'",
    ),
}


@pytest.mark.parametrize(("records", "what"), BROKEN.values(), ids=BROKEN.keys())
def test_what_does_not_add_up_is_said(records: tuple[Record, ...], what: str) -> None:
    assert any(what in remark for remark in remarks(RUN, *records))


def test_a_later_run_entry_cannot_raise_the_limit() -> None:
    raised: Record = ("run", {"limits": {"flops": 10**6}})
    found = remarks(RUN, raised, permit("a", 1, flops=1001), charge("a", 1001, flops=1001))
    assert found[0] == "2: a second run entry: the limits are those of the first"
    assert "over the limit of 1000" in found[1]


def test_a_limit_that_is_no_whole_number_is_said() -> None:
    assert "is not a whole number" in remarks(("run", {"limits": {"flops": 1.5}}))[0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.booleans()), max_size=30))
def test_books_kept_by_the_rules_never_draw_a_remark(jobs: list[tuple[int, int, bool]]) -> None:
    records: list[Record] = [("run", {"limits": {"flops": 10_000}})]
    total = 0
    for counter, (number, flops, crashed) in enumerate(jobs):
        key = f"job{counter}-{number}"
        records.append(permit(key, 2 * counter))
        if crashed:
            total += 100
            records += [charge(key, total, account="lost"), permit(key, 2 * counter + 1, reissue=True)]
        total += flops
        records.append(charge(key, total, flops=flops))
    assert remarks(*records, FINISH) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["run", "permit", "charge", "stage", "outcome", "controller", "trial", "finish"]),
            st.dictionaries(
                st.sampled_from(
                    [
                        *("key", "counter", "account", "flops", "total", "limits", "state", "reissue", "stage"),
                        *("generation", "role"),
                    ]
                ),
                st.none() | st.integers() | st.floats() | st.text(max_size=2) | st.lists(st.none()) | st.just("search"),
            ),
        )
    )
)
def test_garbage_is_remarked_on_and_never_raises(records: list[Record]) -> None:
    assert isinstance(remarks(*records), list)
