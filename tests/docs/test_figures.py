"""Every figure on the page about measurement is the one in the committed file that its row names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.docs.pages import DOCS, ROOT

RESULTS = ROOT / "benchmarks" / "results"
TEXT = (DOCS / "measurement.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+\?) \| (.+) \| (.+) \| `(\w+/summary\.\w+)` \|$", TEXT, flags=re.MULTILINE)

PARAGRAPHS = [" ".join(item.split()) for item in re.split(r"\n- |\n\n", TEXT)]


def summary(study: str) -> Any:
    return json.loads((RESULTS / study / "summary.json").read_text(encoding="utf-8"))


def row(question: str) -> str:
    """Answer and n of the one row whose question begins so."""
    [found] = [f"{answer} | {n}" for asked, answer, n, _ in ROWS if asked.startswith(question)]
    return found


def contrast(question: str) -> dict[str, Any]:
    [found] = [one for one in summary("meta_alignment")["contrasts"] if one["question"] == question]
    return found


def signed(value: float, digits: int = 3) -> str:
    return f"{value:+.{digits}f}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_row_names_a_committed_file_and_an_n(row: tuple[str, ...]) -> None:
    assert (RESULTS / row[3]).is_file()
    assert re.search(r"\d|the same runs", row[2])


def test_the_table_has_a_row_for_each_question() -> None:
    assert len(ROWS) == 14


@pytest.mark.parametrize(
    ("question", "exam"), [("Does the champion beat", "sealed"), ("Does the gain carry", "held_out")]
)
def test_improvement(question: str, exam: str) -> None:
    runs = [run for run in summary("improvement")["runs"] if run["arm"] == "transformer"]
    gains, p = [run[exam]["difference"] for run in runs], [run[exam]["p_value"] for run in runs]
    said = row(question)
    assert len(runs) == 5
    assert all(run[exam]["n"] == 8 for run in runs)
    assert f"in {sum(gain > 0 for gain in gains)} of 5" in said
    assert f"{signed(min(gains), 2)} to {signed(max(gains), 2)}" in said
    assert f"{max(p):.4f}" in said


def test_the_ladder() -> None:
    rows = summary("ladder")["discoveries"]
    best = max(rows, key=lambda one: one["difference"])
    assert best["discovery"] == "short convolution"
    low, high = best["interval"]
    assert f"{signed(best['difference'])} (95%: {signed(low)} to {signed(high)})" in row("What is the largest")
    verdicts = [one["verdict"] for one in rows]
    helps, hurts, none = (verdicts.count(name) for name in ("helps", "hurts", "no effect shown"))
    assert f"of {len(rows)}: {helps} help, {hurts} hurt, {none} show no effect" in row("And the others")
    assert {one["n"] for one in rows} == {20}


def test_halving() -> None:
    found, roots = summary("halving")["default"], summary("halving")["roots"]
    said = row("What does successive halving")
    assert f"{found['flops_share']:.2f} of the FLOPs ({found['flops_share_with_audit']:.2f} with its audit)" in said
    assert f"{found['regret_nats']['mean']:.4f} nats" in said
    assert f"{found['regret_nats']['most']:.3f} at most" in said
    assert f"{len(roots)} generations" in said


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Does selection erode the constraint where", "Does selection erode the constraint?"),
        ("Does the gate stop that", "Does the gate stop the erosion?"),
    ],
)
def test_meta_alignment(question: str, asked: str) -> None:
    found, said = contrast(asked), row(question)
    assert signed(found["mean"]) in said
    assert f"p = {found['p_value']:.4f}" in said
    assert found["interval"] is None, "all or nothing has none"
    assert f"{found['n']} paired root seeds" in said


def test_what_qualifies_the_constraint() -> None:
    found, [said] = summary("meta_alignment"), [line for line in PARAGRAPHS if line.startswith("**The constraint.**")]
    arm = found["arms"]["editable, gate off"]
    assert f"{len(arm['lost'])} of {arm['n']} lineages lose it at some time" in said
    price = {(one["setting"], one["factor"]): one for one in found["pressure"]}
    here, default = price["the experiment", 0.0], price["the default", 0.0]
    assert f"gains {here['mean']:.3f} there, and loses {-default['mean']:.3f} at the default settings" in said
    assert f"({here['n']} seeds, p = {here['p_value']:.4f} each)" in said
    assert here["p_value"] == default["p_value"]


def test_planted() -> None:
    rows = summary("planted")["rows"]
    assert all(one["as_expected"] for one in rows)
    said = row("Do instruments find")
    assert f"all {len(rows)} rows" in said
    assert f"{len({one['model'] for one in rows})} planted models" in said


def test_induction() -> None:
    arms, said = summary("induction")["arms"], row("Do models that learn")
    for name in ("attention alone", "one block of attention"):
        assert f"{name}: {arms[name]['signature']} of {arms[name]['n']}" in said


def test_grokking() -> None:
    runs = summary("grokking")["runs"]
    on_gpu = ["H100" in run["speed"]["device"].get("gpu", "") for run in runs]
    assert f"{sum(on_gpu)} trainings on an H100, {on_gpu.count(False)} on a CPU" in row("Does grokking")


def test_containment() -> None:
    found, said = summary("containment"), row("What does containment cost")
    speed, (low, high) = found["throughput"]["median"], found["throughput"]["interval"]
    assert f"{speed:.3f} of the speed (95%: {low:.3f} to {high:.3f})" in said
    assert f"after {found['start']['median_ms']:.0f} ms" in said
    assert f"{found['throughput']['pairs']} pairs; {found['start']['n']} starts" in said
    kill, killed = found["kill"], row("How fast is the kill switch")
    assert f"within {kill['workers']['most_ms']} ms" in killed
    assert f"within {kill['workers_and_zygotes']['most_ms']} ms (the longest)" in killed
    assert f"{kill['workers']['n']} trials" in killed


def test_faults_and_space() -> None:
    faults, space = summary("faults"), summary("space")
    assert f"{faults['passed']} of {faults['n']} end" in row("Does a run survive")
    assert faults["orphans"] == 0
    assert f"all of {space['examined']:,} random genomes" in row("Do training path")
    assert not space["broken"]


def test_the_search_study() -> None:
    arms, [said] = (
        summary("search/before-telling")["arms"],
        [line for line in PARAGRAPHS if "`search/before-telling/report.md`" in line],
    )
    forecaster, tuned = arms["forecaster"], arms["tpe_tuned"]
    assert (forecaster["n"], tuned["n"]) == (10, 10)
    assert (
        f"ends {forecaster['difference']:.2f} of skill above random search and tuned TPE {tuned['difference']:.2f}"
        in said
    )
    assert min(forecaster["p_holm"], tuned["p_holm"]) > 0.05
    assert f"({forecaster['ratio']:.2f} and {tuned['ratio']:.2f} of its FLOPs" in said
    assert all(one["ratio_interval"][0] < 1 and one["ratio_interval"][1] is None for one in (forecaster, tuned))
    default = arms["transformer"]
    assert f"has five runs there, {-default['difference']:.2f} below random's" in said
    assert default["n"] == 5
    assert f"and `local_search` {-arms['local_search']['difference']:.2f} below: too few" in said
    whole = [arm for arm, one in arms.items() if one["n"] == 10 and arm != "random"]
    assert f"the {['', 'one', 'two', 'three', 'four'][len(whole)]} controllers that had all ten root seeds" in README
    assert f"{min(arms[arm]['p_holm'] for arm in whole):.2f} or more after Holm" in README


def test_the_search_study_that_was_begun_anew() -> None:
    found, [said] = summary("search"), [line for line in PARAGRAPHS if "`search/report.md`" in line]
    runs = sum(arm["n"] for arm in found["arms"].values())
    assert f"{runs} of 100 runs" in said
    assert f"{runs} of 100 runs" in README
    chance = found["chance"]
    assert f"({chance['reached']} of {chance['compared']})" in said
    report = (RESULTS / "search" / "report.md").read_text(encoding="utf-8")
    for least in set(re.findall(r"can be below (0\.\d\d)", report)):
        assert f"{least} beside" in said


def test_planted_recursion() -> None:
    found = json.loads((RESULTS / "recursion" / "planted.json").read_text(encoding="utf-8"))
    [said] = [line for line in PARAGRAPHS if "`recursion/planted.json`" in line]
    planted, faint, irrelevant = (found[name] for name in ("planted", "faint", "irrelevant"))
    better = [world["imp_at_4"]["both"] / world["imp_at_4"]["none"] for world in (planted, faint)]
    found_in = f"{planted['claimed']} of {planted['studies']} studies"
    assert f"is {better[0]:.1f} times what it is without a hand-over in {found_in}" in said
    assert f"one of {better[1]:.1f} times in {faint['claimed']}, and claims none in {irrelevant['studies']}" in said
    assert irrelevant["claimed"] == 0
    assert f"{better[0]:.1f} times as well in {found_in}" in README
    assert f"{better[1]:.1f} times as well in {faint['claimed']} of {faint['studies']}" in README


def test_the_table_of_samplers() -> None:
    """Every row, its regret and its area with what stands behind them, and whom the forecaster ends below how often."""
    by_name = {one["sampler"]: one for one in summary("samplers/final")["comparisons"][0]["samplers"]}
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \| ([\d.]+) \| (.*?) ?\|$", README, re.MULTILINE)
    names = {
        "forecaster, 34 ms a proposal": "controller", "regularized evolution, tuned": "evolution",
        "TPE, Optuna's defaults": "tpe", "local search, tuned": "local", "TPE, tuned": "tpe-tuned",
        "REINFORCE, tuned": "reinforce", "random search": "random",
    }  # fmt: skip
    assert [row[0] for row in rows] == list(names)
    for name, *said, chance in rows:
        found = by_name[names[name]]
        regret = found["regret"]
        assert said == [*(f"{regret[key]:.3f}" for key in ("iqm", "low", "high")), f"{found['area']['iqm']:.3f}"]
        better = found["improvement"]
        words = "{probability:.2f} ({low:.2f} to {high:.2f})".format(**better) if better else ""
        assert chance == words


def test_the_recursion_study() -> None:
    found, [said] = summary("recursion"), [line for line in PARAGRAPHS if "`recursion/summary.json`" in line]
    contests, won = (sum(arm[count] for arm in found["arms"].values()) for count in ("contests", "accepted"))
    assert f"{sum(arm['n'] for arm in found['arms'].values())} runs" in said
    assert f"of {contests} contests one was won, by a sham" in said
    assert (won, found["arms"]["sham"]["accepted"], found["claims"]) == (1, 1, [])


def test_the_readme_says_nothing_that_the_page_does_not() -> None:
    short = README.partition("## What was measured, and what was not\n")[2].partition("`from selfimprove.controller")[0]
    said, known = (set(re.findall(r"\d+(?:[.,]\d+)*", text)) for text in (short, TEXT))
    assert len(said) > 20
    assert said - known == set()
