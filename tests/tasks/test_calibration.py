"""The study of calibration trains what it says, resumes where it stopped, and measures anew what has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import calibration
from benchmarks.calibration import (
    TRIALS,
    VARIANTS,
    Trial,
    description,
    genome_of,
    identity,
    known_trials,
    tasks_of,
)
from benchmarks.sittings import append
from selfimprove.tasks.registry import FAMILIES
from selfimprove.tasks.suite import TaskSuite

CONFIG = calibration.setting()
TRIAL = Trial("recall", 1, "alone", "conv", 0)


def line(trial: Trial = TRIAL, skill: float = 1.0) -> dict[str, Any]:
    return description(trial) | {"skill": skill, "commit": "abc", "machine": {"cores": 2}}


@pytest.mark.parametrize("mixture", calibration.MIXTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_level_of_each_family_makes_a_valid_suite(family: str, mixture: str) -> None:
    for level in range(len(FAMILIES[family].ladder)):
        suite = TaskSuite(tasks_of(Trial(family, level, mixture, "seed", 0), CONFIG))
        assert suite.config.setting(family) == FAMILIES[family].ladder[level]
        assert (len(suite.families) == 1) == (mixture == "alone")


def test_every_variant_but_the_seed_itself_is_another_genome_or_another_allowance() -> None:
    found = {(genome_of(variant, CONFIG).sha256, variant.factor) for variant in VARIANTS.values()}
    assert len(found) == len(VARIANTS)
    assert genome_of(VARIANTS["seed"], CONFIG) == CONFIG.seed_genome


def test_what_was_measured_is_known_to_the_next_sitting(tmp_path: Path) -> None:
    append(tmp_path / TRIALS, line())
    assert list(known_trials(tmp_path)) == [identity(TRIAL)]


@pytest.mark.parametrize("changed", [{"knobs": {"pairs": 9}}, {"vocab_size": 24}, {"allowance_flops": 1}], ids=str)
def test_a_line_of_other_knobs_sizes_or_allowance_is_measured_anew(tmp_path: Path, changed: dict[str, Any]) -> None:
    append(tmp_path / TRIALS, line() | changed)
    assert known_trials(tmp_path) == {}


def test_a_line_of_a_level_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    append(tmp_path / TRIALS, line() | {"level": 99})
    assert known_trials(tmp_path) == {}


def test_a_level_is_mastered_by_the_variants_whose_mean_skill_is_above_the_threshold() -> None:
    lines = [line(replace(TRIAL, seed=seed, variant=variant), skill) for variant, seed, skill in
             [("seed", 0, 0.3), ("seed", 1, 0.5), ("conv", 0, 0.95), ("conv", 1, 0.89)]]  # fmt: skip
    [row] = calibration.summarize(lines)["levels"]
    assert row["mean_skill"] == {"seed": 0.4, "conv": pytest.approx(0.92)}
    assert row["mastered"] == ["conv"]
    assert row["skills"]["seed"] == [0.3, 0.5]


def test_the_time_being_up_is_told_by_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["--results", str(tmp_path), "--families", "recall", "--levels", "1", "--variants", "conv"]
    asked += ["--mixtures", "alone", "--seeds", "1"]
    monkeypatch.setattr(calibration, "measure", lambda trial: pytest.fail("nothing is left to do"))
    assert calibration.main([*asked, "--minutes", "0"]) == calibration.TIME_UP
    append(tmp_path / TRIALS, line())
    assert calibration.main(asked) == 0
    assert (tmp_path / "summary.json").exists()
