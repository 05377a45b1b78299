"""The live view as JSON lines: standard output holds nothing else, and every line says where the run stands."""

from __future__ import annotations

import io
import json

import pytest

from selfimprove.app.json_lines import JsonProgress
from selfimprove.app.view import RunView

TOTALS = {"event", "time", "generations_done", "generations", "candidates", "denied", "failed", "best_skill",
          "charged_flops", "limit_flops"}  # fmt: skip


def test_a_run_prints_nothing_but_json_lines(cli):
    answer = cli("run", "debug=micro", "progress=json", "hydra.run.dir=runs/micro/j")
    assert answer.code == 0
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert all(set(line) >= TOTALS for line in lines)
    assert [line["generation"] for line in lines if line["event"] == "generation"] == [1, 2]
    assert next(line["edits"] for line in lines if line["event"] == "proposal") == ["recipe.learning_rate=0.001"]
    last = lines[-1]
    assert (last["event"], last["state"], last["run"]) == ("end", "finished", "runs/micro/j")
    assert (last["generations_done"], last["candidates"], last["best_skill"]) == (2, 4, 0.2)
    assert last["report"].endswith("report.html")


def test_a_resumed_run_prints_them_when_asked(cli, finished):
    answer = cli("resume", "--json")
    assert answer.code == 0, answer.err
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert lines[-1]["event"] == "end"
    assert lines[-1]["generations_done"] == 2


def test_progress_comes_at_most_once_a_second_and_decisions_always():
    out, now = io.StringIO(), [0.0]
    shown = JsonProgress(RunView(), out, lambda: now[0])
    body = {"generation": 1, "label": "train", "done": 1, "total": 4, "share": 0.1}
    for seconds in (0.0, 0.4, 0.9, 1.1, 1.5):
        now[0] = seconds
        shown.on_event("progress", body)
        shown.on_event("decision", {"generation": 1, "index": 0, "promoted": True, "reasons": ["better"]})
        shown.on_event("permit", {"signature": "s"})
        shown.on_event("tripwire", {"generation": 1, "trips": []})
    events = [json.loads(line)["event"] for line in out.getvalue().splitlines()]
    assert events == ["progress", *["decision"] * 3, "progress", *["decision"] * 2]


@pytest.mark.parametrize(("given", "says"), [("jsonn", "did you mean 'json'?"), ("5", "auto, json")])
def test_another_word_is_refused(cli, given, says):
    answer = cli("run", f"progress={given}")
    assert answer.code == 2
    assert says in answer.err
