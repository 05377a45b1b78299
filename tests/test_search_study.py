"""The search study: what it reads in a ledger, and the comparison that it makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.search import ARMS, row_of
from benchmarks.search_analysis import NEAR, OURS, summary_of
from benchmarks.search_report import report
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.controller.registry import CONTROLLERS
from selfimprove.loop import run as loop
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies


def row(arm: str, seed: int, skills: list[float], flops: list[float] | None = None) -> dict[str, Any]:
    """A run whose champion has these skills after generations that end at so many FLOPs."""
    ends = flops or [1e12 * n for n in range(1, len(skills) + 1)]
    before = [0.2, *skills]
    generations = [
        {"generation": n, "charged_flops": end, "promoted": skill > before[n - 1], "skill": skill}
        for n, (end, skill) in enumerate(zip(ends, skills, strict=True), start=1)
    ]
    return {
        "arm": arm, "seed": seed, "seed_genome": 0.2, "generations": generations, "paid": {"controller": 1e9},
        "seconds": 60.0, "commit": "abc", "overrides": [],
    }  # fmt: skip


def arms_of(*rows: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = summary_of(rows)["arms"]
    return found


def test_compute_is_counted_until_a_run_is_near_what_random_search_ended_with() -> None:
    near = 0.6 - NEAR / 2
    found = arms_of(row("random", 0, [0.3, 0.3, 0.6]), row("tpe", 0, [0.4, near], flops=[5e11, 1e12]))
    assert found["tpe"]["ratio"] == pytest.approx(1 / 3)
    assert found["random"]["ratio"] == 1.0
    assert (found["tpe"]["reached"], found["tpe"]["compared"]) == (1, 1)


def test_what_is_not_reached_took_infinitely_long_and_the_median_says_so() -> None:
    seeds = range(6)
    rows = [row("random", seed, [0.3, 0.6]) for seed in seeds]
    rows += [row("tpe", seed, [0.6 if seed == 0 else 0.3, 0.3]) for seed in seeds]
    found = arms_of(*rows)["tpe"]
    assert (found["reached"], found["compared"], found["ratio"]) == (1, 6, None)
    assert found["ratio_interval"] == [0.5, None]
    assert "| `tpe` | 6 | 1 of 6 | infinite | infinite | 0.50 to infinite |" in report(summary_of(rows))


@pytest.mark.parametrize(
    ("seeds", "others", "least"), [(6, 1, None), (6, 2, "0.06"), (6, 6, "0.19"), (8, 6, None), (5, 2, None)]
)
def test_a_table_that_could_not_tell_even_equal_signs_from_chance_says_so(
    seeds: int, others: int, least: str | None
) -> None:
    arms = ("random", "tpe", "tpe_tuned", "gp", "evolution", "local_search", "reinforce")[: others + 1]
    rows = [row(arm, seed, [0.3, 0.6 + 0.01 * (arm != "random")]) for arm in arms for seed in range(seeds)]
    text = report(summary_of(rows))
    assert ("Undecided" in text) == (least is not None)
    if least is not None:
        assert f"with {seeds} root seeds no p of {others} can be below {least}." in text


def test_fewer_than_six_root_seeds_have_a_median_and_no_interval() -> None:
    rows = [row(arm, seed, [0.3, 0.6]) for arm in ("random", "tpe") for seed in range(5)]
    assert arms_of(*rows)["tpe"]["ratio_interval"] is None
    assert "| `tpe` | 5 | 5 of 5 | 2.00 | 1.00 |  | +0.000 |" in report(summary_of(rows))


def test_what_is_no_better_than_random_is_shown_by_random_search_on_another_root_seed() -> None:
    rows = [row("random", seed, skills) for seed, skills in enumerate(([0.3, 0.6], [0.6, 0.6], [0.3, 0.3]))]
    found = summary_of(rows)
    assert found["chance"] == {"compared": 6, "reached": 4, "flops_to_best": 1.5e12, "ratio": 1.5}
    assert "| `random` on another root seed |  | 4 of 6 | 1.50 | 1.50 |  |  |" in report(found)
    assert "another root seed |" not in report(summary_of(rows[:1]))


def test_a_root_seed_on_which_random_search_found_nothing_is_not_compared() -> None:
    found = arms_of(row("random", 0, [0.2, 0.2]), row("tpe", 0, [0.5, 0.5]))["tpe"]
    assert (found["compared"], found["ratio"]) == (0, None)
    assert found["difference"] == pytest.approx(0.3)


def test_areas_are_taken_up_to_what_both_runs_spent() -> None:
    found = arms_of(row("random", 0, [0.2, 0.6]), row("tpe", 0, [0.4, 0.4, 0.4, 1.0]))
    assert found["tpe"]["area"] == pytest.approx((0.2 + 0.4) / 2 - 0.2)
    assert found["random"]["area"] == 0.0


def test_differences_are_paired_and_corrected_over_controllers() -> None:
    seeds = range(10)
    rows = [row("random", seed, [0.3 + 0.01 * seed]) for seed in seeds]
    rows += [row(arm, seed, [0.4 + 0.01 * seed]) for seed in seeds for arm in ("tpe", "evolution")]
    found = arms_of(*rows)
    assert found["tpe"]["difference"] == pytest.approx(0.1)
    assert found["tpe"]["p_value"] == pytest.approx(2 / 2**10)
    assert found["tpe"]["p_holm"] == pytest.approx(4 / 2**10)
    assert found["random"]["difference"] is None


def test_a_learned_controller_is_set_beside_each_baseline_where_one_of_them_reached_what_random_search_did() -> None:
    rows = [row("random", seed, [0.3, 0.3, 0.3, 0.6]) for seed in range(3)]
    rows += [row("forecaster", 0, [0.6]), row("forecaster", 1, [0.3]), row("forecaster", 2, [0.3])]
    rows += [row("tpe", 0, [0.3, 0.6]), row("tpe", 1, [0.6]), row("tpe", 2, [0.4])]
    rows += [row("evolution", 0, [0.3])]
    summary = summary_of(rows)
    beside = summary["ours"]["forecaster"]
    assert {*beside} == {"tpe", "evolution"}
    tpe, evolution = beside["tpe"], beside["evolution"]
    assert (tpe["compared"], tpe["neither"], tpe["sooner"], tpe["paired"]) == (2, 1, 1, 3)
    assert (tpe["ratio"], tpe["ratio_interval"]) == (None, None)
    assert tpe["difference"] == pytest.approx((0.6 - 0.6 + 0.3 - 0.6 + 0.3 - 0.4) / 3)
    assert (evolution["ratio"], evolution["sooner"]) == (0.0, 1), "it reached what the baseline never did"
    assert "| `tpe` | 3 | 1 | 1 | 1 | infinite |  |" in report(summary)


def test_what_starts_near_what_random_search_ended_with_has_taken_nothing() -> None:
    rows = [row("random", 0, [0.3]), row("forecaster", 0, [0.2, 0.3]), row("tpe", 0, [0.3]), row("gp", 0, [0.3])]
    for one in rows[2:]:
        one["seed_genome"] = 0.3
    found = summary_of(rows)
    tpe = found["ours"]["forecaster"]["tpe"]
    assert (tpe["compared"], tpe["sooner"], tpe["ratio"]) == (1, 0, None)
    assert found["arms"]["gp"]["ratio"] == 0.0


def test_every_controller_but_the_scripted_one_is_an_arm() -> None:
    assert {*ARMS} == {*CONTROLLERS} - {"adversary"}
    assert {*OURS} < {*ARMS}


def test_a_row_says_what_the_ledger_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    loop.run(CONFIG, tmp_path / "run", Silent())
    found = row_of(read(tmp_path / "run" / LEDGER_NAME, None), "transformer", 3)
    closed = bodies(tmp_path / "run", "generation")
    assert [one["charged_flops"] for one in found["generations"]] == [body["charged_flops"] for body in closed]
    confirmed = {body["generation"]: body for body in bodies(tmp_path / "run", "confirmation")}
    promoted = [one for one in found["generations"] if one["promoted"]]
    assert promoted, "the played run promotes"
    for one in promoted:
        skills = confirmed[one["generation"]]["candidate"]
        assert one["skill"] == pytest.approx(sum(skills) / len(skills))
    assert len(found["edits"]) == len(promoted)
    assert sum(found["paid"].values()) == bodies(tmp_path / "run", "charge")[-1]["total"]
    assert (found["arm"], found["seed"]) == ("transformer", 3)
