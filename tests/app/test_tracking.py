"""Tracking: an offline run holds every generation, and nothing that W&B does can stop or slow the loop."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from selfimprove.app import tracked, tracking
from selfimprove.app.tracker import Recorder, main
from selfimprove.app.tracking import Tracker, TrackingConfig, start_tracking
from selfimprove.app.view import RunView
from tests.app import readings

READER = Path(sys.executable).with_name("wandb")
SLOW = [sys.executable, "-c", "import sys, time; time.sleep(60)"]
DEAD = [sys.executable, "-c", "pass"]
MUTE = [sys.executable, "-c", 'import sys; sys.stdin.read(); print(\'{"note": ""}\')']
LATE = [
    *(sys.executable, "-c"),
    "import json, sys, time; time.sleep(2); n = sum(1 for _ in sys.stdin); print(json.dumps({'note': f'{n} lines'}))",
]
ECHO = [
    *(sys.executable, "-c"),
    "import json, os, sys; n = sum(1 for _ in sys.stdin);"
    "print(json.dumps({'note': f'{n} lines; ' + ' '.join(sorted(os.environ))}))",
]


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def history(run_dir):
    """The logged rows of an offline run, as W&B's own local reader sees them."""
    (log,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    done = subprocess.run([READER, "leet", "inspect", "--json", log], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [record["history"]["item"] for record in found if record.get("type") == "history"]


def test_an_offline_run_is_readable_by_wandbs_own_reader_and_holds_every_generation(cli, tmp_path):
    words = ("experiment=tiny", "generations=3", "candidates=2", "tracking=wandb", "hydra.run.dir=runs/t")
    answer = cli("run", *words)
    assert answer.code == 0, answer.err
    rows = history(tmp_path / "runs" / "t")
    scalars = {row["generation"]: row for row in rows if "best_skill" in row}
    assert sorted(scalars) == [1, 2, 3]
    assert scalars[3]["best_skill"] == pytest.approx(0.3)
    assert scalars[2]["probe/halted/layer_2"] == pytest.approx(0.92)
    assert rows[-1]["candidates.nrows"] == 6
    assert "selfimprove sync runs/t" in answer.out
    assert list((tmp_path / "runs" / "t" / "wandb" / "data").rglob("*"))  # nothing of it lies in the home folder


def test_an_unreachable_server_leaves_an_offline_run_and_a_good_exit(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    answer = cli("run", "debug=micro", "tracking=wandb", "tracking.mode=online", "hydra.run.dir=runs/t")
    assert answer.code == 0, answer.err
    assert "kept offline" in answer.out
    assert list((tmp_path / "runs" / "t" / "wandb").glob("offline-run-*"))


def test_switched_off_tracking_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a process"))
    assert start_tracking(TrackingConfig(kind="none"), tmp_path) is None


def test_a_tracker_that_cannot_start_is_done_without(tmp_path, monkeypatch):
    def refuse(*arguments, **named):
        raise OSError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert start_tracking(TrackingConfig(kind="wandb"), tmp_path) is None


def test_a_stuck_tracker_never_blocks_the_loop_and_dropped_records_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BUFFER_EVENTS", 50)
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=SLOW)
    begun = time.monotonic()
    for generation in range(2000):
        tracker.on_event("generation", {"generation": generation, "padding": "x" * 1000})
    spent = time.monotonic() - begun
    report = tracker.close(seconds=0.5)
    assert spent < 2.0
    assert spent + 0.5 <= report.seconds <= time.monotonic() - begun + 1  # handed over, waited for, and started before
    assert report.dropped > 0
    assert f"{report.dropped} records dropped" in report.note


def many(count):
    return [("generation", {"generation": number, "padding": "x" * 1000}) for number in range(count)]


def test_a_tracker_that_is_late_hears_the_whole_past_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BUFFER_EVENTS", 50)
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=LATE)
    tracker.catch_up(many(500))
    assert tracker.close(seconds=20).note == "501 lines"  # settings, and all the rest


def test_a_stuck_tracker_keeps_a_resumed_run_waiting_for_a_bounded_time(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BUFFER_EVENTS", 50)
    monkeypatch.setattr(tracking, "PAST_SECONDS", 1.0)
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=SLOW)
    begun = time.monotonic()
    tracker.catch_up(many(500))
    assert 1.0 <= time.monotonic() - begun < 10.0
    assert tracker.close(seconds=0.5).dropped > 300


def test_a_person_s_stop_does_not_wait_for_a_stuck_tracker(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "BUFFER_EVENTS", 50)
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=SLOW)
    begun = time.monotonic()
    tracker.catch_up(many(500), should_stop=lambda: time.monotonic() > begun + 0.5)
    assert time.monotonic() - begun < 10.0, "of 60 s"
    assert tracker.close(seconds=0.5).dropped > 300


