"""What is committed as measured is what the product uses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import controller
from benchmarks.lessons_of_forecaster import TRIALS
from benchmarks.setting import RESULTS, default_config
from selfimprove.loop.config import TrainingConfig
from selfimprove.tasks.family import knobs
from selfimprove.tasks.registry import FAMILIES


def summary(study: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / study / "summary.json").read_text(encoding="utf-8"))
    return found


def test_the_seed_genome_has_the_learning_rate_and_batch_that_the_sweep_chose() -> None:
    swept, config = summary("sweep"), default_config()
    chosen = (swept["learning_rate"], swept["batch"])
    assert (config.training.seed_learning_rate, config.training.seed_batch) == chosen
    assert (TrainingConfig().seed_learning_rate, TrainingConfig().seed_batch) == chosen


def test_the_sweep_was_done_at_the_scale_of_the_default_experiment() -> None:
    swept, config = summary("sweep"), default_config()
    assert swept["allowance_flops"] == config.allowance_flops
    tasks = config.tasks
    assert swept["tasks"] == {
        "families": list(tasks.families),
        "vocab_size": tasks.vocab_size,
        "context": tasks.context,
    }


def test_the_best_learning_rate_is_inside_the_grid_not_at_its_edge() -> None:
    swept = summary("sweep")
    rates = sorted({row["learning_rate"] for row in swept["pairs"]})
    assert rates[0] < swept["learning_rate"] < rates[-1]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "text"])
def test_the_first_difficulty_of_each_family_is_learnable_as_the_calibration_shows(name: str) -> None:
    """By the seed genome at ten times the allowance, or with one or two discoveries at the allowance itself."""
    [row] = [row for row in summary("calibration")["levels"] if (row["family"], row["level"]) == (name, 0)]
    assert row["knobs"] == knobs(FAMILIES[name].ladder[0])
    assert row["mixture"] == "alone"
    assert set(row["mastered"]) - {"seed"}
    assert all(len(row["skills"][variant]) >= 3 for variant in row["mastered"])


def test_the_calibration_and_the_ladder_were_done_at_the_allowance_of_the_default_experiment() -> None:
    allowance = default_config().allowance_flops
    assert summary("calibration")["allowance_flops"] == summary("ladder")["allowance_flops"] == allowance


def test_the_study_of_the_controller_makes_the_weights_that_come_with_the_package() -> None:
    said = json.loads((RESULTS / "controller" / "training.json").read_text(encoding="utf-8"))
    assert (controller.SHARDS * controller.SHARD * len(TRIALS), controller.STEPS) == (said["lessons"], said["steps"])


def test_every_discovery_was_measured_on_twenty_seeds() -> None:
    assert {row["n"] for row in summary("ladder")["discoveries"]} == {20}


def test_the_parts_that_halving_keeps_are_those_that_were_measured() -> None:
    halving, measured = default_config().halving, summary("halving")
    assert list(halving.keep) == measured["default"]["keep"]
    assert (halving.margin, halving.look_ahead) == (measured["default"]["margin"], measured["default"]["look_ahead"])
    assert len(measured["roots"]) >= 20


def test_a_default_inspection_was_measured_to_cost_what_is_allowed_and_to_grow_no_faster_than_linearly() -> None:
    measured = summary("inspection")
    smallest = measured["sizes"][0]
    assert smallest["default_seconds"] <= 4
    assert smallest["full_seconds"] <= 60
    for coverage in ("default", "full"):
        assert measured["exponents"][f"{coverage}_seconds"]["high"] <= 1
        assert measured["exponents_of_the_larger_half"][f"{coverage}_seconds"]["low"] <= 1
