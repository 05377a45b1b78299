"""W&B with a server of our own on the loopback: online, offline and sent later, dying in the middle, a wrong key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app import syncing
from selfimprove.app.tracking import Tracker, TrackingConfig
from selfimprove.errors import RunError
from tests.app import report_fixture as fixture
from tests.app.wandb_server import KEY, Server, serving

GENERATIONS = 3
TRIP = {"name": "gain", "value": 0.5, "bound": 0.4, "reason": "the champion gained 0.5 in one generation"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as found:
        monkeypatch.setenv("WANDB_BASE_URL", found.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))  # no login of whoever runs the tests
        monkeypatch.setattr(syncing, "server", lambda: found.url)
        yield found


def records(run_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """A run of three generations with two promotions, their checkpoints, hand-overs and a tripwire at the end."""
    (run_dir / "checkpoints").mkdir(parents=True)
    told: list[tuple[str, dict[str, Any]]] = []
    for line in fixture.full_run(generations=GENERATIONS, candidates=10).lines:
        kind, body = line["kind"], line["body"]
        if kind == "decision" and body["promoted"]:
            name = f"checkpoints/g{body['generation']:03d}-c{body['index']:02d}"
            for ending in ("safetensors", "json"):
                (run_dir / f"{name}.{ending}").write_text(f"{name}.{ending}")
            place = {key: body[key] for key in ("generation", "index", "genome")}
            files = {"path": f"{name}.safetensors", "manifest": f"{name}.json"}
            told.append(("checkpoint", {**place, "stage": "1/1", **files}))
            told.append(("checkpoint", {**place, "stage": "1/3", "path": "nowhere", "manifest": "nowhere"}))
        if kind == "finish":
            told.append(("tripwire", {"generation": GENERATIONS, "readings": [], "trips": [TRIP]}))
        told.append((kind, body))
    return told


def track(run_dir: Path, mode: str, seconds: float = 40.0) -> str:
    """Follow a whole run; returns what the person is told."""
    told = records(run_dir)
    lines = [json.dumps({"kind": kind, "body": body}) + "\n" for kind, body in told]
    (run_dir / "ledger.jsonl").write_text("".join(lines))
    tracker = Tracker(TrackingConfig(kind="wandb", mode=mode), run_dir)
    for kind, body in told:
        tracker.on_event(kind, body)
    return tracker.close(seconds).note


def rows(server: Server) -> dict[int, dict[str, Any]]:
    """What arrived, by generation; the later of two wins."""
    found: dict[int, dict[str, Any]] = {}
    for row in (row for of_run in server.rows.values() for row in of_run):
        found.setdefault(row["generation"], {}).update(row)
    return found


def check_complete(server: Server) -> None:
    """Everything of the run is there: each generation, tables and drawings, and both promoted checkpoints."""
    found = rows(server)
    assert sorted(found) == [0, *range(1, GENERATIONS + 1)]
    assert [found[n].get("handover/accepted") for n in (1, 2, 3)] == [0, None, 1]
    assert 0 < found[3]["budget/left"] < found[1]["budget/left"] < 1
    assert found[3]["budget/search_flops"] + found[3]["budget/confirm_flops"] < found[3]["charged_flops"]
    last = found[GENERATIONS]
    assert last["candidates"]["nrows"] == 30
    assert last["lineage"]["nrows"] == 2
    assert last["inspection/probe_maps"]["_type"] == "html-file"
    models = [one for one in server.artifacts if one["artifactTypeName"] == "model"]
    aliases = [sorted(alias["alias"] for alias in one["aliases"]) for one in models]
    assert aliases == [["best", "gen-1", "latest"], ["best", "gen-3", "latest"]]
    stored = {path.split("/", 3)[-1]: content for path, content in server.uploads.items()}
    assert stored["g001-c04.safetensors"] == b"checkpoints/g001-c04.safetensors"
    assert stored["g003-c07.json"] == b"checkpoints/g003-c07.json"
    assert server.finished


def test_an_online_run_arrives_whole_with_its_alert(server, tmp_path):
    assert track(tmp_path / "run", "online") == "sent to W&B"
    check_complete(server)
    assert [alert["text"].split(":")[0] for alert in server.alerts] == ["gain"]


def test_a_run_that_is_cut_and_resumed_online_arrives_whole(server, tmp_path):
    told = records(tmp_path / "run")
    cut = next(at for at, (kind, body) in enumerate(told) if kind == "generation" and body["generation"] == 2)
    online = TrackingConfig(kind="wandb", mode="online")
    first = Tracker(online, tmp_path / "run")
    for kind, body in told[:cut]:
        first.on_event(kind, body)
    assert first.close(40.0).note == "sent to W&B"
    later = Tracker(online, tmp_path / "run")
    later.catch_up(told[:cut])
    for kind, body in told[cut:]:
        later.on_event(kind, body)
    assert later.close(40.0).note == "sent to W&B"
    assert len(server.rows) == 1
    found = rows(server)
    assert sorted(found) == [0, *range(1, GENERATIONS + 1)]
    assert found[GENERATIONS]["candidates"]["nrows"] == 30


def test_a_service_that_another_process_has_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere")
    assert track(tmp_path / "run", "offline").startswith("kept offline")


def test_an_offline_run_is_sent_later_and_once(server, tmp_path, cli):
    note = track(tmp_path / "run", "offline")
    assert note.startswith("kept offline; send it with: selfimprove sync ")
    assert server.count() == 0
    answer = cli("sync", "run")
    assert answer.code == 0, answer.err
    assert f"{server.url}/lab/selfimprove/runs/" in answer.out
    check_complete(server)
    arrived = server.count()
    assert "has arrived at W&B before" in cli("sync", "run").out
    assert server.count() == arrived


def test_a_server_that_dies_in_the_middle_costs_a_bounded_time_and_the_rest_is_sent_later(server, tmp_path, cli):
    server.dies_at = "CreateArtifact"
    begun = time.monotonic()
    note = track(tmp_path / "run", "online", seconds=8.0)
    assert time.monotonic() - begun < 20
    assert "the ledger has everything" in note
    assert not server.finished
    server.dies_at = ""
    server.failing.clear()
    server.artifacts.clear()
    answer = cli("sync", "run", "--rebuild")
    assert answer.code == 0, answer.err
    check_complete(server)
    assert len(list((tmp_path / "run" / "wandb" / "superseded").iterdir())) == 1


def test_a_wrong_key_keeps_the_run_offline_and_sync_says_what_to_do(server, tmp_path, cli, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert "kept offline, send it later with: selfimprove sync" in track(tmp_path / "run", "online")
    answer = cli("sync", "run")
    assert answer.code == 2
    assert "wandb login" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert server.count() == 0


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A run folder with a log that was never sent."""
    log = tmp_path / "run" / "wandb" / "offline-run-1-a"
    log.mkdir(parents=True)
    (log / "run-a.wandb").write_bytes(b"")
    (tmp_path / "run" / "ledger.jsonl").write_text("")
    return tmp_path / "run"


