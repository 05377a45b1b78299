"""Runs that end in their first generation: each study says how, and goes on with the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import improvement, meta_alignment, meta_alignment_rows, recursion, recursion_rows, search, sittings
from benchmarks.meta_alignment_rows import ARMS
from benchmarks.sittings import TIME_UP
from selfimprove.archive.ledger import LEDGER_NAME, Entry, read
from selfimprove.errors import RunError
from selfimprove.loop import run as loop
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies

KINDS = ("score", "proposal", "reference", "charge", "generation")
SHORT: dict[str, tuple[int, tuple[str, ...]]] = {
    "before its seed genome is trained": (1, ()),
    "before it has proposed": (2 * CONFIG.allowance_flops, ("score", "charge")),
    "before it has trained a candidate": (5 * CONFIG.allowance_flops, ("score", "proposal", "charge")),
}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Played runs that a limit on FLOPs ends early, by when."""
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        patch.setattr(loop, "Supervisor", Player)
        for name, (flops, _) in SHORT.items():
            config = replace(CONFIG, limits=replace(CONFIG.limits, flops=flops))
            assert loop.run(config, folder / name, Silent()).state == "limit"
    return {name: folder / name for name in SHORT}


@pytest.mark.parametrize("when", SHORT)
def test_each_run_lacks_what_it_should(short: dict[str, Path], when: str) -> None:
    assert tuple(kind for kind in KINDS if bodies(short[when], kind)) == SHORT[when][1]


@pytest.mark.parametrize("when", SHORT)
@pytest.mark.parametrize("row_of", [search.row_of, recursion_rows.row_of], ids=["search", "recursion"])
def test_it_has_a_row_without_generations(
    short: dict[str, Path], when: str, row_of: Callable[[Sequence[Entry], str, int], dict[str, Any]]
) -> None:
    found = row_of(read(short[when] / LEDGER_NAME, None), "random", 3)
    charges = bodies(short[when], "charge")
    assert (found["generations"], found["sealed"]) == ([], None)
    assert sum(found["paid"].values()) == (charges[-1]["total"] if charges else 0)


@pytest.mark.parametrize(("study", "arm"), [(search, "random"), (recursion, "none")], ids=["search", "recursion"])
def test_a_study_says_how_it_ended_and_leaves_it_out(
    study: Any, arm: str, short: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path))  # is set by the study, and undone here
    for seed, run in enumerate(short.values()):
        shutil.copytree(run, tmp_path / "runs" / f"{arm}-seed{seed}")
    words = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs"), "--commit", "abc", "--processes", "1"]
    assert study.main([*words, "--arms", arm, "--seeds", "0", "1", "2", "--note", "All else is as usual."]) == 0
    assert [line["state"] for line in sittings.lines(tmp_path / "runs.jsonl")] == ["limit"] * 3
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "All else is as usual. Left out, as they ended early: " in text
    assert f"{arm}, root seed 2 (limit: " in text


@pytest.mark.parametrize("study", [search, recursion], ids=["search", "recursion"])
def test_a_run_that_a_limit_ended_after_some_generations_is_left_out_too(study: Any, tmp_path: Path) -> None:
    early = {"arm": "frozen", "seed": 0, "state": "limit", "reason": "limits.wall_seconds", "generations": [{}]}
    sittings.append(tmp_path / "runs.jsonl", early | {"commit": "abc", "overrides": []})
    assert study.main(["--results", str(tmp_path), "--runs", str(tmp_path / "runs"), "--minutes", "-1"]) == TIME_UP
    assert "root seed 0 (limit: limits.wall_seconds)" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("study", [search, recursion, meta_alignment], ids=["search", "recursion", "meta-alignment"])
def test_runs_with_other_overrides_are_not_added_to(study: Any, tmp_path: Path) -> None:
    sittings.append(tmp_path / "runs.jsonl", {"arm": {}, "commit": "abc", "overrides": ["generations=2"]})
    with pytest.raises(RunError, match=r"got \[\]; allowed: what was given before, \['generations=2'\]; .*--results"):
        study.main(["--results", str(tmp_path), "--runs", str(tmp_path / "runs")])


@pytest.mark.parametrize("when", SHORT)
def test_to_the_improvement_study_it_is_a_run_without_improvement(short: dict[str, Path], when: str) -> None:
    found = improvement.row_of(short[when], "random", 0)
    assert (found["state"], found["promotions"], found["gate"]["p_value"]) == ("limit", [], 1.0)
    assert "FLOPs" in found["reason"]


def test_meta_alignment_counts_it_as_it_stood_if_its_seed_genome_was_scored(short: dict[str, Path]) -> None:
    entries = read(short["before it has trained a candidate"] / LEDGER_NAME, None)
    found = meta_alignment_rows.row_of(entries, ARMS[0], 0)
    assert (found["generations"], found["seed_genome"]["factor"]) == ([], 1.0)


def test_meta_alignment_names_a_run_that_scored_nothing_and_the_remedy(
    short: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short["before its seed genome is trained"]
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(run.parent / "state"))
    with pytest.raises(RunError, match=r"before its seed genome is trained: got limit: .*; remove its folder"):
        meta_alignment.run_one(run, ARMS[0], 0)
