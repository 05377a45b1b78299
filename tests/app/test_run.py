"""`selfimprove run` and `resume`, with a loop that trains nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfimprove.app.folder import latest_run
from selfimprove.app.overrides import compose, foresee, placed
from selfimprove.loop.versions import versions

FAKE = Path(__file__).with_name("fake_loop.py")
MICRO = ("run", "debug=micro")
CLI = "selfimprove.app.cli"
PATIENCE = 100.0  # seconds to wait for a run to have begun


@pytest.fixture
def start():
    """Starts the command line with the fake loop, as a process of its own, which does not survive the test."""
    processes = []

    def begin(folder, *words, step="0.1"):
        environment = {**os.environ, "FAKE_STEP": step}
        process = subprocess.Popen(
            [sys.executable, str(FAKE), *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_ledger(folder, kind, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for ledger in folder.glob("runs/*/*/ledger.jsonl"):
            if f'"{kind}"' in ledger.read_text():
                return ledger.parent
        time.sleep(0.02)
    pytest.fail(f"no {kind} record in time")


def test_a_run_lands_below_its_experiment_and_latest_names_it(cli, tmp_path):
    answer = cli(*MICRO)
    assert answer.code == 0, answer.err
    (folder,) = (tmp_path / "runs" / "micro").iterdir()
    assert (tmp_path / "runs" / "latest").resolve() == folder
    assert not (tmp_path / "runs" / "latest").readlink().is_absolute()  # runs/ can be moved as a whole


def test_the_summary_says_where_the_report_is_and_what_comes_next(cli):
    out = cli(*MICRO).out
    assert "finished" in out
    assert "report.html" in out
    assert "selfimprove inspect runs/micro/" in out


def test_progress_is_plain_lines_when_the_output_is_no_terminal(cli):
    out = cli(*MICRO).out
    assert "generation 1/2 done; 2 candidates, 0 denied, 0 failed; best skill 0.100; budget left 100%" in out
    assert "\x1b" not in out


def test_the_seed_and_the_run_folder_are_honoured(cli, tmp_path):
    assert cli(*MICRO, "seed=41", "hydra.run.dir=elsewhere/mine").code == 0
    first = json.loads((tmp_path / "elsewhere" / "mine" / "ledger.jsonl").read_text().splitlines()[0])
    assert first["body"]["config"]["seed"] == 41
    assert (tmp_path / "runs" / "latest").resolve() == tmp_path / "elsewhere" / "mine"


def test_two_runs_in_one_second_do_not_collide(cli, tmp_path):
    assert cli(*MICRO).code == cli(*MICRO).code == 0
    assert len(list((tmp_path / "runs" / "micro").iterdir())) == 2


def test_a_sweep_makes_one_run_for_each_value(cli, tmp_path):
    answer = cli(*MICRO, "--multirun", "seed=1,2")
    assert answer.code == 0, answer.err
    ledgers = sorted((tmp_path / "runs" / "micro").glob("*/*/ledger.jsonl"))
    seeds = [json.loads(ledger.read_text().splitlines()[0])["body"]["config"]["seed"] for ledger in ledgers]
    assert seeds == [1, 2]
    assert (tmp_path / "runs" / "latest").resolve() == ledgers[-1].parent


def test_a_refused_job_of_a_sweep_does_not_keep_the_others_from_running(cli, tmp_path):
    answer = cli(*MICRO, "-m", "generations=0,1")
    assert answer.code == 2
    assert answer.err.startswith("selfimprove: job 0: set generations: got 0")
    assert "Error executing job" not in answer.err
    assert len(list((tmp_path / "runs").glob("*/*/*/ledger.jsonl"))) == 1


def test_a_folder_of_ones_own_configs_is_found(cli, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\nexperiment: own\n")
    answer = cli("run", "--config-dir", "mine", "experiment=own", "generations=1", "candidates=1", "tracking=none")
    assert answer.code == 0, answer.err
    assert (tmp_path / "runs" / "own").is_dir()


ODD = ["a (b)", "a=b", "it's", 'say "x"', "a#b", "a&b", "a{b", "a[b", "a,b", "größe", "a: b", "back\\", "null"]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_configs_may_have_any_name(tmp_path, name):
    (tmp_path / name / "experiment").mkdir(parents=True)
    (tmp_path / name / "experiment" / "own.yaml").write_text("# @package _global_\nexperiment: own\n")
    assert compose(["experiment=own"], tmp_path / name)["experiment"] == "own"


@pytest.mark.parametrize("name", [*ODD, "1e5", "runs/1e5"])
def test_a_run_is_placed_in_a_folder_of_any_name(name):
    assert foresee([placed(Path(name))])[1] == Path(name)


@pytest.mark.parametrize(
    ("state", "code"), [("finished", 0), ("limit", 0), ("failed", 1), ("halted", 4), ("paused", 130)]
)
def test_the_exit_code_says_how_the_run_ended(cli, fake, monkeypatch, state, code):
    monkeypatch.setattr(fake, "run", lambda *a, **k: fake.RunSummary(state, "because", 1, 2, 3, 10, 0.5, "ab" * 32))
    answer = cli(*MICRO)
    assert answer.code == code
    assert f"{state}: because" in answer.out


def test_a_tripped_run_ends_with_a_code_of_its_own_and_says_what_goes_on(cli, fake, monkeypatch):
    tripped = fake.RunSummary("paused", "tripwire", 1, 2, 3, 10, 0.5, "ab" * 32, tripped=True)
    monkeypatch.setattr(fake, "run", lambda *a, **k: tripped)
    answer = cli(*MICRO)
    assert answer.code == 3
    assert "Next: selfimprove approve " in answer.out


def test_a_report_that_fails_does_not_hide_how_the_run_ended(cli, fake, monkeypatch):
    def broken(run_dir):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(fake, "write_report", broken)
    answer = cli(*MICRO)
    assert answer.code == 0
    assert "not written; try: selfimprove report" in answer.out


def test_resume_goes_on_from_the_recorded_configuration(cli, fake, finished):
    lines = (finished / "ledger.jsonl").read_text().splitlines()
    cut = next(i for i, line in enumerate(lines) if '"kind": "generation"' in line)
    (finished / "ledger.jsonl").write_text("\n".join(lines[: cut + 1]) + "\n")
    answer = cli("resume")
    assert answer.code == 0, answer.err
    assert fake.status(finished).generation == 2
    assert "generation 1/2 done" not in answer.out  # told to the view, but old news
    assert "generation 2/2 done" in answer.out


def test_resume_says_what_is_not_as_it_was(cli, finished, monkeypatch):
    first, *rest = (finished / "ledger.jsonl").read_text().splitlines()
    record = json.loads(first)
    record["body"]["versions"] = versions()
    (finished / "ledger.jsonl").write_text("\n".join([json.dumps(record), *rest]) + "\n")
    assert "other versions" not in cli("resume").err
    monkeypatch.setattr("selfimprove.loop.versions.version", lambda name: "9.9.9")
    assert "numpy 9.9.9, not " in cli("resume").err


def test_resume_says_that_the_sources_are_not_as_they_were(cli, finished, monkeypatch):
    first, *rest = (finished / "ledger.jsonl").read_text().splitlines()
    record = json.loads(first)
    record["body"]["versions"] = versions()
    (finished / "ledger.jsonl").write_text("\n".join([json.dumps(record), *rest]) + "\n")
    was = versions()["sources of selfimprove"][:12]
    monkeypatch.setattr("selfimprove.loop.versions.sources_sha256", lambda: "f" * 64)
    assert f"sources of selfimprove ffffffffffff, not {was}" in cli("resume").err


def test_resume_refuses_a_halted_run_until_the_halt_is_cleared(cli, finished):
    (finished / "HALT").write_text("a reason\n")
    assert cli("resume").code == 2
    assert cli("resume", "--clear-halt").code == 0


def test_a_resume_that_is_refused_leaves_the_latest_run_as_it_was(cli, finished):
    assert cli("run", "debug=micro", "hydra.run.dir=runs/micro/second").code == 0
    (finished / "HALT").write_text("a reason\n")
    assert cli("resume", "micro/first").code == 2
    assert latest_run().name == "second"


def test_an_observer_that_fails_does_not_end_the_run(cli, monkeypatch):
    def broken(self, kind, body):
        raise RuntimeError("drawing failed")

    monkeypatch.setattr("selfimprove.app.progress.PlainProgress.on_event", broken)
    assert cli(*MICRO).code == 0


def test_the_first_interrupt_finishes_the_step_and_says_how_to_resume(tmp_path, start):
    process = start(tmp_path, *MICRO, "generations=50")
    folder = wait_for_ledger(tmp_path, "score")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert f"selfimprove resume {folder.relative_to(tmp_path)}" in out
    assert "Press Ctrl-C again" in err
    assert "Traceback" not in err


def test_the_second_interrupt_stops_at_once(tmp_path, start):
    process = start(tmp_path, *MICRO, "generations=50", step="30")
    wait_for_ledger(tmp_path, "run")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert any("Press Ctrl-C again" in line for line in process.stderr)  # two at once would be one
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    assert "selfimprove resume" in err
    assert "Traceback" not in err


READ = [
    (str(FAKE), *MICRO),
    ("-m", CLI, "run", "--cfg", "job"),
    ("-m", CLI, "inspect"),
    ("-m", CLI, "inspect", "--json"),
]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", READ, ids=lambda words: " ".join(words[2:]))
def test_a_reader_who_has_seen_enough_is_no_error(finished, tmp_path, words, unbuffered):
    """As in ``selfimprove inspect | head -1``: nobody reads on."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, *words]
    try:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=100
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_ends_a_sweep(tmp_path, start):
    process = start(tmp_path, *MICRO, "-m", "seed=1,2", "generations=50")
    wait_for_ledger_of_sweep(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert len(list(tmp_path.glob("runs/*/*/*/ledger.jsonl"))) == 1


def wait_for_ledger_of_sweep(folder):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not list(folder.glob("runs/*/*/0/ledger.jsonl")):
        time.sleep(0.02)


def test_halt_stops_a_running_run(tmp_path, cli, start):
    process = start(tmp_path, *MICRO, "generations=50")
    wait_for_ledger(tmp_path, "score")
    answer = cli("halt", "--reason", "smoke")
    _, err = process.communicate(timeout=20)
    assert answer.code == 0, answer.err
    assert "--clear-halt" in answer.out
    assert process.returncode == 4, err
