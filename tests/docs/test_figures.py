"""Every figure on the page about measurement is the one in the committed file that its row names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.docs.pages import DOCS, ROOT

RESULTS = ROOT / "benchmarks" / "results"
TEXT = (DOCS / "measurement.md").read_text(encoding="utf-8")
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
    if "95%" in said:
        assert "(95%: {} to {})".format(*map(signed, found["interval"])) in said
    if "after Holm" in said:
        assert f"({found['p_holm']:.2f} after Holm)" in said
    assert f"{found['n']} paired root seeds" in said


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
    assert f"within {kill['workers']['p99_ms']:.0f} ms" in killed
    assert f"within {kill['workers_and_zygotes']['p99_ms']:.0f} ms" in killed
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


def test_the_recursion_study() -> None:
    found, [said] = summary("recursion"), [line for line in PARAGRAPHS if "`recursion/summary.json`" in line]
    contests, won = (sum(arm[count] for arm in found["arms"].values()) for count in ("contests", "accepted"))
    assert f"{sum(arm['n'] for arm in found['arms'].values())} runs" in said
    assert f"of {contests} contests one was won, by a sham" in said
    assert (won, found["arms"]["sham"]["accepted"], found["claims"]) == (1, 1, [])


def test_the_readme_says_nothing_that_the_page_does_not() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    short = readme.partition("## What was measured, and what was not\n")[2].partition("`from selfimprove.controller")[0]
    said, known = (set(re.findall(r"\d+(?:[.,]\d+)*", text)) for text in (short, TEXT))
    assert len(said) > 20
    assert said - known == set()
