"""The recursion study: what it reads in a ledger, what it claims, and that it finds what is planted and only that."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recursion
from benchmarks.arms import Study
from benchmarks.planted_recursion import ALPHA, CANDIDATES, GENERATIONS, PROMOTED, STUDIES, WORLDS, figures, run
from benchmarks.recursion_analysis import CONTROLS, around, quality, since, summary_of
from benchmarks.recursion_report import report
from benchmarks.recursion_rows import row_of
from benchmarks.setting import RESULTS
from benchmarks.sittings import TIME_UP
from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.containment.keys import SigningKey
from selfimprove.controller.config import ARMS, INHERITING
from selfimprove.loop import run as loop
from selfimprove.loop.improvement import imp_at_k
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies


def row(arm: str, seed: int, imp: list[float], promoted_in: int = 1, **more: Any) -> dict[str, Any]:
    generations = [
        {"generation": n, "promoted": n == promoted_in, "imp": {"1": value / 2, "4": value}}
        for n, value in enumerate(imp, start=1)
    ]
    return {
        "arm": arm, "seed": seed, "generations": generations, "handovers": [], "best_skill": 0.5, "commit": "abc",
        "charged_flops": 10**12, "paid": {"controller": 10**11}, **more,
    }  # fmt: skip


def study(quality_of: Callable[[str, random.Random], float], seeds: int = 8) -> list[dict[str, Any]]:
    """Rows of every arm, whose proposals are as good as this says."""
    rng = random.Random(0)
    handed = [{"generation": 1, "accepted": True, "p_value": 0.001}]
    over = {arm: handed if arm in ("sham", *INHERITING) else [] for arm in ARMS}
    return [row(arm, seed, [0.3, quality_of(arm, rng)], handovers=over[arm]) for seed in range(seeds) for arm in ARMS]


def test_quality_is_that_of_the_generations_after_the_first_promotion() -> None:
    found = row("both", 0, [0.1, 0.2, 0.4, 0.6], promoted_in=2)
    assert since(found) == 2
    assert quality(found) == pytest.approx(0.5)
    assert quality(found, "1") == pytest.approx(0.25)
    for silent in (row("both", 0, [0.1, 0.2], promoted_in=2), row("both", 0, [0.1], promoted_in=9)):
        assert quality(silent) is None


def test_an_arm_that_beats_all_controls_is_claimed() -> None:
    found = summary_of(study(lambda arm, rng: 0.2 + 0.1 * (arm == "both") + rng.gauss(0, 0.01)))
    assert found["claims"] == ["both"]
    assert "Self-improvement is claimed for: both." in report(found)


def test_learning_is_what_the_arm_that_learns_is_ahead_of_the_frozen_one() -> None:
    rows = [row(arm, seed, [0.1], best_skill=0.5 + 0.1 * (arm == "none")) for seed in range(6) for arm in ARMS]
    found = summary_of(rows)
    assert (found["learning"]["mean"], found["learning"]["n"]) == (pytest.approx(0.1), 6)
    assert "+0.100, 95% interval +0.100 to +0.100, two-sided p = 0.0312, 6 root seeds" in report(found)
    assert "No root seed has run `none` and `frozen` yet." in report(summary_of([row("both", 0, [0.1])]))


def test_what_hands_nothing_over_improves_nothing_however_much_the_controls_harm() -> None:
    rows = study(lambda arm, rng: 0.2 - 0.1 * (arm in ("extra", "sham")) + rng.gauss(0, 0.001))
    assert summary_of(rows)["claims"] == [], "handed over, and no better than without"
    ahead = study(lambda arm, rng: 0.2 + 0.1 * (arm in INHERITING) + rng.gauss(0, 0.001))
    found = summary_of([one | {"handovers": []} for one in ahead])
    assert found["claims"] == []
    assert report(found).count("not tested: nothing was handed over") == 9


@pytest.mark.parametrize("control", CONTROLS)
def test_an_arm_that_beats_one_control_is_not(control: str) -> None:
    found = summary_of(study(lambda arm, rng: 0.2 - 0.1 * (arm == control) + rng.gauss(0, 0.01)))
    better = [one for one in found["contrasts"] if one["p_holm"] < 0.05]
    assert {one["control"] for one in better} == {control}
    assert len(better) == len(INHERITING)
    assert found["claims"] == []
    assert "No self-improvement is claimed" in report(found)


def test_with_too_few_root_seeds_nothing_is_decided_and_the_report_says_so() -> None:
    found = summary_of(study(lambda arm, rng: 0.2 + 0.1 * (arm == "both"), seeds=2))
    assert found["claims"] == []
    assert report(found).count("undecided: p after Holm's correction cannot be below 1") == 9
    assert "no pair yet" in report(summary_of([row("none", 0, [0.1])]))


def test_imp_before_and_after_a_hand_over_is_that_of_its_generation_and_the_next() -> None:
    accepted = {"generation": 2, "accepted": True, "p_value": 0.01}
    refused, last = accepted | {"generation": 1, "accepted": False}, accepted | {"generation": 3}
    found = around([row("both", 0, [0.1, 0.2, 0.4], handovers=[refused, accepted, last])])
    assert found == {"n": 1, "before": pytest.approx(0.2), "after": pytest.approx(0.4)}


def test_planted_arms_of_a_root_seed_are_one_run_until_their_first_promotion() -> None:
    for seed in range(3):
        rows = [run(WORLDS["planted"], arm, seed, 0) for arm in ARMS]
        first = since(rows[0])
        for other in rows:
            assert since(other) == first
            assert other["generations"][:first] == rows[0]["generations"][:first]
            assert {g["proposals"] for g in other["generations"]} == {CANDIDATES}


def test_planted_studies_have_the_settings_of_the_real_one() -> None:
    settings = settings_from(compose(["experiment=recursion"])).run
    assert (settings.generations, settings.candidates, settings.alpha) == (GENERATIONS, CANDIDATES, ALPHA)
    assert settings.min_gain == PROMOTED


def test_a_planted_controller_is_found_and_an_irrelevant_one_is_not() -> None:
    found = figures({"planted": 4, "irrelevant": 4})
    assert found["planted"]["claimed"] >= 3
    assert found["irrelevant"]["claimed"] <= 1
    assert found["irrelevant"]["handovers_a_run"]["both"] > 0.5  # controllers do take over, to no effect


def test_the_committed_figures_are_those_of_the_whole_benchmark_and_as_they_must_be() -> None:
    found = json.loads((RESULTS / "recursion" / "planted.json").read_text(encoding="utf-8"))
    assert {name: found[name]["studies"] for name in STUDIES} == STUDIES
    assert found["planted"]["claimed"] >= 0.8 * 50
    assert found["irrelevant"]["claimed"] <= 16
    assert found["as_expected"] is True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose workers are played, in which promotions lead to trials."""
    folder = tmp_path_factory.mktemp("recursion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        patch.setattr(loop, "Supervisor", Player)
        SigningKey.load(folder / "state")
        controller = replace(CONFIG.controller, recursion="both", handover_cost=100.0, prior_count=0.0)
        patch.setattr("selfimprove.loop.succession.undecidable", lambda outcomes, alpha: "")
        loop.run(replace(CONFIG, controller=controller), folder / "run", Silent())
    return folder / "run"


def test_a_row_says_what_the_ledger_does(whole: Path) -> None:
    found = row_of(read(whole / LEDGER_NAME, None), "both", 3)
    json.dumps(found)
    charges, handovers = bodies(whole, "charge"), bodies(whole, "handover")
    assert found["charged_flops"] == sum(found["paid"].values()) == charges[-1]["total"]
    trials = sum(body["flops"] for body in bodies(whole, "trial"))
    assert found["paid"]["controller"] > trials > 0
    assert [one["accepted"] for one in found["handovers"]] == [body["accepted"] for body in handovers]
    assert found["handovers"][0]["p_value"] == handovers[0]["comparison"]["p_value"]
    for generation in found["generations"]:
        assert generation["imp"].keys() == {"1", "4"}
        assert generation["proposals"] == CONFIG.candidates


def test_the_gain_of_what_was_confirmed_counts_on_fresh_seeds(whole: Path) -> None:
    found = row_of(read(whole / LEDGER_NAME, None), "both", 3)
    [first, *_] = bodies(whole, "confirmation")
    n = first["generation"]
    scores = {body["index"]: body["skill"] for body in bodies(whole, "score") if body["generation"] == n}
    reference = next(body["skill"] for body in bodies(whole, "reference") if body["generation"] == n)
    gains = [scores[i] - reference if i in scores else None for i in range(CONFIG.candidates)]
    fresh = [first["difference"] if i == first["index"] else None for i in range(CONFIG.candidates)]
    most = min(4, CONFIG.candidates)
    assert found["generations"][n - 1]["imp"]["4"] == pytest.approx(imp_at_k(gains, most, fresh))


def test_a_generation_whose_parent_could_not_be_trained_again_says_nothing_of_its_proposals(whole: Path) -> None:
    entries = [
        replace(one, body=one.body | {"failed": 1}) if one.kind == "reference" and one.body["generation"] == 2 else one
        for one in read(whole / LEDGER_NAME, None)
    ]
    found = row_of(entries, "both", 3)
    assert found["generations"][1]["imp"] == {"1": None, "4": None}
    assert found["generations"][0]["imp"]["4"] is not None
    unknown = row("both", 0, [0.1, 0.2, 0.4, 0.6])
    unknown["generations"][2]["imp"] = {"1": None, "4": None}
    assert quality(unknown) == pytest.approx(0.4)
    unknown["handovers"] = [{"generation": n, "accepted": True} for n in (1, 2)]
    assert around([unknown])["n"] == 1


def test_a_study_runs_what_has_no_line_yet_and_says_when_time_was_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, bool]] = []

    def played(
        study: Study, folder: Path, arm: str, seed: int, overrides: list[str], *, start: bool
    ) -> dict[str, Any] | None:
        asked.append((arm, seed, start))
        return row(arm, seed, [0.1, 0.2]) | {"state": "finished", "seconds": 1.0} if start else None

    monkeypatch.setattr(Study, "run_one", played)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "before"))  # is set by the study, and undone here
    words = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs"), "--commit", "abc", "--processes", "1"]
    assert recursion.main([*words, "--seeds", "0", "--arms", "extra", "both"]) == 0
    assert recursion.main([*words, "--seeds", "0", "1", "--arms", "both", "--minutes", "-1"]) == TIME_UP
    assert asked == [("extra", 0, True), ("both", 0, True), ("both", 1, False)]
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
    assert "| both | extra | 1 |" in (tmp_path / "report.md").read_text()
