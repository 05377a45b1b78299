"""The study of halving: what it makes of readings that were chosen by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.halving import replay
from selfimprove.loop.config import HalvingConfig

ROW: dict[str, Any] = {
    "root": 0,
    "flops": [18, 18, 18, 18],
    "skills": [
        [0.4, 0.4, 0.4, 0.4, 0.5],
        [0.3, 0.4, 0.5, 0.6, 0.8],
        [0.2, 0.1, 0.1, 0.1, 0.2],
        [0.1, 0.2, 0.3, 0.8, 0.9],
    ],
    "nats": [1.0, 0.5, 2.0, 0.25],
}
REACHED = HalvingConfig((0.5, 0.5, 0.25), margin=1000.0, look_ahead=0.0, audit=0.0)


def test_a_winner_that_is_cut_early_is_the_regret() -> None:
    found = replay(ROW, REACHED)
    assert found.chosen == 1
    assert found.regret == pytest.approx(0.25)
    # of 18 FLOPs each: 5 for all, 3 more for two, the rest for one
    assert found.share == found.audited == pytest.approx((4 * 5 + 2 * 3 + 10) / 72)


def test_who_learns_late_is_found_by_looking_ahead() -> None:
    found = replay(ROW, HalvingConfig((0.75, 0.75, 0.25), margin=1000.0, look_ahead=0.2, audit=0.0))
    assert (found.chosen, found.regret) == (3, 0.0)
    assert replay(ROW, HalvingConfig((0.5, 0.5, 0.25), margin=1000.0, look_ahead=0.2, audit=0.0)).chosen == 1


def test_a_leader_that_is_far_ahead_ends_the_race() -> None:
    wide, narrow = (
        replay(ROW, HalvingConfig((1.0, 1.0, 1.0), margin=margin, look_ahead=0.0, audit=0.0))
        for margin in (1000.0, 0.25)
    )
    assert (wide.share, wide.chosen) == (1.0, 3)
    # after 5/18 one is 0.3 behind, after 1/3 nobody more than 0.2, after 4/9 the first is 0.4 behind
    assert narrow.share == pytest.approx((4 * 5 + 3 * 3 + 2 * 10) / 72)


def test_nothing_is_missed_where_everybody_goes_on() -> None:
    found = replay(ROW, HalvingConfig((1.0, 1.0, 1.0), margin=1000.0, audit=0.5))
    assert (found.chosen, found.regret, found.share, found.audited) == (3, 0.0, 1.0, 1.0)


def test_an_audit_costs_its_share_of_what_the_cut_would_still_have_cost() -> None:
    found = replay(ROW, HalvingConfig((0.5, 0.5, 0.25), margin=1000.0, look_ahead=0.0, audit=0.5))
    assert found.audited - found.share == pytest.approx(0.5 * (2 * 13 + 10) / 72)


def test_a_training_that_diverged_is_never_chosen() -> None:
    row = ROW | {"skills": [*ROW["skills"][:3], [0.5, 0.9]], "nats": [*ROW["nats"][:3], None]}
    found = replay(row, replace(REACHED, keep=(0.75, 0.5, 0.25)))
    assert (found.chosen, found.regret) == (1, 0.0)
