"""What an inspection worker answers is believed only in the form of an inspection; a kept one can be read again."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from selfimprove.loop.inspecting import MOST_BYTES, readable

VERDICT = {"verdict": "read", "reason": ""}
GOOD: dict[str, Any] = {
    "schema": 1, "status": "complete", "coverage": 1.0, "instruments": {"probes": VERDICT}, "summary": {"a": [0.5]},
}  # fmt: skip


def test_a_well_formed_answer_is_taken_as_it_is() -> None:
    assert readable(GOOD) == GOOD


def test_fields_of_other_records_are_left_out() -> None:
    assert readable({**GOOD, "manifest": "elsewhere", "sha256": "0", "generation": 9}) == GOOD


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
    with pytest.raises(ValueError, match="form of an inspection"):
        readable({**GOOD, **wrong})


def test_an_answer_that_would_fill_the_ledger_is_no_inspection() -> None:
    with pytest.raises(ValueError, match=f"has [0-9]+ bytes; allowed: {MOST_BYTES}"):
        readable({**GOOD, "summary": {"a": "x" * MOST_BYTES}})


def test_a_generation_is_inspected_again_with_every_instrument_and_the_run_stays_as_it_was(finished: Any) -> None:
    run = finished.folder / "read-again"  # a copy: others count the files of the run that all share
    shutil.copytree(finished.folder / "whole", run)
    ledger = (run / "ledger.jsonl").read_bytes()
    [stored] = json.loads(finished.call("inspect", run.name, "1", "--json"))["inspections"]
    [full] = json.loads(finished.call("inspect", run.name, "1", "--full", "--json"))["inspections"]
    assert full["instruments"].keys() > stored["instruments"].keys()
    assert {"comparison", "ablation", "ov_qk"} <= {k for k, v in full["instruments"].items() if v["verdict"] == "read"}
    assert stored["summary"].items() <= full["summary"].items()  # on the same sequences, with the same seeds
    assert json.loads((run / full["path"]).read_text())["coverage"] == full["coverage"] == 1.0
    assert (run / "ledger.jsonl").read_bytes() == ledger
    assert "OK" in finished.call("audit", run.name)
