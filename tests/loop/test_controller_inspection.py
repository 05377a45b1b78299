"""The controller is read once a generation; a worker's answer about it is believed only in its form."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.checkpoint import store
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.containment.jobs import Completed, Crashed, Job, Outcome, Usage
from selfimprove.containment.keys import SigningKey
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.random_search import draw_edits
from selfimprove.controller.survey import LIMIT_SHARE, QUANTITIES, REMAINING_BUDGET
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from selfimprove.loop.controlling import Controlling
from selfimprove.loop.slots import Bench
from tests.loop.played import CONFIG, PLAYED, Player, Silent, nobody_learns, zeros
from tests.loop.test_controlling import bench_of

SMALL = replace(CONFIG, inspection=replace(CONFIG.inspection, sequences=24))
Answer = dict[str, Any]
READ: Answer = {
    "verdict": "read", "reason": "", "entropy": 1.0, "outside_grammar": 0.5, "layers": ["embed"], "probes": {},
}  # fmt: skip


def well(job: Job) -> Answer:
    """A reading in its right form; the worker itself is tested where it lives."""
    grammar, rng = Grammar(Space(SpaceConfig(**job.payload["space"]))), random.Random(0)
    parent = Genome.from_json(job.payload["parent"])
    drawn = [grammar.encode(draw_edits(grammar, parent, rng)[0]) for _ in range(job.payload["asking"]["rows"])]
    probes = {name: {"accuracy": [0.5]} for name in job.payload["survey"]["quantities"]}
    return READ | {"probes": probes, "drawn": drawn}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory where there is one, and nothing is waited for until it is on a disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        monkeypatch.setenv("SELFIMPROVE_STATE_DIR", f"{folder}/state")
        yield Path(folder)


@pytest.fixture
def reading(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mapping[str, Any]]:
    """What is recorded of the controller that has learned nothing, if its worker ends like this."""

    def examined(outcome: Callable[[Job], Outcome], config: RunConfig = SMALL) -> Mapping[str, Any]:
        monkeypatch.setattr(Bench, "run_one", lambda _, job: outcome(job))
        controlling = Controlling(bench_of(config, place), Space(config.space))
        return controlling.inspect(0, config.seed_genome)

    return examined


def completed(answer: Answer) -> Callable[[Job], Outcome]:
    return lambda job: Completed(answer, {}, Usage())


def test_each_generation_of_a_run_reads_the_weights_that_it_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SigningKey.load(place / "state")
    monkeypatch.setattr(loop, "Supervisor", Player)
    nobody_learns(monkeypatch)
    monkeypatch.setitem(PLAYED, "inspect_controller", lambda job: (well(job), {}))
    loop.run(SMALL, place / "run", Silent())
    entries = read(place / "run" / LEDGER_NAME)
    found, learned, summaries = (
        [e.body for e in entries if e.kind == kind] for kind in ("controller_inspection", "controller", "generation")
    )
    assert [body["generation"] for body in found] == [0, 1, 2]
    assert [body["weights_sha256"] for body in found] == [None, *(body["sha256"] for body in learned)]
    for body in found:
        assert (body["verdict"], body["reason"]) == ("read", "")
        assert body["sampled"]["n"] == body["sampled"]["denied"]["n"] == SMALL.inspection.sequences // 3
        assert 0 < body["sampled"]["limit_share"] <= body["sampled"]["nearest"]
        assert body["probes"].keys() == {*QUANTITIES, LIMIT_SHARE, REMAINING_BUDGET}
    assert found[0]["proposals"] == {"n": 0, "denied": 0, "refused": 0, "forbidden": 0, "over_caps": 0}
    for body, summary in zip(found[1:], summaries, strict=True):  # beside what became of the generation's proposals
        assert body["proposals"]["n"] == summary["proposals"] == SMALL.candidates
        assert all(body["proposals"][name] == summary[name] for name in ("denied", "forbidden", "over_caps"))


def test_the_policy_judges_what_is_drawn_and_not_the_worker(reading: Callable[..., Mapping[str, Any]]) -> None:
    lying = {"sampled": {"denied": 0}, "denied": 0}
    tight = replace(SMALL, limits=replace(SMALL.limits, parameters=50_000))  # the parent has more
    found = reading(lambda job: completed(well(job) | lying)(job), tight)
    assert found["sampled"]["denied"]["kept"] == found["sampled"]["limits"]["parameters"] > 0
    assert found["sampled"]["nearest"] > 1


def test_a_controller_that_is_no_model_is_not_applicable(reading: Callable[..., Mapping[str, Any]]) -> None:
    def never(job: Job) -> Outcome:
        raise AssertionError("no worker is needed")

    found = reading(never, replace(SMALL, controller=ControllerConfig(name="random")))
    assert found["verdict"] == "not_applicable"
    assert "controller=random" in found["reason"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"drawn": []},
        {"drawn": [[0]]},
        {"drawn": [["eos"]]},
        {"drawn": [None]},
        {"drawn": [[1] * 10_000]},
        {"drawn": [[1]] * 1000},
        {"drawn": 3},
        {"probes": {"size": float("nan")}},
        {"probes": {"size": "x" * 100_000}},
        {"probes": {"parameters": 3}},
        {"probes": {"parameters": {"accuracy": []}}},
        {"probes": {"parameters": {"accuracy": ["0.5"]}}},
        {"probes": {"parameters": {"accuracy": [7.0]}}},
        {"probes": {"parameters": {"accuracy": [0.5], "majority": [[0.5]]}}},
        {"probes": [{"accuracy": [0.5]}]},
        {"layers": ["embed", "blocks.0"]},
        {"layers": "embed"},
        {"layers": [3]},
        {"verdict": "promoted"},
        {"verdict": ["read"]},
        {"drawn": None},
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_an_answer_of_another_form_is_a_failed_reading(
    wrong: Answer, reading: Callable[..., Mapping[str, Any]]
) -> None:
    found = reading(lambda job: completed(well(job) | wrong)(job))
    assert found["verdict"] == "failed"
    assert found["reason"].startswith("the answer has not the form of a reading")
    assert found["reason"].isprintable()
    assert "sampled" not in found


def test_fields_of_its_own_are_left_out(reading: Callable[..., Mapping[str, Any]]) -> None:
    answer = {"verdict": "unreadable", "reason": "\x1b[2Jno", "generation": 9, "weights_sha256": "0", "extra": 1}
    found = reading(completed(answer))
    assert (found["generation"], found["weights_sha256"], found["verdict"]) == (0, None, "unreadable")
    assert found["reason"].isprintable()
    assert "extra" not in found


def test_a_worker_that_crashes_costs_only_the_reading(reading: Callable[..., Mapping[str, Any]]) -> None:
    found = reading(lambda job: Crashed("killed", Usage()))
    assert (found["verdict"], found["reason"]) == ("failed", "killed")


def test_it_is_read_once_however_often_it_is_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[str] = []

    def counted(_: Bench, job: Job) -> Outcome:
        jobs.append(job.key)
        return Crashed("killed", Usage())

    monkeypatch.setattr(Bench, "run_one", counted)
    controlling = Controlling(bench_of(SMALL, place), Space(SMALL.space))
    assert controlling.inspect(1, SMALL.seed_genome) == controlling.inspect(1, SMALL.seed_genome)
    assert jobs == ["g001/controller"]


def test_a_later_update_is_not_read_in_the_place_of_an_earlier_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "run_one", lambda _, job: Crashed(job.inputs["weights"].name, Usage()))
    controlling = Controlling(bench := bench_of(SMALL, place), Space(SMALL.space))
    for n in (1, 2):
        stored = store(place / "controller", f"g{n:03d}", zeros({"w": (n,)}), {}).record(place)
        bench.journal.record("controller", {"generation": n, **stored})
    found, [first, _] = controlling.inspect(1, SMALL.seed_genome), bench.journal.all("controller")
    assert (found["weights_sha256"], found["reason"]) == (first["sha256"], "g001.safetensors")
