"""Claims that one run cannot make: about the controller, from runs of several arms that share their root seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfimprove.app.report.claim_evidence import Claim, Evidence, not_claimed
from selfimprove.app.report.comparisons import read_finals
from selfimprove.app.report.records import Records, mapping
from selfimprove.app.report.rivals import NAME, set_apart
from selfimprove.canonical import finite
from selfimprove.controller.config import INHERITING
from selfimprove.loop.statistics import MOST_PAIRS, exact_interval, holm, sign_flip_p_value

CONTROLS = {
    "none": "a run without hand-over",  # where the other two do harm, whoever hands nothing over is ahead of them
    "extra": "a run with the same extra training and no new genome",
    "sham": "a run with sham promotion of a random valid genome",
}
RECURSION = "controller.recursion"
_MAY_DIFFER = ("seed", "experiment", "workers", NAME, RECURSION)  # between two comparable runs


@dataclass(frozen=True)
class _Exam:
    """What a finished run gained.

    Attributes:
        gain: champion minus seed genome on the sealed split; 0 where nothing was promoted.
        levels: of its families; None where nothing was promoted, and so no exam was held.
    """

    gain: float
    levels: Mapping[str, Any] | None


_Exams = dict[str, list[_Exam]]  # by root seed: one, unless it was run again


def arm_of(records: Records) -> str:
    """What a run's controller is: ``random`` and other names of controllers; of a learning one, what becomes of it."""
    controller = mapping(mapping(records.last("run").get("config")).get("controller"))
    name = str(controller.get("name", ""))
    return str(controller.get("recursion", "none")) if name == "transformer" else name


def usable(records: Records, others: Sequence[Records]) -> list[Records]:
    """Those other runs that a comparison with this one takes: finished, and set up alike but for seed and arm."""
    return [one for one in others if one.last("finish").get("state") == "finished" and not _apart(one, records)]


def against_random(records: Records, others: Sequence[Records]) -> Claim:
    """Whether the controller finds more than random proposals do, at the same limits."""
    name, control = "better_than_random", "random proposals on the same space, with the same limits and root seeds"
    statement = "The controller's proposals lead to more than random ones do, on the sealed split."
    if arm_of(records) == "random":
        return not_claimed(name, statement, control, "this run's own proposals are random")
    return _over(name, statement, control, records, others, ("random",))


def self_improvement(records: Records, others: Sequence[Records]) -> Claim:
    """Self-improvement proper: promotion into the controller beats going without, extra training and shams alike."""
    name, control = "self_improvement", "; ".join(CONTROLS.values())
    statement = "Building the next controller from what was promoted leads to more than its three controls do."
    arm = arm_of(records)
    if arm not in INHERITING:
        why = f"in the arm {arm!r} no promoted genome becomes a controller"
        return not_claimed(name, statement, control, f"not tested: {why}")
    accepted = sum(line.body.get("accepted") is True for line in records.of("handover"))
    if not accepted:
        return not_claimed(name, statement, control, "not tested: no promoted genome took the controller over")
    return _over(name, statement, control, records, others, tuple(CONTROLS))