def test_where_wandb_could_not_be_opened_a_person_is_told_what_to_do(tmp_path):
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=MUTE)
    assert tracker.close(seconds=10).note.startswith("W&B kept nothing; the ledger has everything: selfimprove sync")


def test_a_stuck_tracker_is_killed_at_the_end(tmp_path):
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=SLOW)
    pid = tracker._process.pid
    begun = time.monotonic()
    tracker.close(seconds=0.5)
    assert time.monotonic() - begun < 5
    assert not is_alive(pid)


def test_a_tracker_that_died_costs_nothing_but_the_records(tmp_path):
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=DEAD)
    tracker._process.wait()
    for generation in range(100):
        tracker.on_event("generation", {"generation": generation})
    assert "the ledger has everything" in tracker.close(seconds=5).note


def test_the_tracker_ends_when_its_input_ends(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "selfimprove.app.tracker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    settings = {"kind": "wandb", "mode": "offline", "project": "p", "entity": "", "tags": [], "run_dir": str(tmp_path)}
    out, _ = process.communicate(json.dumps({"kind": "settings", "body": settings}).encode() + b"\n", timeout=30)
    assert process.returncode == 0
    assert json.loads(out) == {"note": ""}


def test_the_tracker_sees_the_login_and_no_other_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", "/keys")
    monkeypatch.setenv("CLOUD_TOKEN", "t")
    note = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=ECHO).close(seconds=10).note
    assert "WANDB_API_KEY" in note
    assert "HOME" in note
    assert "SELFIMPROVE_STATE_DIR" not in note
    assert "CLOUD_TOKEN" not in note


def test_genomes_and_signatures_stay_out_of_the_tracker(tmp_path):
    tracker = Tracker(TrackingConfig(kind="wandb"), tmp_path, command=ECHO)
    tracker.on_event("genome", {"sha256": "a", "genome": {}})
    tracker.on_event("permit", {"signature": "s"})
    tracker.on_event("progress", {"done": 1})
    tracker.on_event("generation", {"generation": 1})
    assert tracker.close(seconds=10).note.startswith("2 lines")  # settings and the generation


class Played:
    """A W&B run that only remembers what it was told."""

    def __init__(self):
        self.alerts = []

    def log(self, row):
        pass

    def alert(self, **told):
        self.alerts.append(told)


def trip(generation):
    reason = "the champion gained 0.5000 of skill in one generation, more than 0.4"
    trips = [{"name": "gain", "value": 0.5, "bound": 0.4, "reason": reason}]
    return ("tripwire", {"generation": generation, "readings": [], "trips": trips})


RUN = ("run", {"run_id": "r", "experiment": "e", "config": {}})
PAUSE = ("finish", {"state": "paused", "reason": "tripwire"})


@pytest.mark.parametrize(
    ("records", "alerts"),
    [
        ([RUN, trip(1), PAUSE], 1),
        ([RUN, ("tripwire", {"generation": 1, "readings": [], "trips": []}), PAUSE], 0),
        ([RUN, trip(1), ("approval", {"generation": 1}), PAUSE], 0),  # a later sitting hears of it again
        ([RUN, trip(1), ("approval", {"generation": 1}), trip(2), PAUSE], 1),
    ],
)
def test_a_run_that_a_tripwire_pauses_raises_one_alert_a_sitting(monkeypatch, records, alerts):
    played = Played()
    monkeypatch.setattr(Recorder, "_open", lambda self, run_id: played)
    recorder = Recorder({"mode": "offline"})
    for kind, body in records:
        recorder.record(kind, body)
    assert len(played.alerts) == alerts
    assert all("Tripwire after generation" in told["title"] and "0.5000" in told["text"] for told in played.alerts)


def test_an_alert_that_fails_costs_only_itself(monkeypatch, capfd):
    played = Played()
    monkeypatch.setattr(played, "alert", lambda **told: 1 / 0)
    monkeypatch.setattr(Recorder, "_open", lambda self, run_id: played)
    monkeypatch.setattr(Recorder, "close", lambda self: f"closed after {self._finish['state']}")
    monkeypatch.setattr("selfimprove.app.tracker.threading", Mock())  # its last resort ends the whole process
    lines = b"".join(json.dumps(dict(zip(("kind", "body"), told, strict=True))).encode() + b"\n"
                     for told in (("settings", {"mode": "offline"}), RUN, trip(1), PAUSE))  # fmt: skip
    monkeypatch.setattr("sys.stdin", Mock(buffer=io.BytesIO(lines)))
    assert main() == 0
    assert "closed after paused" in capfd.readouterr().out


def played_rows(monkeypatch, records):
    """What was logged of some records, a row a call."""
    rows, played = [], Played()
    monkeypatch.setattr(played, "log", lambda row, **_: rows.append(row), raising=False)
    monkeypatch.setattr(Recorder, "_open", lambda self, run_id: played)
    recorder = Recorder({"mode": "offline"})
    for kind, body in records:
        recorder.record(kind, body)
    return rows


