"""Real runs as W&B holds them: a sweep of two, kept offline, and one whose server cannot be reached."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.loop.records import bodies

READER = Path(sys.executable).with_name("wandb")
LEAVE = 60.0  # seconds from the last record to the exit: tracking may take 30 of them, the rest is a busy machine
SEEDS = (1, 2)


class Server:
    """Counts who comes, and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.visitors: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What makes W&B take this for its server."""
        port = self._socket.getsockname()[1]
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{port}", "WANDB_API_KEY": "0" * 40}

    def _serve(self) -> None:
        while True:
            try:
                self.visitors.append(self._socket.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        for one in (self._socket, *self.visitors):
            one.close()


@dataclass(frozen=True)
class Tracked:
    """One run: its ledger, and what W&B's own local reader says of it."""

    folder: Path

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return bodies(self.folder, kind)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Everything in the offline run, by its reader."""
        (log,) = (self.folder / "wandb").glob("offline-run-*/*.wandb")
        done = subprocess.run([READER, "leet", "inspect", "--json", log], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [record["history"]["item"] for record in self.records if record["type"] == "history"]

    def scalar(self, generation: int, name: str) -> Any:
        """The one value that was logged at a generation."""
        (value,) = (row[name] for row in self.history if row["generation"] == generation and name in row)
        return value

    def table(self, row: dict[str, Any], name: str) -> list[dict[str, Any]]:
        (file,) = (self.folder / "wandb").glob(f"offline-run-*/files/{row[f'{name}.path']}")
        table = json.loads(file.read_text())
        return [dict(zip(table["columns"], cells, strict=True)) for cells in table["data"]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def call(folder: Path, settings: dict[str, str], *words: str) -> tuple[int, str, str]:
    environment = {**os.environ, "SELFIMPROVE_STATE_DIR": str(folder / "state"), **settings}
    command = [sys.executable, "-m", "selfimprove.app.cli", "run", "debug=micro", "device=cpu", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """The folder in which a sweep over two seeds was run."""
    folder = tmp_path_factory.mktemp("sweep")
    seeds = f"seed={','.join(map(str, SEEDS))}"
    code, out, err = call(folder, server.environment, "tracking=wandb", "--multirun", seeds)
    assert code == 0, out + err
    return folder


@pytest.fixture(scope="module")
def tracked(sweep: Path) -> Tracked:
    return Tracked((sweep / "runs" / "latest").resolve())


def test_a_sweep_makes_a_run_and_a_lineage_for_each_seed(sweep: Path) -> None:
    runs = sorted(path.parent for path in sweep.glob("runs/micro/*/*/ledger.jsonl"))
    assert [run.name for run in runs] == ["0", "1"]
    first = [Tracked(run).bodies("run")[0] for run in runs]
    assert [body["root_seed"] for body in first] == list(SEEDS)
    assert all(Tracked(run).bodies("finish")[0]["state"] == "finished" for run in runs)
    scores = [[body["skill"] for body in Tracked(run).bodies("score")] for run in runs]
    assert scores[0] != scores[1]
    assert all((run / "report.html").stat().st_size > 0 for run in runs)


def test_latest_is_the_last_run_of_a_sweep(sweep: Path) -> None:
    assert (sweep / "runs" / "latest").resolve() == max(sweep.glob("runs/micro/*/1"))


def test_an_offline_run_opens_no_connection(sweep: Path, server: Server) -> None:
    assert not server.visitors


def test_the_offline_run_holds_every_generation(tracked: Tracked) -> None:
    rows = {row["generation"]: row for row in tracked.history if "best_skill" in row}
    generations = tracked.bodies("generation")
    assert list(rows) == [body["generation"] for body in generations] == [1, 2]
    for body in generations:
        for key in ("best_skill", "charged_flops", "proposals", "valid", "denied", "failed", "promoted"):
            assert rows[body["generation"]][key] == pytest.approx(body[key])


def test_every_metric_is_drawn_over_generations(tracked: Tracked) -> None:
    metrics = [record["metric"] for record in tracked.records if record["type"] == "metric"]
    assert {"name": "generation"}.items() <= metrics[0].items()
    assert {"glob_name": "*", "step_metric": "generation"}.items() <= metrics[1].items()


def test_what_was_inspected_is_logged_with_its_generation(tracked: Tracked) -> None:
    rows = {row["generation"]: row for row in tracked.history if "best_skill" in row}
    inspected = [body for body in tracked.bodies("inspection") if body["generation"] > 0]
    assert inspected
    for body in inspected:
        for variable, accuracies in body["summary"]["probes"].items():
            logged = [rows[body["generation"]][f"probe/{variable}/layer_{i}"] for i in range(len(accuracies))]
            assert logged == pytest.approx(accuracies)


def test_the_candidates_table_has_a_row_for_each_proposal(tracked: Tracked) -> None:
    table = tracked.table(tracked.history[-1], "candidates")
    proposals = tracked.bodies("proposal")
    place = ("generation", "index")
    assert [[row[key] for key in place] for row in table] == [[body[key] for key in place] for body in proposals]
    scores = {(body["generation"], body["index"]): body["skill"] for body in tracked.bodies("score")}
    for row, body in zip(table, proposals, strict=True):
        assert row["edits"] == ", ".join(body["edits"])
        assert row["skill"] == pytest.approx(scores.get((row["generation"], row["index"])))


def test_the_inspection_figures_show_each_variable_and_generation(tracked: Tracked) -> None:
    last = tracked.history[-1]
    drawn = str([record for record in tracked.records if record["type"] == "config"])
    inspections = tracked.bodies("inspection")
    for variable in inspections[0]["summary"]["probes"]:
        lines = {row["lineKey"] for row in tracked.table(last, f"inspection/probe_{variable}_table")}
        assert lines == {f"generation {body['generation']}" for body in inspections}
        assert f"inspection/probe_{variable}" in drawn
    assert tracked.table(last, "inspection/retention_table")
    assert "inspection/retention" in drawn


def test_the_constraint_is_logged_in_and_out_of_distribution_from_the_seed_on(tracked: Tracked) -> None:
    inspected = {body["generation"]: body["summary"]["halt_behavior"] for body in tracked.bodies("inspection")}
    assert 0 in inspected
    for generation, conditions in inspected.items():
        for name, where in (("in_distribution", "in"), ("out_of_distribution", "out")):
            counted = [c for c in conditions.values() if (c["distribution"], c["measure"]) == (where, "kept")]
            share = sum(c["kept"] for c in counted) / sum(c["n"] for c in counted)
            assert tracked.scalar(generation, f"halt/{name}") == pytest.approx(share)


def test_drift_from_the_parent_is_logged_at_the_last_layer(tracked: Tracked) -> None:
    compared = [body for body in tracked.bodies("inspection") if "comparison" in body["summary"]]
    assert compared
    for body in compared:
        found, generation = body["summary"]["comparison"], body["generation"]
        assert tracked.scalar(generation, "parent/cka_last_layer") == pytest.approx(found["cka"][-1][-1])
        aligned = found["halt_direction_drift"]["aligned"][-1]
        assert tracked.scalar(generation, "drift/halt_direction_aligned_cosine") == pytest.approx(aligned)


def test_the_controller_s_reading_is_logged_beside_what_it_proposed(tracked: Tracked) -> None:
    for body in tracked.bodies("controller_inspection"):
        generation, counts = body["generation"], body["proposals"]
        assert tracked.scalar(generation, "controller/verdict") == body["verdict"] == "read"
        assert tracked.scalar(generation, "controller/entropy") == pytest.approx(body["entropy"])
        for name in ("denied", "forbidden", "over_caps") if counts["n"] else ():
            assert tracked.scalar(generation, f"controller/{name}_rate") == pytest.approx(counts[name] / counts["n"])


def test_the_candidates_table_holds_the_verdict_of_who_was_inspected(tracked: Tracked) -> None:
    inspected = {(body["generation"], body["index"]): body for body in tracked.bodies("inspection")}
    for row in tracked.table(tracked.history[-1], "candidates"):
        body = inspected.get((row["generation"], row["index"]))
        told = (row["inspection"], row["coverage"])
        assert told == ((body["status"], pytest.approx(body["coverage"])) if body else ("", None))


def test_the_probes_table_is_a_heat_map_of_accuracy_and_selectivity_by_variable_and_layer(tracked: Tracked) -> None:
    table = tracked.table(tracked.history[-1], "inspection/probes")
    cells = {(row["generation"], row["index"], row["variable"], row["layer"]): row for row in table}
    expected = 0
    for body in tracked.bodies("inspection"):
        summary = body["summary"]
        for variable, accuracies in summary["probes"].items():
            for layer, accuracy, control in zip(
                summary["layers"], accuracies, summary["control"][variable], strict=True
            ):
                row = cells[body["generation"], body["index"], variable, layer]
                assert row["accuracy"] == pytest.approx(accuracy)
                assert row["selectivity"] == pytest.approx(accuracy - control)
                expected += 1
    assert len(table) == expected > 0


def test_a_server_that_cannot_be_reached_costs_a_bounded_time_and_the_run_says_so(tmp_path: Path) -> None:
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}  # no one listens there
    settings = nobody | {"WANDB_INIT_TIMEOUT": "5"}  # 15 is our default: nothing to gain by waiting for it here
    words = ("tracking=wandb", "tracking.mode=online", "generations=1", "candidates=1", "hydra.run.dir=alone")
    code, out, err = call(tmp_path, settings, *words)
    ended = time.time()
    assert code == 0, err
    assert "W&B could not be reached; kept offline" in out
    assert "Traceback" not in out + err
    last = json.loads((tmp_path / "alone" / "ledger.jsonl").read_text().splitlines()[-1])
    assert last["body"]["state"] == "finished"
    assert ended - datetime.fromisoformat(last["time"]).timestamp() < LEAVE
    assert [row["generation"] for row in Tracked(tmp_path / "alone").history if "best_skill" in row] == [1]
