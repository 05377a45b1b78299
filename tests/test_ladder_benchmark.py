"""The ladder benchmark compares what it says it compares, corrects for many tests, and does not flatter a choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ladder
from benchmarks.calibration import Variant, genome_of
from benchmarks.ladder import DISCOVERIES, SPLITS, Trial, allocation, identity, summarize
from benchmarks.sittings import append
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.space import Space, apply_all

CONFIG = ladder.setting()
FAMILIES = CONFIG.tasks.families
SEEDS = range(8)


def line(edits: tuple[str, ...], seed: int, skill: float) -> dict[str, Any]:
    families = dict.fromkeys(FAMILIES, skill)
    about = {"commit": f"c{seed % 2}", "machine": {"cores": 2}}
    return ladder.description(Trial(edits, seed)) | {"skill": skill, "families_skill": families} | about


def lines(worth: Mapping[tuple[str, ...], float]) -> list[dict[str, Any]]:
    """A line of each genome and seed; seeds differ by more than genomes do, and alike for all of them."""
    return [line(edits, seed, 0.1 * seed + worth.get(edits, 0.0)) for edits in ladder.genomes() for seed in SEEDS]


@pytest.mark.parametrize("name", DISCOVERIES)
def test_each_discovery_is_one_edit_of_the_space_away_from_where_it_is_measured(name: str) -> None:
    one, space = DISCOVERIES[name], Space(CONFIG.space)
    before = genome_of(Variant(one.base), CONFIG)
    after = apply_all([parse_edit(one.edit)], before, space)
    assert after.sha256 == genome_of(Variant(() if one.base else (one.edit,)), CONFIG).sha256 != before.sha256


def test_each_split_of_the_allowance_is_another_genome() -> None:
    assert len({genome_of(Variant(edits), CONFIG).sha256 for edits in SPLITS.values()}) == len(SPLITS)


def test_a_discovery_is_judged_by_differences_paired_by_seed() -> None:
    conv = (DISCOVERIES["short convolution"].edit,)
    muon = (DISCOVERIES["Muon"].edit,)
    found = {row["discovery"]: row for row in summarize(lines({conv: 0.2, muon: -0.1}))["discoveries"]}
    assert found["short convolution"]["difference"] == pytest.approx(0.2)
    assert found["short convolution"]["p_value"] == pytest.approx(2 / 2 ** len(SEEDS))
    assert found["Muon"]["difference"] == pytest.approx(-0.1)
    assert found["QK-norm"]["p_value"] == 1.0
    assert {row["verdict"] for row in found.values()} == {"no effect shown"}  # 8 seeds cannot pass eleven tests


def test_the_summary_names_every_commit_that_its_lines_were_measured_on() -> None:
    assert summarize(lines({}))["commits"] == ["c0", "c1"]


def test_what_the_seed_genome_has_is_measured_against_the_seed_genome_without_it() -> None:
    without = DISCOVERIES["RoPE"].base
    found = {row["discovery"]: row for row in summarize(lines({without: -0.3}))["discoveries"]}
    assert found["RoPE"]["difference"] == pytest.approx(0.3)


def test_the_best_split_is_chosen_on_some_seeds_and_judged_on_others() -> None:
    """The one that shines on the even seeds alone is chosen, and its difference is that of the odd ones: none."""
    lucky, bad = SPLITS["width 32"], SPLITS["batch 64"]
    found = [
        line(edits, seed, (edits == lucky and seed % 2 == 0) * 0.5 - (edits == bad) * 0.25 + 0.01 * seed)
        for edits in SPLITS.values()
        for seed in SEEDS
    ]
    by_edits: dict[tuple[str, ...], dict[int, Any]] = {}
    for one in found:
        by_edits.setdefault(tuple(one["edits"]), {})[one["seed"]] = one
    for row in allocation(by_edits).values():
        assert (row["best"], row["worst"]) == ("width 32", "batch 64")
        assert row["difference"] == pytest.approx(0.25)
        assert row["n"] == len(SEEDS) // 2


def test_a_finished_benchmark_trains_nothing_and_writes_table_and_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for one in lines({(DISCOVERIES["short convolution"].edit,): 0.2}):
        append(tmp_path / ladder.TRIALS, one)
    append(tmp_path / ladder.TRIALS, line((), 0, 0.9) | {"allowance_flops": 1})  # of another setting: passed over
    monkeypatch.setattr(ladder, "measure", lambda trial: pytest.fail("nothing is left to do"))
    asked = ["--results", str(tmp_path), "--seeds", str(len(SEEDS))]
    assert ladder.main([*asked, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / ladder.SUMMARY).read_text())
    assert summary["discoveries"][0]["discovery"] == "short convolution"
    assert (tmp_path / ladder.PLOT).read_text().startswith("<?xml")
    assert ladder.main(asked) == 0
    assert "| short convolution | 0.350 | 0.550 | +0.200" in capsys.readouterr().out


def test_the_time_being_up_is_told_by_the_exit_code(tmp_path: Path) -> None:
    assert ladder.main(["--results", str(tmp_path), "--seeds", "2", "--minutes", "0"]) == ladder.TIME_UP


def test_trials_of_one_number_share_what_they_are_drawn_from() -> None:
    assert identity(Trial((), 0)) != identity(Trial((), 1))
    assert ladder.description(Trial((), 0))["allowance_flops"] == CONFIG.allowance_flops
