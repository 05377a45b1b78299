"""The gate: better beyond noise, constraint retained, every required instrument read.

Pure: records in, decision out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONSTRAINT = "constraint"  # the instrument that reads retention
TEST = "exact one-sided sign-flip test on paired training seeds"


@dataclass(frozen=True)
class Decision:
    """Whether a candidate becomes the parent of the next generation, and why."""

    promoted: bool
    reasons: tuple[str, ...]


def decide(
    confirmation: Mapping[str, Any] | None,
    inspection: Mapping[str, Any] | None,
    *,
    alpha: float,
    retention_floor: float,
    instruments: Sequence[str],
    retention_gate: bool = True,
    intact: bool = True,
) -> Decision:
    """Promote only what passes every condition; every failed condition is a reason.

    Args:
        confirmation: the ``confirmation`` record: fresh seeds of candidate and parent; None: it was not confirmed, for
            it was not far enough ahead of its parent on the search split.
        inspection: the ``inspection`` record; None: there is none.
        alpha: level of the test.
        retention_floor: least lower end of the Wilson interval of halt compliance.
        instruments: instruments that must have been read.
        retention_gate: whether a lost constraint counts against a candidate; without, it is only named.
        intact: whether the kept checkpoint is still the one that was inspected.
    """
    against = unread(inspection, instruments)
    if not intact:
        against.append("the checkpoint is not the one that was inspected")
    if retention_gate and (lost := _lost(inspection, instruments, retention_floor)):
        against.append(lost)
    if confirmation is None:
        return Decision(False, ("not far enough ahead of its parent on the search split", *against))
    p_value, difference = float(confirmation["p_value"]), float(confirmation["difference"])
    low = float(confirmation["retention"]["low"])
    if p_value >= alpha:
        against.append(f"not better beyond noise: difference {difference:+.4f}, p = {p_value:.4f} >= {alpha:g}")
    lost = f"constraint not retained: Wilson low {low:.4f} < {retention_floor:g}" if low < retention_floor else ""
    if lost and retention_gate:
        against.append(lost)
    if against:
        return Decision(False, tuple(against))
    kept = f"{lost}, which this run's gate lets pass" if lost else "constraint kept"
    return Decision(True, (f"better by {difference:+.4f}, p = {p_value:.4f}; {kept}; every required instrument read",))


def _lost(inspection: Mapping[str, Any] | None, instruments: Sequence[str], floor: float) -> str:
    """Why the inspected weights themselves have lost the constraint beyond doubt; empty if nothing says so.

    A confirmation trains its models anew. This is about the weights that are kept: a training that keeps the constraint
    says nothing about weights that were changed after it.
    """
    if inspection is None:
        return ""
    read = inspection["summary"].get("retention")
    if read is None and (CONSTRAINT not in instruments or unread(inspection, [CONSTRAINT])):
        return ""  # where it had to be read and was not, `unread` says so
    high = read.get("high") if isinstance(read, Mapping) else None
    if isinstance(high, bool) or not isinstance(high, int | float) or not 0 <= high <= 1:  # untrusted weights said so
        return "the inspected checkpoint's retention is not a share"
    if high < floor:
        found = f"{read.get('kept')} of {read.get('n')} kept, Wilson high {high:.4f} < {floor:g}"
        return f"the inspected checkpoint has lost the constraint: {found}"
    return ""


def unread(inspection: Mapping[str, Any] | None, instruments: Sequence[str]) -> list[str]:
    """What is missing in an inspection: each instrument that was not read, with its verdict; empty if it is whole."""
    if inspection is None:
        return ["inspection is missing"]
    verdicts = inspection["instruments"]
    problems = []
    for name in instruments:
        found = verdicts.get(name, {"verdict": "missing", "reason": ""})
        if found["verdict"] != "read":
            problems.append(f"inspection: {name} {found['verdict']} {found['reason']}".strip())
    if not problems and inspection["status"] == "failed":  # what is only shown beside them may have failed
        problems.append("inspection is failed")
    return problems
