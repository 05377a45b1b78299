"""Whole runs whose trainings are on a cluster; nodes and workers are played, loop, ledger and budget are real."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.progress import PlainProgress
from selfimprove.app.view import RunView
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.jobs import Outcome
from selfimprove.containment.keys import SigningKey
from selfimprove.errors import RunError
from selfimprove.executors import cluster, registry
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.messages import Task
from selfimprove.loop import run as loop
from tests.executors.played import Behavior, Played, PlayedNode
from tests.loop.played import CONFIG, Player, Silent, nobody_learns
from tests.loop.records import bodies

SHORT = replace(CONFIG, generations=1, candidates=2)
LOCAL: dict[str, str] = {}
EXECUTOR = ExecutorConfig(kind="slurm", nodes=2, pack=2)
VICTIM = "g001/c01/s0@1/3"


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    SigningKey.load(tmp_path / "state")
    monkeypatch.setattr(loop, "Supervisor", Player)
    nobody_learns(monkeypatch)
    monkeypatch.setattr(registry, "NEEDS", {})
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.0)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Behavior], tuple[str, Path]]:
    """The lineage of a run whose nodes behave so, and its folder, which passes its audit."""

    def of(behavior: Behavior) -> tuple[str, Path]:
        folder = tmp_path / "cluster"
        monkeypatch.setattr(registry, "CLUSTERS", {"slurm": lambda use, run: Played(run / "nodes", behavior)})
        monkeypatch.setattr(Player, "killed", set())
        summary = loop.run(replace(SHORT, executor=EXECUTOR), folder, Silent())
        assert summary.state == "finished", summary.reason
        report = audit(folder, FileAnchor(tmp_path / "state"))
        assert report.ok, report.findings
        return summary.lineage_sha256, folder

    return of


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The lineage of the same run on this machine."""
    if not LOCAL:
        monkeypatch.setattr(Player, "killed", set())
        LOCAL["sha256"] = loop.run(SHORT, tmp_path / "local", Silent()).lineage_sha256
    return LOCAL["sha256"]


def played(node: PlayedNode, prefix: str, task: Task) -> Outcome:
    """What the played supervisor answers."""
    node.begin(prefix)
    return Player()._outcome(task.job)


def at(victim: str, fault: Callable[[PlayedNode, str, Task], None], times: int = 1) -> Behavior:
    met: Counter[str] = Counter()

    def behave(node: PlayedNode, prefix: str, task: Task) -> Outcome | None:
        if task.job.key == victim and met[victim] < times:
            met[victim] += 1
            fault(node, prefix, task)
            return None
        return played(node, prefix, task)

    return behave


def dies(node: PlayedNode, prefix: str, task: Task) -> None:
    node.begin(prefix)
    node.end("NODE_FAIL")


def dies_before(node: PlayedNode, prefix: str, task: Task) -> None:
    node.end("NODE_FAIL")


def is_preempted(node: PlayedNode, prefix: str, task: Task) -> None:
    node.begin(prefix)
    node.end("PREEMPTED", evicted=True)


def test_equal_seeds_give_the_equal_lineage(remote: Callable[[Behavior], tuple[str, Path]], local: str) -> None:
    found, folder = remote(played)
    assert found == local
    told = bodies(folder, "node")
    assert {body["state"] for body in told} == {"asked", "ready"}
    assert [(b["label"], b["count"]) for b in told if b["state"] == "asked"] == [("g000", 2), ("g001", 2), ("final", 2)]


@pytest.mark.parametrize(
    ("fault", "times", "lost"),
    [(dies_before, 1, 0), (dies, 1, 1), (is_preempted, 3, 3)],
    ids=["before", "after", "preempted"],
)
def test_a_lost_node_costs_the_attempts_that_had_begun_on_it_and_no_lineage(
    remote: Callable[[Behavior], tuple[str, Path]], local: str, fault: Any, times: int, lost: int
) -> None:
    found, folder = remote(at(VICTIM, fault, times))
    assert found == local
    of_victim = [body for body in bodies(folder, "charge") if body["key"] == VICTIM]
    assert [body["account"] for body in of_victim] == ["lost"] * lost + ["search"]
    assert len([body for body in bodies(folder, "permit") if body["key"] == VICTIM]) == lost + 1
    lost_keys = {body["key"] for body in bodies(folder, "charge") if body["account"] == "lost"}
    assert lost_keys <= {VICTIM}
    assert [body["state"] for body in bodies(folder, "node")].count("lost") == times


