"""The twelve requirements of rsi-audit's claim card, answered from the ledger: yes, partial or no, with the evidence.

rsi-audit 0.1.0 (PyPI, MIT) is what reads them; it is no part of this program. The claim is the card's first: the genome
promoted last against the seed genome. What no record shows is not answered with yes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from selfimprove.app.report.about import degraded_in, versions_in
from selfimprove.app.report.claim import BESIDE, SAME_COMPUTE, ClaimCard
from selfimprove.app.report.claim_evidence import Claim
from selfimprove.app.report.claim_facts import compute_ratio, gate_levels, seen_before
from selfimprove.app.report.climbs import exam_levels
from selfimprove.app.report.records import Records, integer, mapping, text
from selfimprove.app.report.text import decimal, p_text, signed
from selfimprove.canonical import finite
from selfimprove.loop.aggregation import Scores, probability_of_improvement, stratified_interval

Answer = tuple[str, str]


def requirements(records: Records, card: ClaimCard) -> dict[str, Any]:
    """The filled card: the claim, and an answer to every requirement.

    Args:
        records: of the run.
        card: its claim card.
    """
    claim = card.claims[0]
    made = {
        "matched_control": _control(card),
        "compute_matched": _compute(records),
        "training_seeds": _seeds(claim),
        "intervals": _intervals(claim),
        "held_out": _held_out(records, claim),
        "claims_attempted": ("yes", f"{card.proposals} proposals, of which {card.gate_tests} came to the gate's test"),
        "gate_covers_scored_regime": _regime(records, claim),
        "cheats_scored_as_failures": _cheats(records),
        "grader_hidden": _hidden(records),
        "ranking_resampled": _resampled(records),
        "precommitted": _precommitted(records),
        "harness_disclosed": _disclosed(records),
    }
    filled = {name: {"answer": answer, "evidence": evidence} for name, (answer, evidence) in made.items()}
    return {"claim": _headline(claim), **filled}


def _headline(claim: Claim) -> str:
    if not claim.claimed or claim.evidence is None:
        return f"not claimed ({claim.reason}): {claim.statement}"
    return f"{claim.statement} {signed(claim.evidence.effect)} of skill, {p_text(claim.evidence.p_value)}"


def _control(card: ClaimCard) -> Answer:
    arms = [what for what in card.owed if what in BESIDE.values()]
    return "partial", f"the seed genome on the same seeds at equal FLOPs; owed: {'; '.join(arms) or 'nothing'}"


def _compute(records: Records) -> Answer:
    ratio = compute_ratio(records, "final")
    if ratio is None:
        return "no", "what either side of the exam was charged is not recorded"
    words = f"the champion's trainings were charged {ratio:.4f} times what the seed genome's were"
    return ("yes" if abs(ratio - 1) <= SAME_COMPUTE else "no"), words


def _seeds(claim: Claim) -> Answer:
    n = claim.evidence.n if claim.evidence else 0
    return ("yes" if n > 1 else "no"), f"{n} trainings of either genome, on common fresh seeds; the search ran once"


def _intervals(claim: Claim) -> Answer:
    ends = claim.evidence.interval if claim.evidence else None
    if ends is None:
        return "no", "too few pairs for a 95% interval, or none"
    return "yes", f"95% exact interval of the difference: {signed(ends[0])} to {signed(ends[1])}"


def _held_out(records: Records, claim: Claim) -> Answer:
    if claim.evidence is None:
        return "no", "the sealed split was not opened"
    seen = seen_before(records, "sealed")
    words = f"{seen} evaluations on the sealed split came before the last choice of the run, by order of the ledger"
    return ("no" if seen else "yes"), words


def _regime(records: Records, claim: Claim) -> Answer:
    if claim.evidence is None:
        return "no", "nothing was scored in an exam"
    there, here = gate_levels(records), exam_levels(records)
    if there == here:
        return "yes", f"gate and exam: the same evaluator, families and levels ({_named(here)})"
    return "partial", f"the same evaluator; the gate stood at {_named(there)}, the exam at {_named(here)}"


def _cheats(records: Records) -> Answer:
    """Failed trainings count as no model; that gaming would be seen where it is not prevented is shown by no record."""
    failed = mapping(mapping(records.last("sealed").get("sealed")).get("failed")).values()
    count = sum(integer(n) or 0 for n in failed)
    how = f"a training that fails, diverges or is killed counts as no model, skill 0: {count} in the exam"
    return "partial", f"{how}; gaming is prevented by containment, and not looked for beyond it"


def _hidden(records: Records) -> Answer:
    read = mapping(records.last("run").get("sandbox")).get("read")
    if not read or "read" in degraded_in(records):
        return "no", "reading files was not denied to workers"
    return "yes", f"workers train and are scored in separate processes; reading is denied by {text(read)}"


def _resampled(records: Records) -> Answer:
    ours, theirs = (exam_scores(records, role) for role in ("candidate", "parent"))
    if ours is None or theirs is None or ours.shape[1] != theirs.shape[1]:
        return "no", "scores by training and family are not recorded"
    share = float(probability_of_improvement(ours, theirs))
    low, high = stratified_interval(probability_of_improvement, [ours, theirs], seed=0)
    words = f"probability of improvement {decimal(share)} ({decimal(low)} to {decimal(high)}), trainings resampled"
    return "partial", f"{words} within each of {ours.shape[1]} families; families are fixed, not resampled"


def exam_scores(records: Records, role: str) -> Scores | None:
    """Skill on the sealed split: trainings by families, of the champion (``candidate``) or the seed genome."""
    rows, names = [], tuple[str, ...]()
    for line in records.of("evaluation"):
        words = text(line.body.get("key")).split("/")
        if len(words) == 4 and words[:2] == ["final", role] and words[3] == "sealed":
            tasks = mapping(mapping(line.body.get("score")).get("tasks"))
            names = names or tuple(sorted(tasks))
            rows.append([finite(mapping(tasks.get(name)).get("skill")) or 0.0 for name in names])
    return np.array(rows) if rows and names else None


def _precommitted(records: Records) -> Answer:
    first = records.last("run")
    digest = text(first.get("config_sha256"))
    if not digest or not records.lines or records.lines[0].kind != "run":
        return "no", "the first record holds no hash of the configuration"
    return "yes", f"tasks, seeds, test and level are in the signed first record, configuration sha256 {digest[:16]}"


def _disclosed(records: Records) -> Answer:
    whole = all(mapping(records.last("run").get(name)) for name in ("config", "versions", "seed_genome"))
    words = "configuration, seed genome and versions are in the first record; every proposal and its fate follow"
    if changed := {name: found for name, found in versions_in(records).items() if len(found) > 1}:
        said = "; ".join(f"{name} {', then '.join(found)}" for name, found in sorted(changed.items()))
        return "partial", f"{words}; versions changed between sittings, so it cannot be run again as it was: {said}"
    return ("yes" if whole else "partial"), words


def _named(levels: dict[str, int]) -> str:
    return ", ".join(f"{name} {level}" for name, level in sorted(levels.items())) or "levels not recorded"
