from __future__ import annotations

import io
import logging
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from selfimprove.app import device
from selfimprove.app.observing import Observers
from selfimprove.app.progress import LiveProgress, PlainProgress, console_handler, next_commands, summary_text
from selfimprove.app.tracked import metrics
from selfimprove.app.view import RunView
from selfimprove.errors import ConfigError

RUN = {"run_id": "r", "experiment": "e", "config": {"generations": 4}, "limits": {"flops": 1000}}


def generation(number, **changes):
    body = {"generation": number, "champion": "c" * 64, "best_skill": 0.25, "charged_flops": 250 * number}
    return body | changes


def test_the_view_counts_what_was_denied_and_what_failed():
    view = RunView()
    view.apply("run", RUN)
    for index, status in enumerate(["valid", "invalid", "valid"]):
        body = {"generation": 1, "index": index, "edits": ["e"], "kinds": ["recipe"], "status": status, "genome": None}
        view.apply("proposal", body)
    view.apply("denial", {"generation": 1, "index": 0, "reason": "too many parameters"})
    view.apply("outcome", {"key": "g001/c02/s0", "status": "crashed", "reason": "out of memory"})
    view.apply("outcome", {"key": "g001/c02/s1", "status": "crashed", "reason": "out of memory"})
    assert (view.denied, view.failed, len(view.candidates)) == (2, 1, 3)


def test_a_candidate_that_was_stopped_at_a_stage_is_not_counted_as_failed():
    view = RunView()
    body = {"generation": 1, "index": 0, "edits": ["e"], "kinds": ["recipe"], "status": "valid", "genome": None}
    view.apply("proposal", body)
    view.apply("outcome", {"key": "g001/c00/s0", "status": "stopped", "reason": "kept 0 of 48"})
    row = view.candidates[1, 0]
    assert (row.status, row.reason, view.failed) == ("stopped", "kept 0 of 48", 0)


def test_a_controller_that_fails_is_said_at_once(caplog):
    caplog.set_level(logging.WARNING)
    plain = PlainProgress(RunView())
    for kind, reason in (("ask", "crashed"), ("controller", ""), ("controller", "over limits.candidate_flops")):
        plain.on_event(kind, {"generation": 2, "reason": reason})
    assert [line.partition(": ")[2] for line in caplog.messages] == [
        "the controller failed to propose, and random proposals took its place: crashed",
        "the controller did not learn: over limits.candidate_flops",
    ]


def test_a_hand_over_is_said_with_its_reasons(caplog):
    caplog.set_level(logging.INFO)
    view = RunView()
    plain = PlainProgress(view)
    body = {"generation": 2, "accepted": True, "contender": "a" * 64, "reasons": ["proposes better", "can be read"]}
    kept = body | {
        "generation": 3,
        "accepted": False,
        "contender": None,
        "reasons": ["its own genome"],
    }
    for one in (body, kept):
        view.apply("handover", one)
        plain.on_event("handover", one)
    assert caplog.messages == [
        "generation 2: controller: contender aaaaaaaaaa takes over: proposes better; can be read",
        "generation 3: controller: its own genome",
    ]


def test_the_view_attributes_charges_to_candidates():
    view = RunView()
    place = {"generation": 1, "index": 5}
    view.apply("proposal", {**place, "edits": [], "kinds": [], "status": "valid"})
    view.apply("charge", {"key": "g001/c05/s0", "flops": 3, "total": 10})
    view.apply("charge", {"key": "g001/confirm/parent/s4", "flops": 4, "total": 14})
    assert view.candidates[1, 5].flops == 3
    assert view.charged_flops == 14


def test_the_time_left_is_estimated_from_this_sitting_alone(caplog):
    caplog.set_level(logging.INFO)
    clock = SimpleNamespace(now=0.0)
    view = RunView()
    plain = PlainProgress(view, clock=lambda: clock.now)
    view.apply("run", RUN)
    view.apply("generation", generation(1))  # of an earlier sitting
    plain.on_event("resume", {})
    clock.now = 60.0
    view.apply("generation", generation(2))
    plain.on_event("generation", generation(2))
    assert caplog.messages[-1].endswith("best skill 0.250; budget left 50%; about 2 min 00 s left")