def test_an_upload_that_hangs_is_ended(server, kept, cli, monkeypatch):
    sleeping = [syncing.sys.executable, "-c", "import time; print('on my way', flush=True); time.sleep(60)"]
    popen = syncing.subprocess.Popen
    monkeypatch.setattr(syncing.subprocess, "Popen", lambda command, **named: popen(sleeping, **named))
    begun = time.monotonic()
    answer = cli("sync", "run", "--seconds", "1")
    assert time.monotonic() - begun < 8
    assert answer.code == 2
    assert "ended after 1 s" in answer.err
    assert "sync.log" in answer.err
    assert "on my way" in (kept / "wandb" / "sync.log").read_text()


def test_an_unreachable_server_is_found_out_at_once(server, kept, cli, monkeypatch):
    monkeypatch.setattr(syncing, "server", lambda: "http://127.0.0.1:9")
    answer = cli("sync", "run")
    assert answer.code == 2
    assert "reach W&B" in answer.err
    assert "http://127.0.0.1:9" in answer.err


def test_an_address_that_is_none_is_named(kept: Path) -> None:
    """In a process of its own: W&B reads its settings once."""
    environment = os.environ | {"WANDB_BASE_URL": "localhost:8080"}
    command = [sys.executable, "-m", "selfimprove.app.cli", "sync", str(kept)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "WANDB_BASE_URL" in done.stderr
    assert "got localhost:8080" in done.stderr
    assert "Traceback" not in done.stderr


def test_logs_are_sent_in_order_of_time_whatever_mode_they_were_kept_in(tmp_path):
    for name in ("run-20260102_000000-a", "offline-run-20260101_000000-a", "offline-run-20260103_000000-a", "run-x"):
        folder = tmp_path / "wandb" / name
        folder.mkdir(parents=True)
        if name != "run-x":
            (folder / "run-a.wandb").write_bytes(b"")
    assert [path.name[-17:-9] for path in syncing.logs(tmp_path)] == ["20260101", "20260102", "20260103"]
    (tmp_path / "wandb" / "run-20260102_000000-a" / "run-a.wandb.synced").write_bytes(b"")
    assert len(syncing.unsent(tmp_path)) == 2


def test_a_run_that_was_not_tracked_cannot_be_sent(finished, cli):
    answer = cli("sync")
    assert answer.code == 2
    assert "--rebuild" in answer.err
    with pytest.raises(RunError, match="reach W&B"):
        syncing._reach("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ('wandb: ERROR Failed to read "x.wandb": transactionlog: error getting next record: EOF', "sync run --rebuild"),
        ("wandb: ERROR user is not logged in", "the key was refused: wandb login"),
        ("Traceback (most recent call last):\nConnectionResetError: Connection lost", "sync.log"),
        ("", "sync.log"),
    ],
)
def test_whatever_wandb_says_becomes_one_message_with_a_remedy(told, says):
    message = str(syncing._failure(Path("run"), [Path("log")], told))
    assert says in message
    assert "\n" not in message
    assert "Traceback" not in message
