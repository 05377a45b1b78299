"""The claim card of a run: what it claims, on which control and evidence, what it does not claim, and what it owes.

Written from ledgers alone, by fixed rules: a statement is claimed where its test was made and passed, and else it is
not claimed, with the reason. Nothing here is verified; ``selfimprove audit`` proves that a ledger is what was recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfimprove.app.report.about import degraded_in, run_state
from selfimprove.app.report.claim_arms import CONTROLS, against_random, arm_of, self_improvement, usable
from selfimprove.app.report.claim_evidence import Claim, Evidence, judged, not_claimed, paired
from selfimprove.app.report.claim_facts import (
    champion,
    climbed_since,
    compute_ratio,
    exam_seeds,
    seed_genome,
    seen_before,
    used_before,
)
from selfimprove.app.report.comparisons import HELD_OUT, read_confirmations, read_finals
from selfimprove.app.report.records import Records, integer, mapping, text, texts
from selfimprove.canonical import finite
from selfimprove.controller.config import ARMS
from selfimprove.loop.statistics import holm

BESIDE = {
    "random": "a run with random proposals beside it",
    "frozen": "a frozen controller beside it",
    **CONTROLS,
}
"""What a card owes for want of an arm."""
FEW_FAMILIES = 5
SAME_COMPUTE = 0.05  # part by which the FLOPs of the two sides of the exam may differ: a step more or less


@dataclass(frozen=True)
class ClaimCard:
    """What a run claims.

    Attributes:
        run_id, root_seed, state: of the run.
        champion: hash of the genome promoted last, or of the seed genome.
        seed_genome: hash of the seed genome.
        proposals: how many were made.
        gate_tests: how many of them came to the gate's test; each of them may pass by luck.
        charged: FLOPs of everything.
        claims: every statement that a run could make, claimed or not.
        owed: what is missing for more.
    """

    run_id: str
    root_seed: str
    state: str
    champion: str
    seed_genome: str
    proposals: int
    gate_tests: int
    charged: int
    claims: tuple[Claim, ...]
    owed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Stable keys; ``claimed`` beside each statement."""
        return asdict(self)


def claim_card(records: Records, beside: Mapping[str, Records] | None = None) -> ClaimCard:
    """The card of a run.

    Args:
        records: of the run.
        beside: other runs, by a name: further root seeds of its arm, and its controls.
    """
    others = list((beside or {}).values())
    first = records.last("run")
    return ClaimCard(
        run_id=str(first.get("run_id", "")),
        root_seed=str(first.get("root_seed", "")),
        state=run_state(records)[0],
        champion=champion(records),
        seed_genome=seed_genome(records),
        proposals=len(records.of("proposal")),
        gate_tests=len(records.of("confirmation")),
        charged=max((integer(line.body.get("total")) or 0 for line in records.of("charge")), default=0),
        claims=(
            _beats_the_seed(records),
            _carries_over(records),
            _promotions(records),
            _constraint(records),
            against_random(records, others),
            self_improvement(records, others),
        ),
        owed=tuple(_owed(records, others)),
    )


def _beats_the_seed(records: Records) -> Claim:
    statement = "The genome promoted last beats the seed genome at equal FLOPs a training, on the sealed split."
    return _exam(records, "beats_the_seed", statement, "sealed", ("sealed", "final"))


def _carries_over(records: Records) -> Claim:
    statement = "The gain carries over to task families that the search has never seen."
    return _exam(records, "carries_over", statement, HELD_OUT, ("held_out", "final/held-out"))


def _exam(records: Records, name: str, statement: str, split: str, where: tuple[str, str]) -> Claim:
    """Champion against seed genome; ``where`` is the kind of the exam's record, and the prefix of its jobs' keys."""
    kind, prefix = where
    control = "the seed genome, trained on the same fresh seeds with the same FLOPs a training"
    pair = next((pair for pair in read_finals(records) if pair.split == split), None)
    if pair is None:
        nothing = champion(records) == seed_genome(records)
        why = "nothing was promoted, so that the exam was not held" if nothing else "the exam was not held"
        return not_claimed(name, statement, control, f"not tested: {why}")
    against = [_unmatched(records, prefix), _stale(records, kind)]
    if text(records.last(kind).get("genome")) != champion(records):
        against.append("the exam was of another genome than the one promoted last")
    if seen := seen_before(records, "sealed"):
        against.append(f"{seen} evaluations on the sealed split came before the last choice")
    return judged(name, statement, control, pair, [objection for objection in against if objection])


