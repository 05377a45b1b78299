"""``selfimprove doctor``: what this machine can enforce, said before a run is refused for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from selfimprove.app import device, doctor, machine
from selfimprove.containment.sandbox.backend import PROPERTIES

DEGRADED = Path(__file__).parents[1] / "containment" / "entries" / "degraded_cli.py"
KEYS = {
    *("can_start", "problems", "properties", "properties_cuda", "outer_layer", "kernel", "architecture"),
    *("python", "packages", "cuda", "disk", "wandb"),
}


def without(call, folder, *words):
    """The command line on a machine that lacks a system call."""
    environment = {**os.environ, "SELFIMPROVE_STATE_DIR": str(folder / "state")}
    command = [sys.executable, str(DEGRADED), call, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the doctor finds here, in a folder of its own."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("doctor"))
    yield doctor.examine()
    os.chdir(before)


def test_a_run_could_start_here_and_every_property_was_tried(found):
    assert found["can_start"], found["problems"]
    assert tuple(found["properties"]) == PROPERTIES
    assert all(row["state"] == "held" and row["proof"] for row in found["properties"].values())


def test_the_keys_are_stable(found):
    assert set(found) == KEYS
    assert set(found["properties"]["read"]) == {"state", "mechanism", "proof", "problem", "remedy"}
    assert set(found["outer_layer"]) == {"bubblewrap", "cgroup_v2"}
    assert set(found["outer_layer"]["bubblewrap"]) == {"available", "detail", "remedy"}
    assert set(found["cuda"]) == {"available", "why", "devices"}
    assert set(found["disk"]) == {"folder", "free_bytes", "writable"}
    assert set(found["wandb"]) == {"version", "logged_in", "source"}


def test_json_is_the_whole_answer_and_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from selfimprove.app.cli import main; code = main(['doctor', '--json']);"
        "heavy = {'torch', 'wandb', 'transformer_lens', 'hydra'} & set(sys.modules);"
        "sys.exit(f'{code} {sorted(heavy)}' if code or heavy else 0)"
    )
    environment = {**os.environ, "SELFIMPROVE_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == KEYS
    assert list(tmp_path.iterdir()) == []  # it looks and makes nothing


def test_the_text_names_every_property_and_its_mechanism(found):
    text = "\n".join(doctor.describe(found))
    assert all(name in text and row["mechanism"] in text for name, row in found["properties"].items())
    assert text.endswith("A run can start here.")


def test_without_landlock_reading_is_lost_the_rest_is_proven_and_the_remedy_is_said(tmp_path):
    done = without("landlock_create_ruleset", tmp_path, "doctor", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["can_start"]) == (1, False)
    states = {name: row["state"] for name, row in answer["properties"].items()}
    assert states == dict.fromkeys(PROPERTIES, "held") | {"read": "lost"}
    [problem] = answer["problems"]
    assert problem["what"].startswith("read is lost: the kernel has no Landlock")
    assert "CONFIG_SECURITY_LANDLOCK" in problem["remedy"]
    assert "containment.allow_degraded=[read]" in problem["remedy"]


def test_without_seccomp_what_it_holds_is_lost_and_nothing_is_claimed_for_the_rest(tmp_path):
    done = without("seccomp", tmp_path, "doctor", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["can_start"]) == (1, False)
    states = {name: row["state"] for name, row in answer["properties"].items()}
    assert states == dict.fromkeys(PROPERTIES, "lost") | {"read": "unproven"}
    [problem] = answer["problems"]  # one cause is said once
    assert problem["what"].startswith("write, network, exec, signal")
    assert "CONFIG_SECCOMP_FILTER" in problem["remedy"]
    assert "no run may go without it" in problem["remedy"]


def test_the_text_says_what_is_lost_and_what_to_do(tmp_path):
    done = without("pidfd_open", tmp_path, "doctor")
    assert done.returncode == 1
    assert "No run can start here:\n  parent_death is lost" in done.stdout
    assert "remedy: use Linux 5.4 or newer" in done.stdout


@pytest.mark.parametrize(
    ("call", "lost"), [("landlock_create_ruleset", "read"), ("seccomp", "network"), ("pidfd_open", "parent_death")]
)
def test_a_run_refuses_to_start_and_names_the_property_lost(tmp_path, call, lost):
    done = without(call, tmp_path, "run", "debug=micro", "device=cpu", "hydra.run.dir=refused")
    assert done.returncode == 2
    [message] = [line for line in done.stderr.splitlines() if line.startswith("selfimprove: ")]
    assert "no mechanism for" in message
    assert lost in message
    assert not (tmp_path / "refused" / "ledger.jsonl").exists()


def test_on_a_machine_with_a_gpu_its_wider_profile_is_proven_too(monkeypatch):
    monkeypatch.setattr(machine, "missing_for_cuda", lambda: "")
    monkeypatch.setattr(machine, "cuda_devices", lambda: ["a GPU (80 GiB)"])
    found = doctor.examine()
    assert set(found["properties_cuda"]) == set(PROPERTIES)
    assert "a GPU (80 GiB)" in "\n".join(doctor.describe(found))


def test_the_drivers_answer_gives_the_names_of_the_devices(monkeypatch):
    monkeypatch.setattr(device, "_NAMES", "print('one (80 GiB)'); print('two (80 GiB)')")
    assert device.cuda_devices() == ["one (80 GiB)", "two (80 GiB)"]
    monkeypatch.setattr(device, "_NAMES", "raise SystemExit(1)")
    assert device.cuda_devices() == []


def test_a_python_that_is_not_supported_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine.sys, "version_info", (3, 14, 0))
    _, problem = machine.python()
    assert problem is not None
    assert "3.11 to 3.13" in problem.remedy


def test_a_package_that_is_missing_is_a_problem(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    versions, [problem] = machine.packages()
    assert versions["no-such-package"] is None
    assert "no-such-package" in problem.what


def test_too_little_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: SimpleNamespace(free=2**20))
    facts, problem = machine.disk(tmp_path / "runs")
    assert facts["free_bytes"] == 2**20
    assert problem is not None
    assert "64 MiB" in problem.what


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(machine.os, "access", lambda place, mode: False)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    _, problem = machine.disk(tmp_path)
    assert problem is not None
    state = machine.state()
    assert state is not None
    assert "SELFIMPROVE_STATE_DIR" in state.remedy


def test_a_signing_key_that_others_can_read_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path))
    (tmp_path / machine.KEY_FILE).write_text("00" * 32)
    (tmp_path / machine.KEY_FILE).chmod(0o644)
    problem = machine.state()
    assert problem is not None
    assert "chmod 600" in problem.what


def test_the_wandb_login_is_found_and_never_shown(tmp_path):
    import wandb

    secret, host = "0123456789abcdef" * 2 + "01234567", urlsplit(wandb.Settings().base_url).netloc
    nothing = {"NETRC": str(tmp_path / "none"), "WANDB_CONFIG_DIR": str(tmp_path)}
    assert machine.wandb_login(nothing)["logged_in"] is False
    by_key = machine.wandb_login(nothing | {"WANDB_API_KEY": secret})
    assert (by_key["logged_in"], by_key["source"]) == (True, "WANDB_API_KEY")
    path = tmp_path / "netrc"
    path.write_text(f"machine {host}\n  login user\n  password {secret}\n")
    path.chmod(0o600)
    by_file = machine.wandb_login(nothing | {"NETRC": str(path)})
    assert (by_file["logged_in"], by_file["source"]) == (True, "netrc")
    elsewhere = nothing | {"NETRC": str(path), "WANDB_BASE_URL": "https://other.example"}
    assert machine.wandb_login(elsewhere)["logged_in"] is False
    assert secret not in str(by_key) + str(by_file)
