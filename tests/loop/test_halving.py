"""After each stage the better part of a generation goes on, some of the rest by lot, and what that missed is told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.loop import run as loop
from selfimprove.loop.config import HalvingConfig, RunConfig
from selfimprove.loop.halving import HalvingPruner, judge, pruned, regret
from selfimprove.loop.stages import STAGES
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies

SKILLS = st.dictionaries(st.integers(0, 40), st.floats(allow_infinity=False), min_size=1, max_size=12)
WIDE: RunConfig = replace(CONFIG, candidates=7, generations=3)


def reported(skills: dict[int, float]) -> dict[int, dict[int, float]]:
    return {index: {0: skill} for index, skill in skills.items()}


def worth(skill: float) -> float:
    return -math.inf if math.isnan(skill) else skill


@given(SKILLS, st.integers(1, 12), st.integers(0, 3))
def test_a_rung_keeps_its_best_part_rounded_up_and_cuts_nothing_better(
    skills: dict[int, float], twelfths: int, seed: int
) -> None:
    rung = judge(reported(skills), keep=twelfths / 12, audit=0.0, exempt=(), seed=seed)
    assert sorted((*rung.kept, *rung.cut)) == sorted(skills)
    assert len(rung.kept) == -(-len(skills) * twelfths // 12)
    worst = min(worth(skills[index]) for index in rung.kept)
    assert all(worth(skills[index]) <= worst for index in rung.cut)


@given(SKILLS, st.integers(0, 3))
def test_the_verdict_depends_on_no_order(skills: dict[int, float], seed: int) -> None:
    turned = dict(reversed(skills.items()))
    arguments: dict[str, Any] = {"keep": 1 / 3, "audit": 0.5, "exempt": (), "seed": seed}
    assert judge(reported(skills), **arguments) == judge(reported(turned), **arguments)


@given(SKILLS)
def test_a_sure_audit_cuts_nobody_and_no_halving_keeps_everybody(skills: dict[int, float]) -> None:
    audited = judge(reported(skills), keep=1 / 3, audit=1.0, exempt=(), seed=0)
    assert audited.cut == ()
    assert sorted((*audited.kept, *audited.audited)) == sorted(skills)
    assert judge(reported(skills), keep=1.0, audit=0.0, exempt=(), seed=0).kept == tuple(sorted(skills))


def test_who_is_audited_already_neither_competes_nor_stops() -> None:
    skills = {0: 0.9, 1: 0.1, 2: 0.5, 3: 0.4}
    rung = judge(reported(skills), keep=1 / 3, audit=0.0, exempt=(0,), seed=0)
    assert (rung.kept, rung.audited, rung.cut) == ((2,), (0,), (1, 3))


def test_about_one_in_ten_of_what_is_cut_is_audited() -> None:
    skills = {index: float(index) for index in range(30)}
    found = [judge(reported(skills), keep=1 / 3, audit=0.1, exempt=(), seed=seed).audited for seed in range(200)]
    assert 0.09 < sum(map(len, found)) / (200 * 20) < 0.11


def test_pruners_of_optuna_fit_in() -> None:
    skills = {index: {0: 0.1 * index, 1: 0.1 * index} for index in range(5)}
    assert pruned(HalvingPruner(0.5), skills) == {0, 1}
    assert pruned(MedianPruner(n_startup_trials=0), skills) == set()  # it compares with finished trials only


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.01, math.nan])
def test_a_part_that_is_none_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="above 0, at most 1"):
        HalvingPruner(keep)


def scored(skill: float, nats: float) -> dict[str, Any]:
    return {"skill": skill, "tasks": {"recall": {"cross_entropy": nats}, "copy": {"cross_entropy": nats}}}


@pytest.mark.parametrize(
    ("audited", "expected"),
    [
        ([], None),
        ([7], None),  # it failed later, and has no score
        ([1], {"skill": 0.0, "nats": 0.0}),
        ([2], {"skill": pytest.approx(0.3), "nats": pytest.approx(0.5)}),
        ([0, 1, 2], None),
    ],
)
def test_the_regret_is_what_the_best_of_the_audited_has_over_the_best_of_the_kept(
    audited: list[int], expected: dict[str, float] | None
) -> None:
    assert regret({0: scored(0.5, 1.5), 1: scored(0.4, 1.7), 2: scored(0.8, 1.0)}, audited) == expected


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the real loop with played workers, that halves."""
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    config = replace(WIDE, halving=HalvingConfig(1 / 3, 1 / 3, audit=0.3))
    assert loop.run(config, tmp_path / "run", Silent()).state == "finished"
    return tmp_path / "run"


def test_what_a_rung_cuts_gets_no_later_permit_and_all_that_it_leaves_does(ran: Path) -> None:
    order, ended = list(STAGES), {body["key"]: body for body in bodies(ran, "outcome")}
    permits = {(b["key"].split("@")[0], b["key"].split("@")[1]) for b in bodies(ran, "permit") if "@" in b["key"]}
    rungs = bodies(ran, "rung")
    assert any(rung["cut"] for rung in rungs)
    assert any(rung["audited"] for rung in rungs)
    for rung in rungs:
        later = order[order.index(rung["stage"]) + 1]
        for index in (int(name) for name in rung["skills"]):
            slot = f"g{rung['generation']:03d}/c{index:02d}/s0"
            assert ((slot, later) in permits) == (index not in rung["cut"]), (slot, later)
            if index in rung["cut"]:
                assert ended[slot]["status"] == "stopped"
                assert "is not among the best" in ended[slot]["reason"]


def test_a_summary_tells_how_many_were_stopped_and_audited_and_what_it_cost(ran: Path) -> None:
    for body in bodies(ran, "generation"):
        rungs = [rung for rung in bodies(ran, "rung") if rung["generation"] == body["generation"]]
        assert body["stopped"] >= sum(len(rung["cut"]) for rung in rungs)
        assert body["audited"] == (len(rungs[-1]["audited"]) if rungs else 0)
        assert body["regret"] is None or set(body["regret"]) == {"skill", "nats"}
    assert any(body["regret"] for body in bodies(ran, "generation"))


def test_a_run_that_halves_passes_its_audit(ran: Path, tmp_path: Path) -> None:
    assert audit(ran, FileAnchor(tmp_path / "state")).ok


def test_halving_spends_less_on_searching_than_training_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    spent = {}
    for keep in (1.0, 1 / 3):
        folder = tmp_path / str(keep)
        loop.run(replace(WIDE, halving=HalvingConfig(keep, keep, audit=0.0)), folder, Silent())
        first = [b for b in bodies(folder, "charge") if b["key"].startswith("g001/c0")]
        spent[keep] = sum(body["flops"] for body in first)
    assert spent[1 / 3] < 0.4 * spent[1.0]
