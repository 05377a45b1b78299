"""The command line as a person runs it, a process of its own: one message, exit code 2, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NOWHERE = "/sys/selfimprove"  # not even root may make a folder there
WRONG = [
    ("run experiment=quik", {}, ("quik", "did you mean 'quick'?")),
    ("run debug=micro device=cpu limits.flops=many", {}, ("limits.flops", "many", "1e+06 to 1e+21 FLOPs")),
    ("reproduce runs/none --generation 1", {}, ("runs/none", "start one: selfimprove run")),
    (f"run debug=micro device=cpu hydra.run.dir={NOWHERE}", {}, (NOWHERE, "writ")),
    ("run debug=micro device=cpu", {"SELFIMPROVE_STATE_DIR": NOWHERE}, (NOWHERE, "SELFIMPROVE_STATE_DIR")),
]


@pytest.mark.parametrize(("words", "settings", "says"), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_input_gives_one_message_and_exit_code_two(tmp_path, words, settings, says):
    environment = {**os.environ, "SELFIMPROVE_STATE_DIR": str(tmp_path / "state"), **settings}
    command = [sys.executable, "-m", "selfimprove.app.cli", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("selfimprove: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(part in done.stderr for part in says), done.stderr
    assert not list(tmp_path.rglob("ledger.jsonl"))
