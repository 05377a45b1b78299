"""The history of a run's controllers puts what was drawn from each beside what it then proposed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from interp.controller_history import controller_history
from interp.verdict import NotApplicable
from selfimprove.tasks.score import Proportion


def record(n: int, drawn: int, fates: tuple[int, int, int, int, int], verdict: str = "read") -> dict[str, Any]:
    """One ``controller_inspection``: of 64 drawn, ``drawn`` are denied."""
    names = ("n", "denied", "refused", "forbidden", "over_caps")
    body: dict[str, Any] = {
        "generation": n,
        "verdict": verdict,
        "reason": "why",
        "proposals": dict(zip(names, fates, strict=True)),
    }
    if verdict == "read":
        body |= {"entropy": 1.0, "outside_grammar": 0.5, "probes": {"parameters": {"accuracy": [0.5, 0.75]}}}
        body["sampled"] = {"denied": vars(Proportion.of(drawn, 64)), "limit_share": 0.25}
    return body


def run_of(folder: Path, *bodies: dict[str, Any]) -> Path:
    lines = [{"kind": "run", "body": {}}, *({"kind": "controller_inspection", "body": body} for body in bodies)]
    (folder / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_each_controller_stands_beside_the_proposals_that_it_made(tmp_path: Path) -> None:
    run = run_of(tmp_path, record(0, 16, (0, 0, 0, 0, 0)), record(1, 0, (8, 4, 5, 1, 2)), record(2, 1, (8, 0, 0, 0, 0)))
    history = controller_history(run)
    frame = history.to_pandas().set_index("generation")
    assert frame["sampled_denied"].tolist() == [16 / 64, 0.0, 1 / 64]
    assert frame.loc[0, ["denied", "refused", "forbidden", "over_caps"]].tolist() == [4 / 8, 5 / 8, 1 / 8, 2 / 8]
    assert frame["proposals"].isna().tolist() == [False, False, True]
    assert frame["probe_parameters"].tolist() == [0.75] * 3
    ax = history.plot()
    assert all((ax.get_title(), ax.get_xlabel(), ax.get_ylabel()))


def test_a_controller_that_could_not_be_read_has_no_figures_but_its_proposals(tmp_path: Path) -> None:
    run = run_of(tmp_path, record(0, 0, (0, 0, 0, 0, 0)), record(1, 0, (8, 4, 4, 0, 0), "failed"))
    frame = controller_history(run).to_pandas()
    assert frame["verdict"].tolist() == ["read", "failed"]
    assert frame["entropy"].isna().tolist() == [False, True]
    assert frame.loc[0, "denied"] == 0.5
    assert controller_history(run).plot() is not None


def test_a_run_without_a_model_has_no_history(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="why"):
        controller_history(run_of(tmp_path, record(0, 0, (0, 0, 0, 0, 0), "not_applicable")))
