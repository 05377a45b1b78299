"""A sitting: what ends it, ends its runs; a line that was cut off costs itself; so many trials run at once, in time."""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sized
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks import calibration, faults, halving, induction, ladder, proposers, samplers, sittings, space
from benchmarks.meta_alignment_pressure import SETTINGS, add_pressure
from benchmarks.setting import ROOT, own_code
from benchmarks.sittings import Row, append, as_they_end, lines, one_sitting, run_paired
from selfimprove.errors import RunError

PROGRAM = """
import argparse, pathlib, subprocess, sys
from benchmarks.sittings import run_paired
folder = pathlib.Path(sys.argv[1])
def run_one(run_folder, arm, seed, start):
    run = subprocess.Popen(["sleep", "300"])
    (folder / arm).write_text(str(run.pid))
    return {"arm": arm, "seed": seed, "ended_by": -run.wait()}
chosen = argparse.Namespace(minutes=5, processes=1, runs=folder, commit="none", overrides=[])
run_paired(folder / "runs.jsonl", lambda: [("first", 0), ("second", 0)], chosen, run_one, lambda row: "ended")
"""


def test_a_study_that_is_told_to_end_ends_its_runs_and_starts_no_other(tmp_path: Path) -> None:
    study = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, env=own_code(), stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "first").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        study.terminate()
        assert study.wait(60) != 0
    finally:
        study.kill()
    [line] = map(json.loads, (tmp_path / "runs.jsonl").read_text("utf-8").splitlines())
    assert (line["arm"], line["ended_by"]) == ("first", signal.SIGTERM)
    assert not (tmp_path / "second").exists()


def test_two_sittings_never_add_to_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "before"))
    chosen = argparse.Namespace(minutes=5, processes=1, runs=tmp_path, commit="none", overrides=[])
    path = tmp_path / "runs.jsonl"

    def run_one(folder: Path, arm: str, seed: int, start: bool) -> Row:
        with pytest.raises(RunError, match=rf"{re.escape(str(tmp_path))}; allowed: one process at a time.*--results"):
            run_paired(path, lambda: [("arm", 0)], chosen, run_one, lambda row: "ended")
        return {"arm": arm, "seed": seed}

    for _ in range(2):  # it may be taken up again when the other has ended
        assert run_paired(path, lambda: [("arm", 0)], chosen, run_one, lambda row: "ended")
    assert len(lines(path)) == 2
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with one_sitting(tmp_path), pytest.raises(RunError, match=r"--results, --runs"):  # its runs are where others are
        run_paired(elsewhere / "runs.jsonl", lambda: [("arm", 0)], chosen, run_one, lambda row: "ended")


def test_a_run_that_another_sitting_began_is_told_by_what_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "before"))
    path = tmp_path / "runs.jsonl"

    def sit(commit: str, overrides: list[str], ends: bool) -> bool:
        def run_one(folder: Path, arm: str, seed: int, start: bool) -> Row | None:
            folder.mkdir(exist_ok=True)
            return {"arm": arm} if ends else None

        chosen = argparse.Namespace(minutes=5, processes=1, runs=tmp_path, commit=commit, overrides=overrides)
        return run_paired(path, lambda: [("arm", 0)], chosen, run_one, lambda row: "ended")

    assert not sit("abc", ["generations=2"], ends=False)
    with pytest.raises(RunError, match=r"add to .*arm-seed0: got \[\]; allowed: .*'generations=2'"):
        sit("abc", [], ends=True)
    assert sit("def", ["generations=2"], ends=True)
    assert [(line["commit"], line["overrides"]) for line in lines(path)] == [("abc..def", ["generations=2"])]
    with pytest.raises(RunError, match=r"add to .*runs.jsonl: got \[\]; allowed: .*'generations=2'"):
        sit("def", [], ends=True)
    assert not list(tmp_path.glob("*.begun"))


def test_what_is_missing_is_looked_up_while_the_folders_of_results_and_of_runs_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "before"))
    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()
    chosen = argparse.Namespace(minutes=5, processes=1, runs=runs, commit="none", overrides=[])
    asked = []

    def missing() -> list[tuple[str, int]]:
        for folder in (results, runs):
            with pytest.raises(RunError, match="another sitting"), one_sitting(folder):
                pass
            asked.append(folder)
        return []

    assert run_paired(results / "runs.jsonl", missing, chosen, lambda *_: None, lambda row: "ended")
    assert asked == [results, runs]


@pytest.mark.parametrize("study", [calibration, faults, halving, induction, ladder, proposers, samplers, space])
def test_a_study_is_refused_a_folder_that_another_sitting_adds_to(study: ModuleType, tmp_path: Path) -> None:
    with one_sitting(tmp_path), pytest.raises(RunError, match=re.escape(str(tmp_path))):
        study.main(["--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_run_keeps_its_folder_until_its_line_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "before"))  # is set by the sitting, and undone here
    chosen = argparse.Namespace(minutes=5, processes=1, runs=tmp_path, commit="none", overrides=[])
    path, folder = tmp_path / "runs.jsonl", tmp_path / "arm-seed0"

    def run_one(folder: Path, arm: str, seed: int, start: bool) -> Row:
        folder.mkdir(exist_ok=True)
        return {"arm": arm, "seed": seed}

    def interrupted(path: Path, line: Row) -> None:
        raise KeyboardInterrupt

    def sit() -> bool:
        return run_paired(path, lambda: [("arm", 0)], chosen, run_one, lambda row: "ended")

    with monkeypatch.context() as killed:
        killed.setattr(sittings, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sit()
    assert folder.exists()
    assert sit()
    assert [line["arm"] for line in lines(path)] == ["arm"]
    assert not folder.exists()


READERS: dict[str, tuple[Callable[[], Row], Callable[[Path], Sized]]] = {
    "calibration": (
        lambda: calibration.description(calibration.Trial("recall", 1, "alone", "conv", 0)),
        lambda path: calibration.known_trials(path.parent),
    ),
    "induction": (
        lambda: induction.description("seed genome", 0),
        lambda path: induction.known_trials(path.parent),
    ),
    "ladder": (lambda: ladder.description(ladder.Trial((), 0)), ladder.known_trials),
    "halving": (lambda: {"root": 0, "setting": halving.setting()}, halving.known_roots),
}


@pytest.mark.parametrize("study", READERS)
def test_a_line_that_was_cut_off_costs_itself_alone(study: str, tmp_path: Path) -> None:
    line, known = READERS[study]
    path = tmp_path / "trials.jsonl"
    path.write_text('{"seed": 1, "arm": "se', encoding="utf-8")
    assert len(known(path)) == 0
    append(path, line())
    assert len(known(path)) == 1


def test_the_pressure_goes_on_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "pressure.jsonl"
    path.write_text('{"setting": "the def', encoding="utf-8")
    for name in SETTINGS:
        append(path, {"setting": name, "seed": 0})
    assert add_pressure(path, [0], 1, deadline=0.0), "nothing is left to measure"


def test_only_so_many_run_at_once_and_none_starts_when_the_time_is_up() -> None:
    started: list[int] = []

    def submit(_: Any, trial: int) -> Future[Row]:
        started.append(trial)
        future: Future[Row] = Future()
        future.set_result({"trial": trial})
        return future

    found = list(as_they_end(submit, lambda trial: {}, range(6), 2, lambda: len(started) < 4))
    assert started == [0, 1, 2, 3]
    assert sorted(one["trial"] for one in found) == [0, 1, 2, 3]
