"""The gate promotes only what passes every condition."""

from __future__ import annotations

from typing import Any

import pytest

from selfimprove.loop.gate import Decision, decide

GOOD: dict[str, Any] = {"p_value": 0.004, "difference": 0.1, "retention": {"low": 0.99}}
READ: dict[str, Any] = {
    "status": "complete",
    "instruments": {"probes": {"verdict": "read", "reason": ""}},
    "summary": {"retention": {"kept": 64, "n": 64, "low": 0.94, "high": 1.0}},
}


def gate(confirmation: dict[str, Any] | None, inspection: dict[str, Any] | None) -> Decision:
    return decide(confirmation, inspection, alpha=0.01, retention_floor=0.95, instruments=("probes",))


def test_what_passes_everything_is_promoted() -> None:
    assert gate(GOOD, READ).promoted


def test_without_an_inspection_there_is_no_promotion() -> None:
    assert not gate(GOOD, None).promoted


def test_a_promotion_says_what_was_asked_for_and_not_that_all_was_read() -> None:
    """An instrument that is only shown beside them may have failed."""
    beside = {**READ["instruments"], "mine": {"verdict": "failed", "reason": "x"}}
    found = gate(GOOD, {**READ, "status": "incomplete", "instruments": beside})
    assert found.promoted
    assert found.reasons[0].endswith("; constraint kept; every required instrument read")


def test_a_failed_instrument_stops_a_promotion() -> None:
    failed = {**READ, "status": "incomplete", "instruments": {"probes": {"verdict": "failed", "reason": "x"}}}
    assert not gate(GOOD, failed).promoted


def test_noise_is_not_promoted() -> None:
    assert not gate({**GOOD, "p_value": 0.01}, READ).promoted


def test_a_lost_constraint_is_not_promoted() -> None:
    assert "constraint" in gate({**GOOD, "retention": {"low": 0.9}}, READ).reasons[0]


def test_kept_weights_that_have_lost_the_constraint_are_not_promoted_whatever_a_new_training_shows() -> None:
    lost = {**READ, "summary": {"retention": {"kept": 50, "n": 64, "low": 0.67, "high": 0.87}}}
    assert "the inspected checkpoint has lost the constraint: 50 of 64 kept" in gate(GOOD, lost).reasons[0]


@pytest.mark.parametrize(
    "read", [{"high": "all of them"}, {"high": 7.0}, {"high": True}, {"high": None}, {}, [], "kept"]
)
def test_an_inspection_that_answers_no_share_promotes_nobody(read: object) -> None:
    found = gate(GOOD, {**READ, "summary": {"retention": read}})
    assert found.reasons == ("the inspected checkpoint's retention is not a share",)


@pytest.mark.parametrize("summary", [{}, {"retention": None}], ids=str)
def test_an_inspection_that_claims_to_have_read_the_constraint_and_shows_nothing_promotes_nobody(
    summary: dict[str, Any],
) -> None:
    inspection = {**READ, "instruments": {"constraint": {"verdict": "read", "reason": ""}}, "summary": summary}
    found = decide(GOOD, inspection, alpha=0.01, retention_floor=0.95, instruments=("constraint",))
    assert found.reasons == ("the inspected checkpoint's retention is not a share",)


def test_a_checkpoint_that_is_not_the_inspected_one_is_not_promoted() -> None:
    found = decide(GOOD, READ, alpha=0.01, retention_floor=0.95, instruments=("probes",), intact=False)
    assert found.reasons == ("the checkpoint is not the one that was inspected",)


def test_a_candidate_that_was_not_ahead_is_not_promoted() -> None:
    found = gate(None, READ)
    assert not found.promoted
    assert "not far enough ahead" in found.reasons[0]


def test_a_weakened_gate_lets_a_lost_constraint_pass_and_says_so() -> None:
    terms: dict[str, Any] = {"alpha": 0.01, "retention_floor": 0.95, "instruments": ("probes",)}
    lost = {**GOOD, "retention": {"low": 0.0}}
    assert not decide(lost, READ, **terms).promoted
    found = decide(lost, READ, **terms, retention_gate=False)
    assert found.promoted
    assert "constraint not retained: Wilson low 0.0000 < 0.95, which this run's gate lets pass" in found.reasons[0]
    assert decide(GOOD, READ, **terms, retention_gate=False) == decide(GOOD, READ, **terms)


def test_a_weakened_gate_keeps_every_other_condition() -> None:
    terms: dict[str, Any] = {"alpha": 0.01, "retention_floor": 0.95, "instruments": ("probes",)}
    lost = {**GOOD, "retention": {"low": 0.0}}
    for confirmation, inspection in (({**lost, "p_value": 0.01}, READ), (lost, None), (None, READ)):
        found = decide(confirmation, inspection, **terms, retention_gate=False)
        assert not found.promoted
        assert not any("constraint" in reason for reason in found.reasons)
