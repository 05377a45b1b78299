"""The improvement study reads its figures from ledgers and invents none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import improvement
from selfimprove.errors import RunError


def test_a_finished_run_is_tabulated_from_its_ledger_and_not_run_again(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished.folder / "whole", tmp_path / "transformer-seed0")
    before = (tmp_path / "transformer-seed0" / "ledger.jsonl").read_bytes()
    arguments = ["--runs", str(tmp_path), "--results", str(tmp_path / "out"), "--seeds", "0", "--arms", "transformer"]
    assert improvement.main(arguments) == 0
    [row] = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["runs"]
    assert row["lineage_sha256"] == finished.status("whole")["lineage_sha256"]
    assert row["charged_flops"] == finished.status("whole")["charged_flops"]
    assert (tmp_path / "transformer-seed0" / "ledger.jsonl").read_bytes() == before
    shutil.rmtree(tmp_path / "transformer-seed0")
    assert improvement.main([*arguments, "--minutes", "-1"]) == 0, "what was measured is kept without its run"
    assert improvement.measured(tmp_path / "out") == {("transformer", 0): row}


def test_rows_of_other_overrides_are_not_added_to(finished: Any, tmp_path: Path) -> None:
    shutil.copytree(finished.folder / "whole", tmp_path / "transformer-seed0")
    arguments = ["--runs", str(tmp_path), "--results", str(tmp_path / "out"), "--seeds", "0", "--arms", "transformer"]
    assert improvement.main(arguments) == 0
    with pytest.raises(RunError, match=r"generations=50.*what was given before, \[\]"):
        improvement.main([*arguments, "--minutes", "-1", "generations=50"])


def test_a_row_has_the_commit_that_its_run_was_begun_on(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.folder / "whole", tmp_path / "transformer-seed0")
    (tmp_path / "transformer-seed0.begun").write_text('{"commit": "abc", "overrides": []}')
    monkeypatch.setattr(improvement, "commit", lambda: "def")
    arguments = ["--runs", str(tmp_path), "--results", str(tmp_path / "out"), "--seeds", "0", "--arms", "transformer"]
    assert improvement.main(arguments) == 0
    [row] = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["runs"]
    assert row["commit"] == "abc..def"


def test_a_study_without_time_starts_nothing_and_says_that_it_is_not_complete(tmp_path: Path) -> None:
    arguments = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "out"), "--minutes", "-1"]
    assert improvement.main(arguments) == 3
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_without_a_promotion_counts_as_no_improvement(tmp_path: Path) -> None:
    none = improvement._exam(None)
    row = {
        "arm": "random",
        "seed": 0,
        "gate": none,
        "sealed": none,
        "held_out": none,
        "promotions": [],
        "families": improvement._families({}),
        "climbed": [],
        "charged_flops": 0,
        "commit": "x",
    }
    improvement.write(tmp_path, [row])
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert found["arms"]["random"] == {"n": 1, "better_on_gate_split": 0, "better_on_sealed_split": 0}


def test_a_family_is_saturated_only_by_two_generations_in_a_row_at_its_top() -> None:
    def climb(generation: int, *capped: str) -> dict[str, Any]:
        return {"generation": generation, "capped": list(capped)}

    assert improvement.saturated([climb(1), climb(2, "recall"), climb(4, "recall", "mqar")]) == []
    assert improvement.saturated([climb(2, "recall"), climb(3, "recall", "mqar")]) == ["recall"]


@pytest.mark.parametrize(
    ("level", "champion", "seed_genome", "climbed"),
    [(1, 0.91, 0.49, True), (0, 0.99, 0.1, False), (1, 0.9, 0.1, False), (2, 0.95, 0.5, False)],
)
def test_a_family_climbed_where_the_champion_masters_a_level_that_it_rose_to_and_the_seed_is_far_from_it(
    level: int, champion: float, seed_genome: float, climbed: bool
) -> None:
    sealed = {"tasks": {"recall": {"skill": champion}}, "parent_tasks": {"recall": {"skill": seed_genome}}}
    found = improvement._families({"levels": {"recall": level}, "sealed": sealed})["recall"]
    assert found == {"level": level, "champion": champion, "seed_genome": seed_genome}
    assert improvement._climbed(found) == climbed