def test_plain_progress_does_not_flood_the_log(caplog):
    caplog.set_level(logging.INFO)
    clock = SimpleNamespace(now=0.0)
    view = RunView()
    plain = PlainProgress(view, clock=lambda: clock.now)
    view.apply("run", RUN)
    for step in range(100):
        clock.now = step * 0.5
        plain.on_event(
            "progress",
            {"generation": 1, "done": step, "total": 100, "share": step / 100, "running": 2, "label": "train"},
        )
    assert len(caplog.messages) == 4


def test_the_live_view_shows_generations_best_budget_and_the_last_decision():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=20)
    view = RunView()
    with LiveProgress(console, view) as live:
        view.apply("run", RUN)
        body = {"generation": 1, "index": 0, "edits": ["recipe.batch=32"], "kinds": ["recipe"], "status": "valid"}
        view.apply("proposal", body)
        view.apply("decision", {"generation": 1, "index": 0, "promoted": True})
        view.apply("generation", generation(1))
        live.on_event(
            "progress", {"generation": 2, "done": 1, "total": 2, "share": 0.5, "running": 1, "label": "train"}
        )
        console.print(live._render())
    shown = screen.getvalue()
    assert all(part in shown for part in ("1/4", "train", "best skill 0.250", "budget left 75%", "recipe.batch=32"))


def test_the_live_view_says_that_it_is_stopping():
    console = Console(file=io.StringIO(), width=120)
    console.print(LiveProgress(console, RunView(), stopping=lambda: True)._render())
    assert "Press Ctrl-C again to stop at once" in console.file.getvalue()


def test_an_observer_that_raises_is_left_out_and_the_others_go_on(caplog):
    seen = []

    class Broken:
        def on_event(self, kind, body):
            raise ValueError("no")

    class Good:
        def on_event(self, kind, body):
            seen.append(kind)

    observers = Observers([Broken(), Good()])
    observers.on_event("score", {})
    observers.on_event("decision", {})
    assert seen == ["score", "decision"]
    assert len(caplog.records) == 1


def test_metrics_hold_scores_retention_and_probes_of_their_generation_only():
    view = RunView()
    for number in (1, 2):
        place = {"generation": number, "index": 0}
        retention = {"kept": 9, "n": 10}
        view.apply("score", {**place, "skill": 0.1 * number, "retention": retention})
        view.apply("inspection", {**place, "summary": {"probes": {"halted": [0.5, 0.25 * number]}}})
        view.apply("generation", generation(number))
    found = metrics(view, 2)
    assert found["search/best_skill"] == pytest.approx(0.2)
    assert found["retention/candidates_mean"] == pytest.approx(0.9)
    assert found["probe/halted/layer_1"] == 0.5


def test_log_lines_are_never_wrapped_when_the_output_is_no_terminal(monkeypatch):
    console = Console(file=io.StringIO(), width=40)
    monkeypatch.setattr("rich.get_console", lambda: console)
    console_handler().emit(logging.LogRecord("n", logging.INFO, "f", 1, "x" * 200, (), None))
    assert len(console.file.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("choice", "missing", "resolved"), [("auto", "", "cuda"), ("auto", "none", "cpu"), ("cpu", "", "cpu")]
)
def test_auto_takes_a_gpu_only_where_one_can_be_used(monkeypatch, choice, missing, resolved):
    monkeypatch.setattr(device, "missing_for_cuda", lambda: missing)
    assert device.resolve_device(choice) == resolved


def test_a_driver_that_does_not_answer_means_no_gpu(monkeypatch, tmp_path):
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(device, "torch_has_cuda", lambda: True)
    monkeypatch.setattr(device, "_COUNT", "raise SystemExit(1)")
    assert "no usable GPU" in device.missing_for_cuda(tmp_path)


def test_an_unknown_device_is_refused():
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        device.resolve_device("gpu")


@pytest.mark.parametrize("state", ["finished", "paused", "halted", "running", "tripped"])
def test_what_to_type_next_is_quoted_as_a_shell_takes_it(state):
    place = Path("runs/my run; ls")
    for line in next_commands(state, place, tripped=state == "tripped"):
        assert shlex.split(line)[2] == str(place)
    summary = SimpleNamespace(
        state="finished", reason="", generation=1, candidates=1, best_skill=None, charged_flops=0, limit_flops=0,
        lineage_sha256="", tripped=False,
    )  # fmt: skip
    said = summary_text(summary, place, None)
    assert "not written; try: selfimprove report 'runs/my run; ls'" in said
    assert "Next: selfimprove audit 'runs/my run; ls'" in said
