"""The study of halving: what it makes of readings that were chosen by hand."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.halving import replay

ROW: dict[str, Any] = {
    "root": 0,
    "flops": [9, 9, 9, 9],
    "skills": [[0.4, 0.3, 0.5], [0.3, 0.6, 0.8], [0.2, 0.1, 0.2], [0.1, 0.9, 0.9]],
    "nats": [1.0, 0.5, 2.0, 0.25],
}


def test_a_winner_that_is_cut_early_is_the_regret() -> None:
    found = replay(ROW, (0.75, 0.5), 0.0)
    assert found.chosen == 1
    assert found.regret == pytest.approx(0.25)
    # FLOPs: four ninths of a training, three times two more, twice the rest: 4 + 6 + 12 of 36
    assert found.share == found.audited == pytest.approx(22 / 36)


def test_nothing_is_missed_where_everybody_goes_on() -> None:
    found = replay(ROW, (1.0, 1.0), 0.5)
    assert (found.chosen, found.regret, found.share, found.audited) == (3, 0.0, 1.0, 1.0)


def test_an_audit_costs_its_share_of_what_the_cut_would_still_have_cost() -> None:
    plain, audited = (replay(ROW, (0.75, 0.5), audit) for audit in (0.0, 0.5))
    assert audited.audited - plain.share == pytest.approx(0.5 * (8 + 6) / 36)


def test_a_training_that_diverged_is_never_chosen() -> None:
    row = ROW | {"skills": [*ROW["skills"][:3], [0.5, 0.9]], "nats": [*ROW["nats"][:3], None]}
    found = replay(row, (1.0, 0.5), 0.0)
    assert (found.chosen, found.regret) == (1, 0.0)
