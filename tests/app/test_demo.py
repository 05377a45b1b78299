"""The tour: every step does what its text says, with the real loop at the smallest size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfimprove.app.demo import Tour, tamper
from selfimprove.errors import RunError

MICRO = ("debug=micro", "candidates=1", "tracking=none")


def take(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SELFIMPROVE_STATE_DIR": str(folder / "state")}
    command = [sys.executable, "-m", "selfimprove.app.cli", "demo", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_the_tour_halts_resumes_audits_finds_the_tampering_and_leaves_a_report(tmp_path: Path) -> None:
    done = take(tmp_path, *MICRO, "--folder", "tour")
    assert done.returncode == 0, done.stdout + done.stderr
    out = done.stdout
    steps = ("$ selfimprove run", "$ selfimprove halt", "state       halted", "$ selfimprove resume", "finished: 2")
    steps += (
        "$ selfimprove audit tour\n",
        "OK: ",
        "tour-tampered/ledger.jsonl, line",
        "NOT OK: 1 finding",
        "report.html",
    )
    at = 0
    for step in steps:
        at = out.index(step, at) + len(step)  # each after the one before
    assert (tmp_path / "tour" / "report.html").is_file()
    assert not (tmp_path / "tour-tampered").exists()
    assert "Traceback" not in done.stderr


def test_the_tour_never_uses_a_folder_that_is_there(cli, tmp_path):
    answer = cli("demo", "--folder", str(tmp_path))
    assert answer.code == 2
    assert "--folder" in answer.err


def test_the_tour_refuses_where_its_copy_would_stand_and_leaves_that_alone(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(Tour, "take", lambda self: 0)
    kept = tmp_path / "tour-tampered" / "mine"
    kept.parent.mkdir()
    kept.touch()
    answer = cli("demo", "--folder", "tour")
    assert answer.code == 2
    assert "got tour-tampered; allowed: a folder that does not exist yet; " in answer.err
    assert "choose another one with --folder" in answer.err
    assert kept.exists()


def test_a_folder_that_appears_while_the_tour_runs_is_refused_and_left_alone(cli, tmp_path, monkeypatch):
    kept = tmp_path / "tour-tampered"
    monkeypatch.setattr(Tour, "_run_and_halt", lambda self: 0)
    monkeypatch.setattr(Tour, "_do", lambda self, *words: kept.mkdir(exist_ok=True) or 0)
    answer = cli("demo", "--folder", "tour")
    assert answer.code == 2
    assert "got tour-tampered; allowed: a folder that does not exist yet" in answer.err
    assert kept.exists()


def test_the_tour_runs_in_a_folder_of_any_name(cli, tmp_path, monkeypatch):
    def start(self, *words):
        assert cli(*words).code == 0
        raise KeyboardInterrupt  # the rest of the tour is not wanted

    monkeypatch.setattr(Tour, "_start", start)
    assert cli("demo", "debug=micro", "--folder", "größe=(1, 'a')").code == 130
    assert (tmp_path / "größe=(1, 'a')" / "ledger.jsonl").is_file()


def test_a_wrong_override_ends_the_tour_with_the_message_of_run(tmp_path: Path) -> None:
    done = take(tmp_path, "generatons=3", "--folder", "tour")
    assert done.returncode == 2
    assert done.stderr.count("selfimprove: ") == 1
    assert "did you mean 'generations'?" in done.stderr
    assert not (tmp_path / "tour").exists()


def test_tampering_changes_one_number_of_a_copy(cli, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    lines = [b'{"kind":"score","body":{"best_skill":1}}', b'{"body":{"best_skill":-0.25},"kind":"generation"}', b""]
    (run / "ledger.jsonl").write_bytes(b"\n".join(lines))
    assert tamper(run, tmp_path / "copy") == (2, "-0.25")
    changed = (tmp_path / "copy" / "ledger.jsonl").read_bytes().split(b"\n")
    assert [a == b for a, b in zip(lines, changed, strict=True)] == [True, False, True]
    (run / "ledger.jsonl").write_bytes(lines[0])
    with pytest.raises(RunError, match="finished generation"):
        tamper(run, tmp_path / "other")