GENERATION = {"generation": 1, "champion": "c", "best_skill": 0.1, "charged_flops": 1}


@pytest.mark.parametrize(
    "records",
    [
        [],
        [("inspection", {"generation": 1, "index": 0, "status": "failed", "instruments": {}, "summary": {}})],
        [("inspection", {"generation": 1, "index": 0})],
        [("inspection", {"generation": 1, "summary": {"comparison": None, "halt_behavior": [], "probes": {"a": "x"}}})],
        [("inspection", {"generation": 1, "summary": {"comparison": {"cka": [[]], "transfer": {"a": {}}}}})],
        [("controller_inspection", readings.unread_controller(1, "no model"))],
        [("controller_inspection", {"generation": 1})],
    ],
)
def test_a_generation_is_logged_whatever_its_inspections_lack(monkeypatch, records):
    rows = played_rows(monkeypatch, [RUN, *records, ("generation", GENERATION)])
    assert [row["generation"] for row in rows] == [0, 1]
    assert rows[1]["best_skill"] == 0.1
    assert all(value is not None for row in rows for value in row.values())


def beside_a_stopped_one():
    """A generation whose leader could not be read, after a candidate that was stopped for what was read in it."""
    place = {"parent": "p", "edits": [], "kinds": [], "status": "valid", "genome": "a", "generation": 1}
    summary = {"probes": {"halted": [0.5, 0.9]}, "halt_behavior": readings.behavior(1.0, 1.0)}
    read = {"status": "complete", "coverage": 1.0, "instruments": {}, "summary": summary}
    failed = {"status": "failed", "coverage": 0.0, "instruments": {}, "summary": {}}
    return [
        ("proposal", {**place, "index": 0}),
        ("proposal", {**place, "index": 4}),
        ("outcome", {"key": "g001/c04/s0", "status": "stopped", "reason": "the constraint"}),
        ("inspection", {"generation": 1, "index": 4, **read}),
        ("inspection", {"generation": 1, "index": 0, **failed}),
        ("decision", {"generation": 1, "index": 0, "promoted": False, "reasons": []}),
        ("generation", GENERATION),
    ]


def test_what_is_logged_of_a_generation_is_its_leaders_and_not_a_stopped_candidates(monkeypatch):
    _, row = played_rows(monkeypatch, [RUN, *beside_a_stopped_one()])
    assert (row["inspection/status"], row["inspection/coverage"]) == ("failed", 0.0)
    assert not [name for name in row if name.startswith(("halt/", "probe/"))]


def test_a_chart_of_the_probes_has_a_line_a_leader_and_a_map_tells_a_stopped_candidate_from_it(monkeypatch):
    view = RunView()
    for kind, body in [RUN, *beside_a_stopped_one()]:
        view.apply(kind, body)
    wandb = Mock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    drawn = tracked.figures(view)
    assert "inspection/probe_halted" not in drawn
    (page,) = wandb.Html.call_args.args
    assert ">g1<" in page
    assert ">c04<" in page


def test_rates_of_a_controller_that_is_no_model_are_logged_and_its_entropy_is_not(monkeypatch):
    inspected = ("controller_inspection", readings.unread_controller(1, "no model"))
    row = played_rows(monkeypatch, [RUN, inspected, ("generation", GENERATION)])[1]
    assert row["controller/verdict"] == "not_applicable"
    assert (row["controller/denied_rate"], row["controller/over_caps_rate"]) == (0.1, 0.1)
    assert "controller/entropy" not in row


def test_the_candidates_table_names_the_instruments_that_failed():
    view = RunView()
    proposal = {"parent": "p", "edits": [], "kinds": [], "status": "valid", "genome": "a"}
    for index in (0, 1):
        view.apply("proposal", {"generation": 1, "index": index, **proposal})
    verdicts = {"read": "probes", "failed": "logit_lens", "unreadable": "constraint", "not_applicable": "comparison"}
    instruments = {name: {"verdict": verdict, "reason": ""} for verdict, name in verdicts.items()}
    body = {"generation": 1, "index": 0, "status": "incomplete", "coverage": 0.33, "instruments": instruments}
    view.apply("inspection", body)
    told = [dict(zip(tracked.CANDIDATES, row, strict=True)) for row in tracked.candidates(view)]
    said = [(row["inspection"], row["coverage"], row["unread"]) for row in told]
    assert said == [("incomplete", 0.33, "logit_lens, constraint"), ("", None, "")]


def test_figures_that_cannot_be_drawn_do_not_keep_a_run_from_being_finished(monkeypatch, tmp_path):
    played = Mock(dir=str(tmp_path / "files"))
    monkeypatch.setattr(Recorder, "_open", lambda self, run_id: played)
    monkeypatch.setattr(tracked, "figures", lambda view: 1 / 0)
    recorder = Recorder({"mode": "offline", "run_dir": str(tmp_path)})
    recorder.record(*RUN)
    assert "kept offline" in recorder.close()
    played.finish.assert_called_once()
