"""The claim card claims what was tested and passed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.report.claim import ClaimCard, claim_card
from selfimprove.app.report.claim_arms import CONTROLS
from selfimprove.app.report.claim_evidence import Claim
from selfimprove.app.report.records import Records, read_records
from selfimprove.seeds import table_seed
from tests.app import report_fixture as fixture
from tests.app.ledger_writer import Writer, digest

Change = Callable[[Writer], None]


def card_of(writer: Writer, folder: Path, keep: int | None = None) -> ClaimCard:
    return claim_card(read_records(writer.write(folder, keep)))


def named(card: ClaimCard, name: str) -> Claim:
    [found] = [claim for claim in card.claims if claim.name == name]
    return found


def test_a_finished_run_claims_its_gain_over_the_seed_with_effect_interval_p_and_n(tmp_path: Path) -> None:
    writer = fixture.full_run()
    sealed = writer.last("sealed")["sealed"]
    claim = named(card_of(writer, tmp_path), "beats_the_seed")
    assert claim.claimed, claim.reason
    assert claim.evidence is not None
    assert claim.evidence.effect == pytest.approx(sealed["difference"])
    assert (claim.evidence.n, claim.evidence.p_value, claim.evidence.split) == (8, 1 / 256, "sealed")
    differences = [a - b for a, b in zip(sealed["candidate"], sealed["parent_skill"], strict=True)]
    low, high = claim.evidence.interval or (0.0, 0.0)
    assert min(differences) <= low < claim.evidence.effect < high <= max(differences)


def _worse(writer: Writer) -> None:
    sealed = writer.last("sealed")["sealed"]
    sealed["candidate"][0] = sealed["parent_skill"][0] - 1.0
    sealed["p_value"] = 0.5


def _forged(writer: Writer) -> None:
    writer.last("sealed")["sealed"]["p_value"] = 0.001


def _other_genome(writer: Writer) -> None:
    writer.last("sealed")["genome"] = digest("another")


def _peeked(writer: Writer) -> None:
    score = {"key": "g002/c01/s0/sealed", "status": "completed", "score": {"skill": 0.9, "tasks": {}}}
    writer.lines.insert(100, {"kind": "evaluation", "body": score})


def _overspent(writer: Writer) -> None:
    charge = next(line["body"] for line in writer.lines if line["body"].get("key") == "final/candidate/s0")
    charge["flops"] *= 2


def _trained_twice(writer: Writer) -> None:
    writer.last("sealed")["sealed"]["seeds"][:2] = writer.last("confirmation")["seeds"][:2]


def _failed_beside(writer: Writer) -> None:
    writer.last("sealed")["sealed"]["failed"] = {"candidate": 0, "parent": 1}


def _without_seeds(writer: Writer) -> None:
    del writer.last("sealed")["sealed"]["seeds"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_failed_beside, "failed trainings of what it is compared with, which count as skill 0: 1"),
        (_trained_twice, "2 of its training seeds were used before"),
        (_without_seeds, "its training seeds are not recorded"),
        (_worse, "not better beyond noise"),
        (_forged, "the recorded p does not follow from the recorded pairs"),
        (_other_genome, "another genome"),
        (_peeked, "1 evaluations on the sealed split came before the last choice"),
        (_overspent, "compute was not matched"),
    ],
)
def test_whatever_speaks_against_the_gain_keeps_it_from_being_claimed(
    change: Change, reason: str, tmp_path: Path
) -> None:
    writer = fixture.full_run()
    change(writer)
    claim = named(card_of(writer, tmp_path), "beats_the_seed")
    assert not claim.claimed
    assert reason in claim.reason


@pytest.mark.parametrize("keep", [0, 1, 3, 57, 300, 500])
def test_a_run_that_was_cut_off_claims_nothing_that_it_did_not_test(tmp_path: Path, keep: int) -> None:
    card = card_of(fixture.full_run(), tmp_path, keep)
    assert not any(claim.claimed for claim in card.claims)
    assert all(claim.reason.startswith("not tested") for claim in card.claims if claim.evidence is None)
    assert card.owed[0] == "a finished run: this one has not ended"


def test_what_no_arm_beside_the_run_has_tested_is_not_claimed(tmp_path: Path) -> None:
    card = card_of(fixture.full_run(), tmp_path)
    for name in ("better_than_random", "self_improvement"):
        claim = named(card, name)
        assert (claim.claimed, claim.evidence) == (False, None)
        assert claim.reason.startswith("not tested: ")
    for owed in (
        "a run with random proposals beside it",
        "a run with sham promotion of a random valid genome",
        "a frozen controller beside it",
    ):
        assert owed in card.owed
    assert "other root seeds: the search itself ran once" in card.owed


def test_promotions_are_corrected_for_every_test_at_the_gate(tmp_path: Path) -> None:
    """Three of five tests passed with p = 1/256 each: by Holm the weakest stands at 5/256, above the level."""
    claim = named(card_of(fixture.full_run(), tmp_path), "promotions")
    assert claim.evidence is not None
    assert claim.evidence.p_value == pytest.approx(5 / 256)
    assert not claim.claimed
    assert "after correction for 5 tests" in claim.reason


def test_a_single_promotion_out_of_two_tests_is_claimed(tmp_path: Path) -> None:
    claim = named(card_of(fixture.full_run(generations=2), tmp_path), "promotions")
    assert claim.evidence is not None
    assert claim.claimed, claim.reason
    assert claim.evidence.p_value == pytest.approx(2 / 256)


@pytest.mark.parametrize(("floor", "claimed"), [(0.5, True), (0.999, False)])
def test_the_constraint_is_claimed_where_its_whole_interval_stands_above_the_floor(
    tmp_path: Path, floor: float, claimed: bool
) -> None:
    writer = fixture.full_run()
    writer.lines[0]["body"]["config"]["inspection"]["retention_floor"] = floor
    assert named(card_of(writer, tmp_path), "constraint").claimed is claimed


# -- arms: one small ledger a run --------------------------------------------------------------------------------------


def run(
    arm: str, seed: int, gain: float, /, *, accepted: bool = True, level: int = 0, again: str = "", **config: Any
) -> Records:
    """A finished run of an arm with this gain on the sealed split, in an exam at a level; ``again``: another such."""
    name = "random" if arm == "random" else "transformer"
    out = Writer()
    controller = {"name": name, "recursion": "none" if arm == "random" else arm, "steps": 40}
    out.add(
        "run", run_id=f"{arm}-{seed}{again}", root_seed=seed, config={"alpha": 0.01, "controller": controller, **config}
    )
    out.add("handover", generation=1, accepted=accepted)
    out.add("decision", generation=1, index=0, genome=digest(arm), promoted=True)
    pair = {"split": "sealed", "alpha": 0.01, "candidate": [0.5 + gain] * 8, "parent_skill": [0.5] * 8}
    out.add("sealed", genome=digest(arm), levels={"recall": level} if level else {}, sealed=pair)
    out.add("finish", state="finished", reason="")
    return Records(tuple(_record(line) for line in out.lines))


def _record(line: Mapping[str, Any]) -> Any:
    from selfimprove.app.report.records import Record

    return Record(line["kind"], line["body"])


def arms(gains: Mapping[str, float], seeds: int = 8, **config: Any) -> dict[str, Records]:
    """Runs of several arms on the same root seeds; seeds differ by more than arms do."""
    return {
        f"{arm} {seed}": run(arm, seed, 0.02 * seed + gain, **config)
        for arm, gain in gains.items()
        for seed in range(seeds)
    }


def judged(runs: dict[str, Records], arm: str, name: str) -> Claim:
    return named(claim_card(runs.pop(f"{arm} 0"), runs), name)


def test_self_improvement_is_claimed_where_promotion_beats_all_three_controls() -> None:
    claim = judged(arms({"both": 0.1, "none": 0.0, "extra": 0.05, "sham": 0.0}, 9), "both", "self_improvement")
    assert claim.claimed, claim.reason
    assert claim.evidence is not None
    assert claim.evidence.n == 9
    assert claim.evidence.p_value == pytest.approx(3 / 512)
    assert claim.evidence.effect in (pytest.approx(0.05), pytest.approx(0.1))


@pytest.mark.parametrize(
    ("gains", "seeds", "reason"),
    [
        ({"both": 0.1, "none": 0.1, "extra": 0.0, "sham": 0.0}, 9, "not better than none beyond noise"),
        ({"both": 0.1, "none": 0.0, "extra": 0.1, "sham": 0.0}, 9, "not better than extra beyond noise"),
        ({"both": 0.1, "none": 0.0, "extra": 0.0, "sham": 0.2}, 9, "not better than sham beyond noise"),
        ({"both": 0.1, "none": 0.0, "extra": 0.0}, 9, "no finished run with controller.recursion=sham stands"),
        (dict.fromkeys(("both", "none", "extra", "sham"), 0.0), 8, "8 root seeds that both have cannot bring p below"),
        ({"both": 0.1}, 9, "recursion=none or controller.recursion=extra or controller.recursion=sham stands"),
    ],
)
def test_self_improvement_is_not_claimed_without_every_control_beaten(
    gains: Mapping[str, float], seeds: int, reason: str
) -> None:
    claim = judged(arms(gains, seeds), "both", "self_improvement")
    assert not claim.claimed
    assert reason in claim.reason


@pytest.mark.parametrize("arm", ["none", "frozen", "extra", "sham"])
def test_an_arm_in_which_no_promotion_becomes_a_controller_cannot_claim_self_improvement(arm: str) -> None:
    gains = {"extra": 0.0, "sham": 0.0} | {arm: 0.3}
    assert "not tested: in the arm" in judged(arms(gains), arm, "self_improvement").reason


def test_without_a_hand_over_there_is_nothing_to_claim() -> None:
    runs = arms({"extra": 0.0, "sham": 0.0})
    claim = named(claim_card(run("both", 0, 0.5, accepted=False), runs), "self_improvement")
    assert claim.reason == "not tested: no promoted genome took the controller over"


def test_runs_that_are_set_up_otherwise_are_no_controls() -> None:
    others = arms({"random": 0.0, "none": 0.1})
    assert named(claim_card(run("none", 0, 0.1), others), "better_than_random").claimed
    other_budget = arms({"random": 0.0}, allowance_flops=5) | arms({"none": 0.1})
    assert "is set up otherwise: allowance_flops" in judged(other_budget, "none", "better_than_random").reason


def test_configured_runs_of_two_arms_that_differ_in_root_seed_and_workers_are_compared() -> None:
    from selfimprove.app.overrides import compose
    from selfimprove.app.settings import settings_from

    def configured(arm: str, seed: int) -> Records:
        overrides = [f"seed={seed}", f"workers={1 + seed}"]
        overrides.append("controller=random" if arm == "random" else f"controller.recursion={arm}")
        config = settings_from(compose(overrides)).run.to_json()
        return run(arm, seed, 0.1 if arm == "none" else 0.0, **config)

    beside = {f"{arm} {seed}": configured(arm, seed) for arm in ("none", "random") for seed in range(8)}
    card = claim_card(beside.pop("none 0"), beside)
    claim = named(card, "better_than_random")
    assert claim.claimed, claim.reason
    assert claim.evidence is not None
    assert claim.evidence.n == 8
    assert not any("root seeds" in owed or "random proposals" in owed for owed in card.owed)


def test_a_table_seed_of_its_own_keeps_a_run_from_being_a_control() -> None:
    others = {"random 1": run("random", 1, 0.0, seed=1, tasks={"table_seed": 7})}
    ours = run("none", 0, 0.1, seed=0, tasks={"table_seed": table_seed(0)})
    claim = named(claim_card(ours, others), "better_than_random")
    assert "is set up otherwise: tasks.table_seed 7" in claim.reason


def test_runs_that_no_comparison_takes_are_still_owed() -> None:
    """Another root seed and random proposals, both set up otherwise."""
    others = {"none 1": run("none", 1, 0.1, alpha=0.05), "random 0": run("random", 0, 0.0, alpha=0.05)}
    owed = claim_card(run("none", 0, 0.1), others).owed
    assert "other root seeds: the search itself ran once" in owed
    assert "a run with random proposals beside it" in owed


def test_settings_that_keep_a_finished_run_from_being_a_control_are_named() -> None:
    others = {"near": run("random", 0, 0.0, climb_seeds=0), "far": run("random", 1, 0.0, climb_seeds=0, alpha=0.05)}
    claim = named(claim_card(run("none", 0, 0.1, climb_seeds=4), others), "better_than_random")
    assert claim.reason == (
        "not tested: what stands beside this one with controller=random is set up otherwise: climb_seeds 0 (here 4)"
    )


def test_controls_that_are_set_up_otherwise_are_left_out_by_name() -> None:
    runs = arms({"random": 0.0, "none": 0.1}, seeds=9)
    runs["random 8"] = run("random", 8, 0.0, climb_seeds=0)
    claim = judged(runs, "none", "better_than_random")
    assert claim.claimed, claim.reason
    assert claim.evidence is not None
    assert claim.evidence.note.endswith("; runs set up otherwise, left out: 1, at best: climb_seeds 0 (here absent)")


def test_of_two_runs_with_one_arm_and_root_seed_neither_is_taken_silently() -> None:
    runs = arms({"random": 0.0, "none": 0.1})
    again = {"none 3 again": run("none", 3, 0.9, again="b"), "random 2 again": run("random", 2, -0.9, again="b")}
    claim = judged(runs | again, "none", "better_than_random")
    assert not claim.claimed
    assert "two finished runs of one arm at one root seed, none 3, random 2: leave one of them out" in claim.reason


def test_runs_that_a_limit_ended_are_left_out_and_counted() -> None:
    runs = arms({"random": 0.0, "none": 0.1}, seeds=9)
    lines = [one for one in runs["random 8"].lines if one.kind != "finish"]
    runs["random 8"] = Records((*lines, _record({"kind": "finish", "body": {"state": "limit", "reason": ""}})))
    claim = judged(runs, "none", "better_than_random")
    assert claim.claimed
    assert claim.evidence is not None
    assert (claim.evidence.n, "runs that a limit ended, left out: 1" in claim.evidence.note) == (8, True)


def test_exams_that_were_not_equally_hard_are_not_compared() -> None:
    at_level = arms({"random": 0.0}) | arms({"none": 0.1}, level=2)
    claim = judged(at_level, "none", "better_than_random")
    assert not claim.claimed
    assert "8 exams of two arms at one root seed were at different levels" in claim.reason
    assert "climb_seeds=0" in claim.reason
    assert judged(arms({"random": 0.0, "none": 0.1}, level=2), "none", "better_than_random").claimed


def test_arms_that_stand_beside_are_no_longer_owed() -> None:
    beside = ("both", "random", "frozen", "none", "extra", "sham")
    assert claim_card(run("both", 0, 0.1), arms(dict.fromkeys(beside, 0.0))).owed == ()


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_without_which_self_improvement_is_refused_is_owed(control: str) -> None:
    beside = [arm for arm in ("both", "random", "frozen", *CONTROLS) if arm != control]
    card = claim_card(run("both", 0, 0.1), arms(dict.fromkeys(beside, 0.0), seeds=9))
    assert f"controller.recursion={control}" in named(card, "self_improvement").reason
    assert card.owed == (CONTROLS[control],)


def test_a_run_without_hand_over_is_owed_by_the_name_of_what_it_lacks() -> None:
    assert "a run without hand-over" in claim_card(run("both", 0, 0.1)).owed
