"""Several runs side by side: the figures are those of their ledgers, on the terminal, as JSON and on the page."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from selfimprove.app.report.compare import compare_runs, spread
from selfimprove.app.report.handovers import read_handovers, summed_up
from selfimprove.app.report.records import Record, Records, read_records
from selfimprove.archive.audit import AuditReport, Finding
from tests.app import report_fixture as fixture

SOUND, BROKEN = AuditReport(True, True, 9, ()), AuditReport(False, False, 9, (Finding("ledger.jsonl", 3, "was cut"),))


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A run with promotions and hand-overs, and one of random proposals; the second fails its audit."""
    ours, theirs = fixture.full_run(), fixture.baseline_run()
    found = ours.write(tmp_path / "a" / "x"), theirs.write(tmp_path / "b" / "x")
    monkeypatch.setattr(
        "selfimprove.app.comparing.audit", lambda folder, anchor: BROKEN if folder == found[1] else SOUND
    )
    return found


def test_compare_gives_stable_keys_and_says_by_its_exit_code_that_an_audit_found_something(cli, two):
    answer = cli("compare", *map(str, two), "--json")
    assert answer.code == 1, answer.err
    told = json.loads(answer.out)
    assert list(told) == ["page", "common_flops", "runs", "differs"]
    first, second = told["runs"]
    assert (first["run"], second["run"]) == ("a/x", "b/x")
    assert (first["promotions"], second["promotions"]) == (3, 1)
    assert first["sealed"] == {"difference": pytest.approx(0.31, abs=0.03), "p_value": 0.00390625, "seeds": 8}
    assert first["held_out"]["p_value"] == 0.5
    assert first["handovers"] == {"promotions": 3, "contenders": 2, "accepted": 1}
    assert second["handovers"] == {"promotions": 0, "contenders": 0, "accepted": 0}
    assert (first["audit"]["ok"], second["audit"]) == (True, {"ok": False, "anchored": False, "findings": 1})
    assert told["common_flops"] == min(run["charged_flops"] for run in told["runs"])
    skills = second["best_so_far"]["skill"]
    assert skills == sorted(set(skills))
    assert skills[-1] == second["best_search_skill"]
    assert told["differs"]["controller.name"] == ["transformer", "random"]
    assert told["differs"]["inspection.retention_floor"] == ["0.9", "absent"]
    assert "alpha" not in told["differs"]


def test_compare_prints_a_table_and_writes_a_page_that_needs_nothing_else(cli, two, tmp_path):
    answer = cli("compare", *map(str, two), "--output", "both.html")
    out = " ".join(answer.out.split())
    assert "NOT OK, 1 finding" in out
    assert "controller.name transformer random" in out
    assert out.endswith("both.html")
    page = (tmp_path / "both.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert fixture.EVIL not in page
    assert "The audit of B found something." in page
    assert "1 accepted; genome" in page


def test_runs_on_other_tasks_are_said_to_be_incomparable(two):
    ours, theirs = (read_records(folder) for folder in two)
    other = Records(tuple(Record(line.kind, _elsewhere(line.body), line.time) for line in theirs.lines))
    for second, keys in ((theirs, ()), (other, ("tasks.context", "tasks.levels.recall"))):
        assert compare_runs({"a": (ours, SOUND), "b": (second, SOUND)}).other_tasks == keys


def _elsewhere(body):
    tasks = {"context": 48, "levels": {"recall": 1}, "table_seed": 1, "eval_sequences": 8}
    return {**body, "config": {**body["config"], "tasks": tasks}} if "config" in body else body


def test_names_at_the_ends_of_lines_never_lie_on_each_other():
    placed = spread([(0.0, float(y), str(y)) for y in (0, 1, 2, 16, 60)])
    heights = [y for _, y, _ in placed]
    assert all(b - a >= 14 for a, b in pairwise(heights))


def test_hand_overs_are_summed_up_in_one_line(two):
    found = read_handovers(read_records(two[0]))
    assert summed_up(found).startswith("2 contenders after 3 promotions, 1 accepted; genome ")
    assert summed_up(found[:1]) == "1 contender after 1 promotion, 0 accepted; the first genome rules"
    assert read_handovers(Records((Record("handover", {"accepted": True}), Record("handover", {})))) == ()
    whatever = {"generation": 1, "accepted": "yes", "comparison": [], "reasons": 4, "contender": None}
    (one,) = read_handovers(Records((Record("handover", whatever),)))
    assert (one.accepted, one.reasons, one.contender) == (False, (), "")
