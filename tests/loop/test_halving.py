"""After each stage the better part of a generation goes on, some of the rest by lot, and what that missed is told."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import MedianPruner

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.jobs import Crashed, Job, Outcome, Usage
from selfimprove.errors import Interrupted
from selfimprove.loop import run as loop
from selfimprove.loop.config import HalvingConfig, RunConfig
from selfimprove.loop.halving import HalvingPruner, foreseen, judge, pruned, pruner_of, regret
from selfimprove.loop.stages import RUNGS, STAGES
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies

SKILLS = st.dictionaries(st.integers(0, 40), st.floats(allow_infinity=False), min_size=1, max_size=12)
WIDE: RunConfig = replace(CONFIG, candidates=7, generations=3)
ANY = 1000.0  # a margin that cuts nobody


class LosesASeed(Player):
    """One training seed of a candidate dies in its first stage, and the run may be cut off once."""

    lost = "g001/c01/s2@1/9"
    cut_at: ClassVar[str] = ""

    def _outcome(self, job: Job) -> Outcome:
        if job.key == type(self).cut_at:
            type(self).cut_at = ""
            raise Interrupted("run jobs")
        return Crashed("ValueError: no", Usage()) if job.key == self.lost else super()._outcome(job)


@pytest.mark.parametrize("cut_at", ["", "g001/c02/s3@1/9"])
def test_a_candidate_that_lost_a_seed_is_trained_no_further_and_counts_as_failed(
    cut_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", LosesASeed)
    monkeypatch.setattr(LosesASeed, "cut_at", cut_at)
    config = replace(CONFIG, generations=1, search_seeds=4, limits=replace(CONFIG.limits, flops=10**13))
    state = loop.run(config, tmp_path / "run", Silent()).state
    if cut_at:
        assert state == "paused"
        state = loop.run(config, tmp_path / "run", Silent(), resume=True).state
    assert state == "finished"
    trained = {body["key"] for body in bodies(tmp_path / "run", "permit") if body["key"].startswith("g001/c01/")}
    assert trained == {f"g001/c01/s{seed}@1/9" for seed in range(4)}
    ends = {body["key"]: body for body in bodies(tmp_path / "run", "outcome") if body["key"].startswith("g001/c01/")}
    assert [ends[f"g001/c01/s{seed}"]["status"] for seed in range(4)] == ["stopped", "stopped", "crashed", "stopped"]
    assert ends["g001/c01/s3"]["reason"] == "without g001/c01/s2 its candidate has no score"
    [generation] = bodies(tmp_path / "run", "generation")
    assert generation["failed"] >= 1


def comparable(skill: float) -> float:
    return -math.inf if math.isnan(skill) else skill


@given(SKILLS, st.integers(1, 12), st.floats(0, 2), st.integers(0, 3))
def test_a_rung_keeps_its_best_as_far_as_the_margin_reaches_and_cuts_nothing_better(
    skills: dict[int, float], most: int, margin: float, seed: int
) -> None:
    rung = judge(skills, HalvingPruner(most, margin), audit=0.0, exempt=(), seed=seed)
    assert sorted((*rung.kept, *rung.cut)) == sorted(skills)
    worth = {index: comparable(skill) for index, skill in skills.items()}
    best = max(worth.values())
    assert len(rung.kept) == min(most, sum(value >= best - margin for value in worth.values()))
    worst = min(worth[index] for index in rung.kept)
    assert all(worth[index] <= worst for index in rung.cut)


@given(SKILLS, st.integers(0, 3))
def test_the_verdict_depends_on_no_order(skills: dict[int, float], seed: int) -> None:
    turned = dict(reversed(skills.items()))
    found = [judge(s, HalvingPruner(2, 0.5), audit=0.5, exempt=(), seed=seed) for s in (skills, turned)]
    assert found[0] == found[1]


@given(SKILLS)
def test_a_sure_audit_cuts_nobody_and_no_halving_keeps_everybody(skills: dict[int, float]) -> None:
    audited = judge(skills, HalvingPruner(1), audit=1.0, exempt=(), seed=0)
    assert audited.cut == ()
    assert sorted((*audited.kept, *audited.audited)) == sorted(skills)
    assert judge(skills, HalvingPruner(len(skills)), audit=0.0, exempt=(), seed=0).kept == tuple(sorted(skills))


def test_who_is_audited_already_neither_competes_nor_stops() -> None:
    skills = {0: 0.9, 1: 0.1, 2: 0.5, 3: 0.4}
    rung = judge(skills, HalvingPruner(1), audit=0.0, exempt=(0,), seed=0)
    assert (rung.kept, rung.audited, rung.cut) == ((2,), (0,), (1, 3))


def test_about_one_in_ten_of_what_is_cut_is_audited() -> None:
    skills = {index: float(index) for index in range(30)}
    found = [judge(skills, HalvingPruner(10), audit=0.1, exempt=(), seed=seed).audited for seed in range(200)]
    assert 0.09 < sum(map(len, found)) / (200 * 20) < 0.11


def test_pruners_of_optuna_fit_in() -> None:
    skills = {index: {0: 0.1 * index, 1: 0.1 * index} for index in range(5)}
    assert pruned(HalvingPruner(3), skills) == {0, 1}
    assert pruned(HalvingPruner(5, 0.25), skills) == {0, 1}
    assert pruned(MedianPruner(n_startup_trials=0), skills) == set()  # it compares with finished trials only


@pytest.mark.parametrize("most", [0, -1])
def test_a_rung_that_nobody_passes_is_refused(most: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        HalvingPruner(most)


@pytest.mark.parametrize("margin", [-0.1, math.nan])
def test_a_margin_that_the_leader_is_not_within_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        HalvingPruner(3, margin)


@pytest.mark.parametrize(("keep", "candidates", "most"), [(0.1, 30, 3), (0.15, 32, 5), (0.03, 32, 1), (0.001, 4, 1)])
def test_a_part_of_the_candidates_is_rounded_up(keep: float, candidates: int, most: int) -> None:
    halving = HalvingConfig(keep=(1.0, keep, 1.0), margin=0.25)
    pruner = pruner_of(halving, RUNGS[1], candidates)
    assert (pruner.most, pruner.margin) == (most, 0.25)


def readings(*skills: float) -> dict[Fraction, float]:
    return dict(zip(STAGES.values(), skills, strict=False))


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.5))
def test_who_gains_faster_is_foreseen_to_be_ahead_and_nobody_above_the_top(
    now: float, before: float, ahead: float
) -> None:
    slow, fast = (foreseen(readings(first, now), ahead) for first in (before, before - 0.2))
    assert slow <= fast <= 1
    assert foreseen(readings(before, now), 0.0) == now


def test_what_is_foreseen_is_on_the_line_through_the_last_two_readings() -> None:
    line = {part: 0.1 + 0.5 * float(part) for part in STAGES.values()}
    for count in range(2, len(line)):
        read = dict(list(line.items())[:count])
        assert foreseen(read, 0.2) == pytest.approx(0.1 + 0.5 * (float(max(read)) + 0.2))
    assert foreseen(readings(0.9, 0.1, 0.3), 0.175) == foreseen(readings(-0.9, 0.1, 0.3), 0.175)


def test_what_is_not_a_number_is_not_foreseen_to_be_the_best() -> None:
    assert math.isnan(foreseen(readings(0.2, math.nan), 0.175))


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


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the real loop with played workers, that halves."""
    folder = tmp_path_factory.mktemp("halved")
    config = replace(WIDE, halving=HalvingConfig((2 / 3, 1 / 3, 0.1), margin=ANY, audit=0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        patch.setattr(loop, "Supervisor", Player)
        assert loop.run(config, folder / "run", Silent()).state == "finished"
    return folder / "run"


def test_what_a_rung_cuts_gets_no_later_permit_and_all_that_it_leaves_does(ran: Path) -> None:
    order, ended = list(STAGES), {body["key"]: body for body in bodies(ran, "outcome")}
    permits = {(b["key"].split("@")[0], b["key"].split("@")[1]) for b in bodies(ran, "permit") if "@" in b["key"]}
    rungs = bodies(ran, "rung")
    assert any(rung["cut"] for rung in rungs)
    assert any(rung["audited"] for rung in rungs)
    for rung in rungs:
        later = order[order.index(rung["stage"]) + 1 :]
        for index in (int(name) for name in rung["skills"]):
            slot = f"g{rung['generation']:03d}/c{index:02d}/s0"
            assert any((slot, stage) in permits for stage in later) == (index not in rung["cut"]), (slot, rung["stage"])
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


def test_a_run_that_halves_passes_its_audit(ran: Path) -> None:
    assert audit(ran, FileAnchor(ran.parent / "state")).ok


def test_halving_spends_less_on_searching_than_training_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Player)
    spent = {}
    for keep in (1.0, 0.1):
        folder = tmp_path / str(keep)
        halving = HalvingConfig((keep, keep, keep), margin=ANY, audit=0.0)
        loop.run(replace(WIDE, generations=1, halving=halving), folder, Silent())
        first = [b for b in bodies(folder, "charge") if b["key"].startswith("g001/c0")]
        spent[keep] = sum(body["flops"] for body in first)
    assert spent[0.1] < 0.5 * spent[1.0]  # 5/18 of all and the rest of one, in whole steps
