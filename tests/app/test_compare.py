"""Several runs side by side: the figures are those of their ledgers, on the terminal, as JSON and on the page."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from selfimprove.app.report import write_report
from selfimprove.app.report.compare import compare_runs, spread
from selfimprove.app.report.handovers import read_handovers, summed_up
from selfimprove.app.report.records import Record, Records, read_records
from selfimprove.app.report.rivals import set_apart, settings_apart
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


TASKS = {"families": ["recall", "mqar"], "held_out": ["fuzzy", "dyck"], "context": 24, "levels": {"recall": 0}}


@pytest.mark.parametrize(
    ("change", "tasks", "exams"),
    [
        ({}, (), ()),
        ({"table_seed": 1, "eval_sequences": 8}, (), ()),
        ({"context": 48}, ("tasks.context",), ()),
        ({"families": ["recall", "copy"]}, ("tasks.families",), ()),
        ({"held_out": ["fuzzy"]}, (), ("tasks.held_out",)),
        ({"levels": {"recall": 1}}, ("tasks.levels.recall",), ()),
        ({"levels": {"recall": 0, "fuzzy": 2}}, (), ("tasks.levels.fuzzy",)),
        ({"levels": {"recall": 0, "copy": 3}}, (), ()),  # of a family that neither run has
        ({"levels": {"recall": 0, "mqar": 0}}, (), ()),  # written out, and the same
    ],
)
def test_runs_are_said_to_be_incomparable_where_tasks_that_they_have_differ(two, change, tasks, exams):
    ours, theirs = (_with_tasks(read_records(folder), told) for folder, told in zip(two, ({}, change), strict=True))
    compared = compare_runs({"a": (ours, SOUND), "b": (theirs, SOUND)})
    assert (compared.other_tasks, compared.other_exams) == (tasks, exams)


def _examined_at(folder, levels):
    """The run, with its sealed exam at these levels."""
    ledger = folder / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["kind"] == "sealed":
            line["body"]["levels"] = levels
    ledger.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def test_sealed_gains_of_exams_at_different_levels_are_announced_on_the_terminal_and_on_the_page(cli, two, tmp_path):
    for folder, levels in zip(two, ({"recall": 2, "mqar": 0}, {"recall": 0, "mqar": 0}), strict=True):
        _examined_at(folder, levels)
    out = " ".join(cli("compare", *map(str, two)).out.split())
    assert "The sealed gains are of exams at different levels and cannot be compared: recall" in out
    assert "at level recall 2" in out
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert 'id="other-levels"' in page
    assert "<small>at level recall 2</small>" in page
    assert "<small>at level 0</small>" in page


def test_sealed_gains_of_exams_at_the_same_levels_are_compared(two):
    for folder in two:
        _examined_at(folder, {"recall": 2})
    ours, theirs = map(read_records, two)
    assert compare_runs({"a": (ours, SOUND), "b": (theirs, SOUND)}).other_levels == ()


def _with_tasks(records, change):
    def told(body):
        return {**body, "config": {**body["config"], "tasks": TASKS | change}} if "config" in body else body

    return Records(tuple(Record(line.kind, told(line.body), line.time) for line in records.lines))


def test_gains_on_other_held_out_families_are_announced_on_the_terminal_and_on_the_page(cli, two, tmp_path):
    for folder, held_out in zip(two, (["fuzzy"], ["dyck"]), strict=True):
        ledger = folder / "ledger.jsonl"
        first, rest = ledger.read_text(encoding="utf-8").split("\n", 1)
        line = json.loads(first)
        line["body"]["config"]["tasks"] = {"held_out": held_out}
        ledger.write_text(f"{json.dumps(line)}\n{rest}", encoding="utf-8")
    out = " ".join(cli("compare", *map(str, two)).out.split())
    assert "The gains on held-out families are of different tasks and cannot be compared: tasks.held_out" in out
    assert "The skills are" not in out
    assert 'id="other-exams"' in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_a_comparison_replaces_an_earlier_one_and_nothing_else(cli, two, tmp_path):
    report = write_report(two[0])
    ledger = two[0] / "ledger.jsonl"
    (tmp_path / "folder").mkdir()
    for taken in (ledger, report, tmp_path / "folder"):
        before = None if taken.is_dir() else taken.read_bytes()
        answer = cli("compare", *map(str, two), "--output", str(taken))
        assert answer.code == 2
        assert f"got {taken}; allowed: a new file in an existing folder, or an earlier comparison; " in answer.err
        assert "name another --output" in answer.err
        assert before is None or taken.read_bytes() == before
    for _ in range(2):
        assert cli("compare", *map(str, two), "--output", "page.html").code == 1
    answer = cli("compare", *map(str, two), "--output", "no/such/page.html")
    assert answer.code == 2
    assert "make the folder no/such, or name another --output" in answer.err


def _configured(**config):
    return Records((Record("run", {"config": config}),))


def test_settings_are_compared_as_they_are_and_shown_so_that_the_difference_is_seen():
    near = _configured(flops=48_000_000_000, rate=0.001), _configured(flops=48_049_000_000, rate=0.0010000001)
    assert settings_apart(near) == {
        "flops": ("48,000,000,000 FLOP", "48,049,000,000 FLOP"),
        "rate": ("0.001", "0.0010000001"),
    }
    far = _configured(flops=48_000_000_000), _configured(flops=50_000_000_000), _configured()
    assert settings_apart(far) == {"flops": ("48 GFLOP", "50 GFLOP", "absent")}
    assert settings_apart([_configured(flops=48_000_000_000, rate=1), _configured(flops=48e9, rate=1.0)]) == {}


def test_a_run_beside_another_is_set_up_differently_in_any_setting_but_seed_and_controller():
    here = _configured(seed=1, controller={"name": "transformer", "steps": 40})
    assert set_apart(_configured(seed=2, controller={"name": "transformer", "steps": 4000}), here) == (
        "controller.steps 4000 (here 40)",
    )
    assert set_apart(_configured(seed=1, controller={"name": "random", "steps": 4000}), here) == (
        "controller.steps 4000 (here 40)",
    )
    another = {"name": "gp", "kernel": "matern"}  # a controller with settings of its own
    assert set_apart(_configured(seed=1, controller=another), here) == ()
    assert set_apart(_configured(seed_genome="wide", controller=here.last("run")["config"]["controller"]), here) == (
        "seed_genome wide (here absent)",
    )


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
