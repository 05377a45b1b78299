"""A generation's leader keeps the weights of every stage of its training, and nobody else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.keys import SigningKey
from selfimprove.controller.config import ControllerConfig
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from selfimprove.loop.stages import FINAL
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies

PLAIN = replace(CONFIG, controller=ControllerConfig(name="random"))


def play(config: RunConfig, folder: Path) -> Path:
    """A played run of a configuration; its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        SigningKey.load(folder / "state")
        patch.setattr(loop, "Supervisor", Player)
        loop.run(config, folder / "run", Silent())
    return folder / "run"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play(PLAIN, tmp_path_factory.mktemp("stages"))


def test_every_stage_of_a_leader_is_kept_with_its_hash(ran: Path) -> None:
    for kept in bodies(ran, "checkpoint"):
        place = {name: kept[name] for name in ("generation", "index", "genome", "seed")}
        stages = [body for body in bodies(ran, "stage_checkpoint") if place.items() <= body.items()]
        key = json.loads((ran / kept["manifest"]).read_text())["key"]  # a training of few steps has not all stages
        trained = [body["stage"] for body in bodies(ran, "stage") if body["key"] == key]
        expected = trained if kept["stage"] == FINAL else []
        assert [body["stage"] for body in stages] == expected
        manifests = [json.loads((ran / body["manifest"]).read_text()) for body in stages]
        assert [manifest["stage"] for manifest in manifests] == expected
        assert sorted(manifest["last"] for manifest in manifests) == [manifest["last"] for manifest in manifests]
    leaders = [body for body in bodies(ran, "checkpoint") if body["stage"] == FINAL]
    assert len(leaders) >= 2
    assert len(list((ran / "checkpoints").glob("*-of-*.safetensors"))) == len(bodies(ran, "stage_checkpoint")) > 6
    report = audit(ran, FileAnchor(ran.parent / "state"))
    assert report.ok, report.findings


def test_an_audit_finds_a_changed_stage(ran: Path) -> None:
    path = ran / bodies(ran, "stage_checkpoint")[0]["path"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\1")
    found = audit(ran, FileAnchor(ran.parent / "state")).findings
    path.write_bytes(whole)
    assert [finding.file for finding in found] == [path.relative_to(ran).as_posix()]


def test_nothing_waits_once_the_generations_are_over(ran: Path) -> None:
    assert not list((ran / "scratch").iterdir())


def test_no_stage_is_kept_where_none_is_asked_for(tmp_path: Path) -> None:
    run = play(replace(PLAIN, generations=1, inspection=replace(PLAIN.inspection, keep_stages=False)), tmp_path)
    assert bodies(run, "checkpoint")
    assert not bodies(run, "stage_checkpoint")
    assert not list((run / "checkpoints").glob("*-of-*"))
