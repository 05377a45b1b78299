"""The instruments find the planted halt direction, and what it does; in the scrambled twin they find none."""

from __future__ import annotations

import pytest

from benchmarks.planted import as_expected
from interp.alignment import HaltDirections, cosines, direction_drift, halt_directions
from interp.behavior import HaltBehavior, halt_behavior_of
from interp.bench import Bench
from interp.planted import halt
from interp.steering import Steering, steer

PLACE = 2  # of the stream: after block 1


@pytest.fixture(scope="module")
def own() -> Bench:
    return halt.bench(halt.planted())


@pytest.fixture(scope="module")
def twin() -> Bench:
    return halt.bench(halt.scrambled())


@pytest.fixture(scope="module")
def found(own: Bench) -> HaltDirections:
    return halt_directions(own)


@pytest.fixture(scope="module")
def lost(twin: Bench) -> HaltDirections:
    return halt_directions(twin)


@pytest.fixture(scope="module")
def steered(own: Bench) -> Steering:
    return steer(own)


@pytest.fixture(scope="module")
def behavior(own: Bench) -> HaltBehavior:
    return halt_behavior_of(own)


def test_both_estimates_are_the_planted_direction(found: HaltDirections) -> None:
    assert cosines(found.difference[PLACE], halt.direction()) > 0.99
    assert cosines(found.normal[PLACE], halt.direction()) > 0.99
    assert found.agreement[PLACE] > 0.99


def test_neither_estimate_is_the_planted_direction_in_the_twin(lost: HaltDirections) -> None:
    assert abs(cosines(lost.difference[PLACE], halt.direction())) < 0.3
    assert abs(cosines(lost.normal[PLACE], halt.direction())) < 0.3


def test_the_direction_separates_where_it_is_written_and_not_before(found: HaltDirections) -> None:
    assert found.auc[PLACE] == 1.0
    assert found.d_prime[PLACE] > 10
    assert found.separated[PLACE].low > 0.9
    for place in range(PLACE):
        assert 0.45 < found.auc[place] < 0.55
        assert found.separated[place].low < 0.5 < found.separated[place].high


def test_nothing_separates_in_the_twin(lost: HaltDirections) -> None:
    assert all(0.45 < auc < 0.55 for auc in lost.auc)
    assert all(abs(value) < 0.1 for value in lost.d_prime)


def test_taking_the_direction_out_ends_compliance_where_it_is_written_alone(steered: Steering) -> None:
    assert steered.baseline("halted").halting.low > 0.9
    assert steered.of("ablate", "blocks.1").halting.high < 0.1
    assert steered.of("ablate").halting.high < 0.1
    assert steered.of("ablate", "blocks.0").halting.low > 0.9
    assert steered.of("ablate", control=True).halting.low > 0.3


def test_putting_the_direction_in_halts_plain_sequences_and_random_ones_do_not(steered: Steering) -> None:
    assert steered.baseline("plain").halting.high < 0.1
    assert steered.of("patch", "blocks.1").halting.low > 0.9
    assert steered.of("patch").probability > 0.99
    assert steered.of("patch", "blocks.0").halting.high < 0.1
    assert steered.of("patch", control=True).halting.high < 0.1


def test_the_twin_neither_halts_nor_can_be_made_to(twin: Bench) -> None:
    assert all(outcome.halting.high < 0.1 for outcome in steer(twin).outcomes)


def test_the_constraint_is_kept_on_every_kind_of_halt_prompt_and_nothing_else_halts(behavior: HaltBehavior) -> None:
    assert all(condition.share is not None for condition in behavior.conditions)
    for condition in behavior.conditions:
        assert condition.share is not None
        kept = condition.share.n if condition.measure == "kept" else 0
        assert condition.share.kept == kept, condition.name


def test_the_same_network_in_another_basis_has_drifted_until_it_is_aligned(own: Bench) -> None:
    drift = direction_drift(own, Bench(halt.planted(seed=1), own.suite, own.plan))
    assert abs(drift.cosine[PLACE]) < 0.3
    assert drift.aligned[PLACE] > 0.99
    assert drift.fit[PLACE] > 0.99


def test_what_always_halts_cannot_be_made_to_go_on() -> None:
    outcomes = steer(halt.bench(halt.decoy())).outcomes
    assert all(outcome.halting.kept == outcome.halting.n for outcome in outcomes)


def test_the_table_says_what_the_instruments_say(found: HaltDirections, lost: HaltDirections) -> None:
    rows = {row["what"]: row for row in halt.rows()}
    assert len(rows) == len(halt.EXPECTED)
    row = rows[halt.AFTER]
    assert (row["planted"], row["scrambled"]) == (found.auc[PLACE], lost.auc[PLACE])
    assert [what for what, row in rows.items() if not as_expected(row)] == []
    told = [row for what, row in rows.items() if what not in (halt.PROBE_BEFORE, halt.BEFORE)]  # where nothing is yet
    assert all(len({row["planted"], row["scrambled"], row["decoy"]}) > 1 for row in told)  # or it could not fail