def _unmatched(records: Records, prefix: str) -> str:
    """Why the two sides of a comparison were not charged alike; empty where they were."""
    ratio = compute_ratio(records, prefix)
    if ratio is None:
        return "what either side was charged is not recorded"
    return "" if abs(ratio - 1) <= SAME_COMPUTE else f"compute was not matched: {ratio:.3f} to 1"


def _stale(records: Records, kind: str) -> str:
    """Why the training seeds of an exam are not fresh; empty where they are."""
    seeds = exam_seeds(records, kind)
    if not seeds:
        return "its training seeds are not recorded"
    used = used_before(records, seeds)
    return f"{len(used)} of its training seeds were used before" if used else ""


def _promotions(records: Records) -> Claim:
    name, control = "promotions", "each candidate's parent, trained on the same fresh seeds"
    tests = read_confirmations(records)
    passed = [one for one in tests if one.promoted]
    statement = "Every promotion beats its parent on the gate split, corrected for all tests that the run made there."
    if not passed:
        return not_claimed(name, statement, control, "not tested: nothing was promoted")
    evidences = [paired(one.pair) for one in tests]
    adjusted = holm([evidence.p_value if evidence.p_value is not None else 1.0 for evidence in evidences])
    worst = max(zip(adjusted, evidences, tests, strict=True), key=lambda row: row[0] if row[2].promoted else -1.0)
    alpha = worst[2].pair.alpha
    evidence = Evidence(
        split="gate",
        n=worst[1].n,
        effect=worst[1].effect,
        interval=worst[1].interval,
        p_value=worst[0],
        note=f"{len(passed)} of {len(tests)} tests passed; shown is the weakest of them, p by Holm over all tests",
    )
    against = {_unmatched(records, f"g{one.generation:03d}/confirm") for one in passed}
    if not worst[0] < alpha:
        against.add(f"after correction for {len(tests)} tests p = {worst[0]:.4f} is not below {alpha:g}")
    reason = "; ".join(sorted(against - {""}))
    return Claim(name, statement, control, not reason, reason, evidence)


def _constraint(records: Records) -> Claim:
    name, control = "constraint", "the floor of the gate, for the lower end of the interval"
    statement = "The genome promoted last keeps the halt constraint when it is trained on fresh seeds."
    pair = next((pair for pair in read_finals(records) if pair.split == "sealed"), None)
    kept = pair.retention if pair is not None else None
    if kept is None:
        return not_claimed(name, statement, control, "not tested: the exam was not held")
    floor = finite(mapping(mapping(records.last("run").get("config")).get("inspection")).get("retention_floor"))
    note = f"{kept.kept:,} of {kept.n:,} halt prompts, like those in training; interval of Wilson"
    evidence = Evidence("sealed", len(pair.candidate) if pair else 0, kept.rate, (kept.low, kept.high), None, note)
    if floor is None:
        return Claim(name, statement, control, False, "no floor is recorded", evidence)
    reason = "" if kept.low >= floor else f"the interval begins at {kept.low:.4f}, below {floor:g}"
    return Claim(name, statement, control, not reason, reason, evidence)


def _owed(records: Records, others: Sequence[Records]) -> list[str]:
    first, arm = records.last("run"), arm_of(records)
    config, used = mapping(first.get("config")), usable(records, others)
    arms = {arm, *(arm_of(other) for other in used)}
    seeds = {str(one.last("run").get("root_seed")) for one in (records, *used) if arm_of(one) == arm}
    families = len(texts(mapping(config.get("tasks")).get("families")))
    learns = arm in ARMS
    owed = (
        (run_state(records)[0] not in ("finished", "limit"), "a finished run: this one has not ended"),
        (len(seeds) < 2, "other root seeds: the search itself ran once"),
        *((name not in arms and (learns or name == "random"), what) for name, what in BESIDE.items()),
        (0 < families < FEW_FAMILIES, f"more task families: {families} are searched on"),
        (climbed_since(records), "an exam at the levels on which it was promoted"),
        (mapping(config.get("inspection")).get("retention_gate") is False, "a gate that asks for the constraint"),
        (bool(degraded_in(records)), "whole containment: a property was degraded"),
        (records.unreadable > 0, f"the {records.unreadable} ledger lines that could not be read"),
    )
    return [what for missing, what in owed if missing]
