"""Baselines in the real loop: the same interface, ledger and budget as the learned controller."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.loop.conftest import MICRO, Place
from tests.loop.records import bodies


@pytest.mark.parametrize("name", ["tpe", "reinforce"])
def test_a_run_with_a_baseline_ends_with_a_sound_ledger(name: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.call("run", *MICRO, f"controller={name}", "hydra.run.dir=run")
    assert json.loads(place.call("audit", "run", "--json"))["ok"]
    asked = bodies(tmp_path / "run", "ask")
    assert [(body["reason"] or "", len(body["proposals"])) for body in asked] == [("", 2)] * 2
    taught = bodies(tmp_path / "run", "controller")
    assert [body["reason"] or "" for body in taught] == [""] * 2
    learns = name == "reinforce"
    assert all((body["weights"] is not None) == (body["flops"] > 0) == learns for body in taught)
    permits = [body for body in bodies(tmp_path / "run", "permit") if "tell" in json.dumps(body)]
    assert bool(permits) == learns


def test_the_forecaster_is_asked_in_the_sandbox_and_paid_for(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.call("run", *MICRO, "controller=forecaster", "candidates=6", "hydra.run.dir=run")
    asked = bodies(tmp_path / "run", "ask")
    assert [(body["reason"] or "", len(body["proposals"])) for body in asked] == [("", 6)] * 2
    paid = [body for body in bodies(tmp_path / "run", "charge") if body["account"] == "controller"]
    assert [body["key"] for body in paid] == ["g002/ask"], "the first generation is random: nothing is known yet"
    assert json.loads(place.call("audit", "run", "--json"))["ok"]
