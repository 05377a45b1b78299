"""A study's sitting: what ends it, ends its runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.setting import ROOT, own_code

PROGRAM = """
import argparse, pathlib, subprocess, sys
from benchmarks.sittings import run_paired
folder = pathlib.Path(sys.argv[1])
def run_one(runs, arm, seed, start):
    run = subprocess.Popen(["sleep", "300"])
    (folder / arm).write_text(str(run.pid))
    return {"arm": arm, "seed": seed, "ended_by": -run.wait()}
chosen = argparse.Namespace(minutes=5, processes=1, runs=folder, commit="none")
run_paired(folder / "runs.jsonl", [("first", 0), ("second", 0)], chosen, run_one, lambda *known: "ended")
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