def test_a_training_that_takes_its_node_along_twice_is_recorded_as_lost(
    remote: Callable[[Behavior], tuple[str, Path]],
) -> None:
    _, folder = remote(at(VICTIM, dies, times=2))
    [outcome] = [body for body in bodies(folder, "outcome") if body["key"] == VICTIM.partition("@")[0]]
    assert outcome["status"] == "crashed"
    assert "NODE_FAIL" in outcome["reason"]


def test_a_run_that_finds_no_node_can_be_resumed_and_ends_in_the_same_lineage(
    local: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    behavior = at("g001/c01/s0@1/9", dies_before, times=9)
    clusters: list[Played] = []

    def make(use: ExecutorConfig, run: Path) -> Played:
        clusters.append(Played(run / f"nodes{len(clusters)}", behavior if not clusters else played))
        return clusters[-1]

    monkeypatch.setattr(registry, "CLUSTERS", {"slurm": make})
    monkeypatch.setattr(Player, "killed", set())
    config, folder = replace(SHORT, executor=EXECUTOR), tmp_path / "resumed"
    with pytest.raises(RunError, match="nodes to train on"):
        loop.run(config, folder, Silent())
    assert clusters[0].closed
    assert loop.run(config, folder, Silent(), resume=True).lineage_sha256 == local


def test_a_run_that_is_stopped_takes_back_what_no_node_has_begun_and_ends_in_the_same_lineage(
    local: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stops: list[str] = []

    def make(use: ExecutorConfig, run: Path) -> Played:
        begun = bool(stops)
        return Played(run / f"nodes{begun}", played if begun else at(VICTIM, lambda *_: stops.append(VICTIM)))

    monkeypatch.setattr(registry, "CLUSTERS", {"slurm": make})
    monkeypatch.setattr(Player, "killed", set())
    config, folder = replace(SHORT, executor=EXECUTOR), tmp_path / "stopped"
    assert loop.run(config, folder, Silent(), should_stop=lambda: bool(stops)).state == "paused"
    assert [body["key"] for body in bodies(folder, "permit")][-1] == VICTIM
    assert loop.run(config, folder, Silent(), resume=True).lineage_sha256 == local
    of_victim = [(body["account"], body["flops"] > 0) for body in bodies(folder, "charge") if body["key"] == VICTIM]
    assert of_victim == [("lost", False), ("search", True)]
    assert {body["key"] for body in bodies(folder, "charge") if body["account"] == "lost"} == {VICTIM}
    assert not [body for body in bodies(folder, "node") if body["state"] == "lost"]
    report = audit(folder, FileAnchor(tmp_path / "state"))
    assert report.ok, report.findings


def test_the_time_of_nodes_counts_against_the_limits_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expensive(node: PlayedNode, prefix: str, task: Task) -> Outcome:
        spent = {"beat": 1, "cpu_seconds": 1e6, "gpu_seconds": 0.0}
        node.box.answer({"beat": json.dumps(spent).encode()})
        return played(node, prefix, task)

    monkeypatch.setattr(registry, "CLUSTERS", {"slurm": lambda use, run: Played(run / "nodes", expensive)})
    summary = loop.run(replace(SHORT, executor=EXECUTOR), tmp_path / "limited", Silent())
    assert summary.state == "limit"
    assert "cpu_seconds" in summary.reason


def test_a_person_is_told_what_the_run_waits_for_and_which_node_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    progress = PlainProgress(RunView())
    with caplog.at_level("INFO"):
        progress.on_event("node", {"state": "asked", "label": "g001", "count": 4})
        progress.on_event("node", {"state": "ready", "node": "7_0"})
        progress.on_event("node", {"state": "lost", "node": "7_0", "reason": "its job ended: PREEMPTED"})
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "4 nodes for g001" in caplog.text
    assert "7_0 was lost: its job ended: PREEMPTED" in caplog.text
