"""What an inspection worker answers is believed only in the form of an inspection."""

from __future__ import annotations

from typing import Any

import pytest

from selfimprove.loop.examination import _readable

VERDICT = {"verdict": "read", "reason": ""}
GOOD: dict[str, Any] = {
    "schema": 1, "status": "complete", "coverage": 1.0, "instruments": {"probes": VERDICT}, "summary": {"a": [0.5]},
}  # fmt: skip


def test_a_well_formed_answer_is_taken_as_it_is() -> None:
    assert _readable(GOOD) == GOOD


def test_fields_of_other_records_are_left_out() -> None:
    assert _readable({**GOOD, "manifest": "elsewhere", "sha256": "0", "generation": 9}) == GOOD


@pytest.mark.parametrize(
    "wrong",
    [
        {"instruments": {"probes": "read"}},
        {"instruments": {"probes": {"verdict": True, "reason": ""}}},
        {"instruments": [VERDICT]},
        {"status": None},
        {"coverage": "all"},
        {"summary": 3},
        {"summary": {"a": float("nan")}},
    ],
)
def test_an_answer_of_another_form_is_no_inspection(wrong: dict[str, Any]) -> None:
    assert _readable({**GOOD, **wrong}) is None
