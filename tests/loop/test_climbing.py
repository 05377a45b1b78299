"""Difficulty rises with what a promoted genome has mastered, and the lineage is measured again where it rose."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.jobs import Job
from selfimprove.loop import run as loop
from selfimprove.loop.config import RunConfig
from selfimprove.nets.cost import quote
from selfimprove.tasks.score import FamilyScore, Proportion, Score
from selfimprove.training.protocol import tasks_from_json
from tests.loop import played
from tests.loop.played import CONFIG, Player, Silent, nobody_learns
from tests.loop.records import bodies

MASTERED = "recall"
CLIMBER = replace(CONFIG, generations=3, tasks=replace(CONFIG.tasks, levels={"dyck": 1}))


def scored(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Candidates master one family at every level, and are better than their parents elsewhere."""
    ahead = "/c0" in job.key or "/candidate/" in job.key
    return at_skill(job, 0.3 * ahead, **({MASTERED: 0.95} if ahead else {}))


def mastering(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Everybody masters everything at once; later candidates are a little better."""
    number = int(job.key[1:4]) if job.key.startswith("g") else 10
    return at_skill(job, 0.91 + 0.006 * number * ("/c0" in job.key or "/candidate/" in job.key))


def at_skill(job: Job, others: float, **given: float) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An evaluator's answer with the skills given by family, and one for the others."""
    tasks = tasks_from_json(job.payload["tasks"])
    families = {}
    for name in tasks.families:
        skill = given.get(name, others)
        scale = tasks.setting(name).scale(tasks.context)
        span = math.log(scale.answers) - scale.floor
        families[name] = FamilyScore(skill, 0.5, math.log(scale.answers) - skill * span)
    mean = sum(one.skill for one in families.values()) / len(families)
    return Score(mean, families, Proportion.of(tasks.halt_prompts, tasks.halt_prompts)).to_json(), {}


def play(config: RunConfig, folder: Path, evaluate: Callable[[Job], tuple[dict[str, Any], dict[str, bytes]]]) -> Path:
    """The folder of a finished run with a played evaluator; its state is beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        patch.setattr(loop, "Supervisor", Player)
        nobody_learns(patch)
        patch.setitem(played.PLAYED, "evaluate", evaluate)
        assert loop.run(config, folder / "run", Silent()).state == "finished"
    return folder / "run"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play(CLIMBER, tmp_path_factory.mktemp("climber"), scored)


def test_a_mastered_family_rises_by_one_level_a_promotion_up_to_its_top(ran: Path) -> None:
    promoted = [body["generation"] for body in bodies(ran, "decision") if body["promoted"]]
    climbs = bodies(ran, "climb")
    assert [body["generation"] for body in climbs] == promoted
    top = CONFIG.tasks.top(MASTERED)
    expected = [min(number, top) for number in range(1, len(climbs) + 1)]
    assert [body["levels"][MASTERED] for body in climbs] == expected
    assert all(body["levels"][name] == 0 for body in climbs for name in CONFIG.tasks.families if name != MASTERED)


def test_without_seeds_for_climbing_levels_stay_where_they_are(tmp_path: Path) -> None:
    run = play(replace(CLIMBER, generations=1, climb_seeds=0), tmp_path, scored)
    assert any(body["promoted"] for body in bodies(run, "decision"))
    assert not bodies(run, "climb")
    assert not bodies(run, "level_score")


def test_where_a_rise_would_lift_the_champion_over_a_limit_levels_stay_and_the_run_has_its_exam(tmp_path: Path) -> None:
    """What the seed genome needs is the limit: on the next level, with its longer sequences, it would need more."""
    at = dict.fromkeys(CONFIG.tasks.families, 3)
    tasks = replace(CONFIG.tasks, levels=at)
    needed, more = (
        quote(
            CONFIG.seed_genome, vocab_size=tasks.vocab_size, context=tasks.at(levels).context,
            allowance_flops=CONFIG.allowance_flops,
        ).memory_bytes
        for levels in (at, dict.fromkeys(at, 4))
    )  # fmt: skip
    assert needed < more
    run = play(replace(CONFIG, tasks=tasks, limits=replace(CONFIG.limits, memory_bytes=needed)), tmp_path, mastering)
    climbs = bodies(run, "climb")
    assert [body["generation"] for body in climbs] == [1, 2]
    for body in climbs:
        assert (body["risen"], body["capped"]) == ([], list(CONFIG.tasks.families))
        assert body["levels"] == at
    assert not bodies(run, "level_score")
    [exam] = bodies(run, "sealed")
    assert exam["levels"] == at


def test_what_was_promoted_its_parent_and_the_seed_are_measured_again_on_the_new_level(ran: Path) -> None:
    first = bodies(ran, "climb")[0]
    again = [body for body in bodies(ran, "level_score") if body["generation"] == first["generation"]]
    promoted = next(body for body in bodies(ran, "decision") if body["promoted"])
    assert {body["genome"] for body in again} == {promoted["genome"], CONFIG.seed_genome.sha256}
    assert all(body["levels"] == first["levels"] for body in again)
    later = [body for body in bodies(ran, "level_score") if body["generation"] > first["generation"]]
    assert len({body["genome"] for body in later}) > 2  # the lineage has grown


def test_a_level_on_which_one_training_was_lucky_is_not_mastered(tmp_path: Path) -> None:
    """Three in four trainings of the champion fail on the new level; those that it is compared with there do not."""

    def fickle(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
        later = job.key.startswith(("g002", "g003"))
        if "/ladder/" in job.key:
            return at_skill(job, 0.0, **{MASTERED: 0.95 if job.key.split("/")[3] == "s0" else 0.4})
        return at_skill(job, 0.95 if later else 0.0, **{MASTERED: 0.95}) if later else scored(job)

    run = play(CLIMBER, tmp_path, fickle)
    [promoted] = [body for body in bodies(run, "decision") if body["promoted"]]
    [climbed] = bodies(run, "climb")
    assert (promoted["generation"], climbed["generation"]) == (1, 1)
    again = {body["genome"]: body for body in bodies(run, "level_score")}
    assert again[promoted["genome"]]["seeds"] == CLIMBER.climb_seeds == 4
    assert again[CLIMBER.seed_genome.sha256]["seeds"] == CLIMBER.search_seeds == 1
    assert again[promoted["genome"]]["tasks"][MASTERED]["skill"] == pytest.approx((0.95 + 3 * 0.4) / 4)
    assert bodies(run, "sealed")[0]["levels"][MASTERED] == 0, "the exam is on the level that was mastered"


def test_what_a_former_champion_shows_by_one_training_sets_no_level_of_the_exam(tmp_path: Path) -> None:
    """The first champion fails on the second level; as an ancestor it is lucky, once, on the third."""
    first = set[str]()

    def lucky(job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
        n = int(job.key[1:4]) if job.key.startswith("g") else CLIMBER.generations
        if "/ladder/" in job.key:
            _, _, who, s = job.key.split("/")[:4]
            first.update({who} if (n, s) == (1, "s3") else ())
            return at_skill(job, 0.0, **{MASTERED: 0.95 if n == 3 and who in first else 0.4})
        ahead = "/c0" in job.key or "/candidate/" in job.key
        return at_skill(job, 0.2 * n * ahead, **{MASTERED: 0.95 if ahead and n != 2 else 0.3})

    run = play(CLIMBER, tmp_path, lucky)
    assert [(body["generation"], body["levels"][MASTERED]) for body in bodies(run, "climb")] == [(1, 1), (3, 2)]
    passed = [b for b in bodies(run, "level_score") if b["tasks"][MASTERED]["skill"] > 0.9]
    assert [(b["generation"], b["levels"][MASTERED], b["seeds"]) for b in passed] == [(3, 2, 1)]
    assert bodies(run, "sealed")[0]["levels"][MASTERED] == 1


def test_a_kept_checkpoint_says_on_which_levels_it_was_trained(ran: Path) -> None:
    level = dict.fromkeys(CONFIG.tasks.families, 0)
    risen = {body["generation"]: body["levels"] for body in bodies(ran, "climb")}
    for body in bodies(ran, "checkpoint"):
        manifest = json.loads((ran / body["manifest"]).read_text())
        before = [levels for generation, levels in risen.items() if generation < body["generation"]]
        assert manifest["tasks"]["levels"] == (before[-1] if before else level)


def test_a_run_that_climbs_passes_its_audit(ran: Path) -> None:
    assert audit(ran, FileAnchor(ran.parent / "state")).ok


def test_the_last_exam_is_on_families_and_seeds_that_nothing_before_it_has_seen(ran: Path) -> None:
    [exam] = bodies(ran, "held_out")
    assert set(exam["sealed"]["tasks"]) == set(CONFIG.tasks.held_out)
    assert exam["levels"] == {"fuzzy": 0, "dyck": 1}, "as configured"
    assert exam["genome"] == bodies(ran, "sealed")[0]["genome"]
    before = {seed for body in bodies(ran, "confirmation") for seed in body["seeds"]}
    before |= {seed for split in ("gate", "sealed") for seed in bodies(ran, "sealed")[0][split]["seeds"]}
    assert not before & set(exam["sealed"]["seeds"])
    # the better genome is better here too, by what is played
    assert exam["sealed"]["difference"] == pytest.approx(0.3)


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten generations of candidates that master everything at once, a little better each time."""
    long = replace(CONFIG, generations=10, limits=replace(CONFIG.limits, flops=10**13))
    return play(long, tmp_path_factory.mktemp("masters"), mastering)


def test_whatever_is_mastered_no_family_is_saturated_for_two_of_ten_generations(masters: Path) -> None:
    climbs = {body["generation"]: body for body in bodies(masters, "climb")}
    assert sorted(climbs) == list(range(1, 11))
    for name in CONFIG.tasks.families:
        capped = [generation for generation, body in climbs.items() if name in body["capped"]]
        assert len(capped) <= 1, f"{name} was mastered at its top in generations {capped}"


def test_sequences_grow_with_the_levels_and_what_is_trained_costs_the_same(masters: Path) -> None:
    manifests = [json.loads((masters / body["manifest"]).read_text()) for body in bodies(masters, "checkpoint")]
    lengths = [manifest["tasks"]["context"] for manifest in manifests]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[0] == CONFIG.tasks.context
    first, last = (next(m for m in manifests if m["tasks"]["context"] == end) for end in (lengths[0], lengths[-1]))
    assert last["steps"] < first["steps"]
    spent = {body["key"]: body["flops"] for body in bodies(masters, "permit") if "/parent/" in body["key"]}
    whole = [sum(flops for key, flops in spent.items() if key.startswith(f"g{n:03d}/parent/")) for n in range(1, 11)]
    assert all(0.5 * CONFIG.allowance_flops < flops <= CONFIG.allowance_flops for flops in whole)


def test_a_run_whose_sequences_grow_passes_its_audit(masters: Path) -> None:
    assert audit(masters, FileAnchor(masters.parent / "state")).ok