def _over(
    name: str, statement: str, control: str, records: Records, others: Sequence[Records], controls: Sequence[str]
) -> Claim:
    """One arm against each of its controls, paired by root seed; p by Holm, and the weakest of them counts."""
    fit = [records, *(other for other in others if not _apart(other, records))]
    runs = list({str(one.last("run").get("run_id")): one for one in reversed(fit)}.values())  # this one may be beside
    exams = {arm: _exams(runs, arm) for arm in (arm_of(records), *controls)}
    alpha = finite(mapping(records.last("run").get("config")).get("alpha")) or 0.01
    if missing := [arm for arm in controls if not exams[arm]]:
        return not_claimed(name, statement, control, f"not tested: {_why_missing(records, others, missing)}")
    if twice := sorted({f"{arm} {seed}" for arm, found in exams.items() for seed in found if len(found[seed]) > 1}):
        why = f"two finished runs of one arm at one root seed, {', '.join(twice)}: leave one of them out"
        return not_claimed(name, statement, control, f"not tested: {why}")
    single = {arm: {seed: one for seed, [one] in found.items()} for arm, found in exams.items()}
    ours = single[arm_of(records)]
    both = [[(ours[seed], single[arm][seed]) for seed in sorted(ours.keys() & single[arm].keys())] for arm in controls]
    if apart := sum(_differ(mine.levels, theirs.levels) for pairs in both for mine, theirs in pairs):
        why = f"{apart} exams of two arms at one root seed were at different levels: compare runs of climb_seeds=0"
        return not_claimed(name, statement, control, f"not tested: {why}")
    pairs = [[mine.gain - theirs.gain for mine, theirs in one] for one in both]
    n = min(len(differences) for differences in pairs)
    least = len(controls) / 2**n
    if n == 0 or least >= alpha:
        why = f"{n} root seeds that both have cannot bring p below {min(1.0, least):g}, and alpha is {alpha:g}"
        return not_claimed(name, statement, control, f"not tested: {why}{_left_out(records, others, exams)}")
    pairs = [differences[:MOST_PAIRS] for differences in pairs]
    adjusted = holm([sign_flip_p_value(differences) for differences in pairs])
    p, differences, arm = max(zip(adjusted, pairs, controls, strict=True))
    mean = math.fsum(differences) / len(differences)
    note = "root seeds paired" + (f"; shown is the weakest comparison, with {arm}" if len(controls) > 1 else "")
    if early := sum(arm_of(one) in exams and one.last("finish").get("state") == "limit" for one in runs):
        note += f"; runs that a limit ended, left out: {early}"
    note += _left_out(records, others, exams)
    evidence = Evidence("sealed", len(differences), mean, exact_interval(differences), p, note)
    reason = "" if p < alpha else f"not better than {arm} beyond noise: p = {p:.4f}, alpha {alpha:g}"
    return Claim(name, statement, control, not reason, reason, evidence)


def _exams(runs: Sequence[Records], arm: str) -> _Exams:
    """The exam on the sealed split of each finished run of an arm."""
    found: _Exams = defaultdict(list)
    for records in runs:
        finish, seed = records.last("finish"), str(records.last("run").get("root_seed"))
        if arm_of(records) != arm or finish.get("state") != "finished":
            continue
        sealed = next((pair.mean for pair in read_finals(records) if pair.split == "sealed"), None)
        promoted = any(line.body.get("promoted") is True for line in records.of("decision"))
        if sealed is not None:
            found[seed].append(_Exam(sealed, mapping(records.last("sealed").get("levels"))))
        elif not promoted:
            found[seed].append(_Exam(0.0, None))
    return found


def _differ(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> bool:
    """Whether two exams were not equally hard; where nothing was promoted, the gain is none at any level."""
    return ours is not None and theirs is not None and ours != theirs


def _apart(theirs: Records, ours: Records) -> tuple[str, ...]:
    """What two runs differ in besides their root seed and their arm; nothing where they can be compared."""
    return set_apart(theirs, ours, _MAY_DIFFER)


def _why_missing(records: Records, others: Sequence[Records], arms: Sequence[str]) -> str:
    """Why some arms have no exam to compare with: no such run is there, or the nearest one is set up otherwise."""
    finished = [other for other in others if other.last("finish").get("state") == "finished"]
    beside = {arm: [_apart(other, records) for other in finished if arm_of(other) == arm] for arm in arms}
    reasons = []
    if nobody := [_option(arm) for arm in arms if not beside[arm]]:
        reasons.append(f"no finished run with {' or '.join(nobody)} stands beside this one")
    for arm in arms:
        if beside[arm]:
            nearest = min(beside[arm], key=len)
            fault = f"is set up otherwise: {', '.join(nearest)}" if nearest else "held no exam"
            reasons.append(f"what stands beside this one with {_option(arm)} {fault}")
    return "; ".join(reasons)


def _left_out(records: Records, others: Sequence[Records], arms: Collection[str]) -> str:
    """How many runs of these arms are set up otherwise, and how the nearest of them is; empty where none is."""
    found = [apart for other in others if arm_of(other) in arms and (apart := _apart(other, records))]
    nearest = min(found, key=len, default=())
    return f"; runs set up otherwise, left out: {len(found)}, at best: {', '.join(nearest)}" if found else ""


def _option(arm: str) -> str:
    """What a person types to get a run of a control arm."""
    return f"{RECURSION}={arm}" if arm in CONTROLS else f"controller={arm}"
