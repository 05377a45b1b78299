"""Claims that one run cannot make: about the controller, from runs of several arms that share their root seeds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfimprove.app.report.claim_evidence import Claim, Evidence, not_claimed
from selfimprove.app.report.comparisons import read_finals
from selfimprove.app.report.records import Records, mapping
from selfimprove.canonical import finite
from selfimprove.controller.config import INHERITING
from selfimprove.loop.statistics import MOST_PAIRS, exact_interval, holm, sign_flip_p_value

CONTROLS = {
    "none": "no hand-over at all",  # where the other two do harm, whoever hands nothing over is ahead of them
    "extra": "the same extra training without a new genome",
    "sham": "sham promotion of a random valid genome",
}
_OF_AN_ARM = ("name", "recursion")  # of the controller's configuration
_ALONE = ("seed", "experiment")  # what two comparable runs may differ in beside that


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
    fit = [records, *(other for other in others if _comparable(records, other))]
    runs = list({str(one.last("run").get("run_id")): one for one in reversed(fit)}.values())  # this one may be beside
    exams = {arm: _exams(runs, arm) for arm in (arm_of(records), *controls)}
    alpha = finite(mapping(records.last("run").get("config")).get("alpha")) or 0.01
    if missing := [arm for arm in controls if not exams[arm]]:
        why = f"no finished run with controller {' and '.join(missing)} stands beside this one"
        return not_claimed(name, statement, control, f"not tested: {why}")
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
        return not_claimed(name, statement, control, f"not tested: {why}")
    pairs = [differences[:MOST_PAIRS] for differences in pairs]
    adjusted = holm([sign_flip_p_value(differences) for differences in pairs])
    p, differences, arm = max(zip(adjusted, pairs, controls, strict=True))
    mean = math.fsum(differences) / len(differences)
    note = "root seeds paired" + (f"; shown is the weakest comparison, with {arm}" if len(controls) > 1 else "")
    if early := sum(arm_of(one) in exams and one.last("finish").get("state") == "limit" for one in runs):
        note += f"; runs that a limit ended, left out: {early}"
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


def _comparable(ours: Records, theirs: Records) -> bool:
    """Whether two runs differ in nothing but their root seed and their arm."""
    return _setting(ours) == _setting(theirs) != {}


def _setting(records: Records) -> dict[str, Any]:
    config = dict(mapping(records.last("run").get("config")))
    controller: Mapping[str, Any] = mapping(config.pop("controller", None))
    learning = {key: value for key, value in controller.items() if key not in _OF_AN_ARM}
    return {**{key: value for key, value in config.items() if key not in _ALONE}, "controller": learning}
