"""From rows of the recursion study to its claims: the planted truth goes through this page as the study does.

The quality of a run's proposals is its imp@k over the generations after its first promotion: until then all arms of a
root seed but `frozen`, which never learns, are one and the same run, and from the next generation on they differ by
what that promotion meant to their controller. The self-referential gain of an arm is its quality less that of a
control, paired by root seed. `none` is a control too: where extra training or a sham does harm, an arm that hands
nothing over would be ahead of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.paired import correct, paired
from selfimprove.controller.config import ARMS, INHERITING
from selfimprove.loop.statistics import MOST_PAIRS, exact_interval, sign_flip_p_value

K = "4"  # of the imp@k that is the quality
LEVEL = 0.05
CONTROLS = ("none", "extra", "sham")

Row = Mapping[str, Any]


def since(row: Row) -> int | None:
    """The generation of the first promotion; None without one."""
    return next((int(g["generation"]) for g in row["generations"] if g["promoted"]), None)


def quality(row: Row, k: str = K) -> float | None:
    """Mean imp@k over the generations after the first promotion that have one; None where there is none."""
    if (first := since(row)) is None:
        return None
    after = [float(g["imp"][k]) for g in row["generations"] if g["generation"] > first and g["imp"][k] is not None]
    return fmean(after) if after else None


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that the report says, JSON-ready."""
    contrasts = [_contrast(rows, arm, control) for arm in INHERITING for control in CONTROLS]
    correct(contrasts)
    return {
        "level": LEVEL,
        "k": int(K),
        "commits": sorted({str(row.get("commit", "")) for row in rows}),
        "overrides": sorted({" ".join(row.get("overrides", ())) for row in rows}),
        "arms": {arm: _arm([row for row in rows if row["arm"] == arm]) for arm in ARMS},
        "contrasts": contrasts,
        "claims": [arm for arm in INHERITING if _is_claimed(arm, contrasts)],
        "learning": _learning(rows),
    }


def _is_claimed(arm: str, contrasts: Sequence[Row]) -> bool:
    """Self-improvement is claimed only where something was handed over, and that beats every control."""
    mine = [one for one in contrasts if one["arm"] == arm]
    return all(one["handovers"] > 0 and one["mean"] > 0 and one["p_holm"] < LEVEL for one in mine)


def _contrast(rows: Sequence[Row], arm: str, control: str) -> dict[str, Any]:
    """Paired differences in quality, their mean, exact interval and one-sided exact p-value; what was handed over."""
    by_arm = {name: {row["seed"]: row for row in rows if row["arm"] == name} for name in (arm, control)}
    found = {}
    for seed in sorted(by_arm[arm].keys() & by_arm[control].keys()):
        ours, theirs = (quality(by_arm[name][seed]) for name in (arm, control))
        if ours is not None and theirs is not None:
            found[seed] = ours - theirs
    seeds = list(found)[:MOST_PAIRS]
    differences = [found[seed] for seed in seeds]
    accepted = sum(handover["accepted"] for seed in seeds for handover in by_arm[arm][seed]["handovers"])
    one = {"arm": arm, "control": control, "seeds": seeds, "differences": differences, "n": len(seeds)}
    one["handovers"] = accepted
    if not seeds:
        return one | {"mean": None, "interval": None, "p_value": None, "p_holm": None}
    p_value = sign_flip_p_value(differences)
    return one | {"mean": fmean(differences), "interval": exact_interval(differences), "p_value": p_value}


def _learning(rows: Sequence[Row]) -> dict[str, Any]:
    """Best skill of the controller that learns and never hands over, less that of the one that never learns."""
    learning, frozen = (
        {row["seed"]: row["best_skill"] for row in rows if row["arm"] == arm and row["best_skill"] is not None}
        for arm in ("none", "frozen")
    )
    shared = sorted(learning.keys() & frozen.keys())[:MOST_PAIRS]
    return paired([learning[seed] - frozen[seed] for seed in shared])


def _arm(rows: Sequence[Row]) -> dict[str, Any]:
    """What an arm cost and reached; means over its root seeds."""
    handovers = [one for row in rows for one in row["handovers"]]
    qualities = {k: [q for row in rows if (q := quality(row, k)) is not None] for k in ("1", K)}
    skills = [row["best_skill"] for row in rows if row["best_skill"] is not None]
    return {
        "n": len(rows),
        "promotions": sum(g["promoted"] for row in rows for g in row["generations"]),
        "contests": sum(one["p_value"] is not None for one in handovers),
        "accepted": sum(one["accepted"] for one in handovers),
        "best_skill": _mean(skills),
        "quality": {k: _mean(found) for k, found in qualities.items()},
        "around": around(rows),
        "charged_flops": _mean([row["charged_flops"] for row in rows]),
        "controller_flops": _mean([row["paid"]["controller"] for row in rows]),
    }


def around(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean imp@k in the generation of each accepted hand-over and in the one after it."""
    pairs = []
    for row in rows:
        imp = {g["generation"]: float(g["imp"][K]) for g in row["generations"] if g["imp"][K] is not None}
        accepted = [one["generation"] for one in row["handovers"] if one["accepted"]]
        pairs += [(imp[n], imp[n + 1]) for n in accepted if n in imp and n + 1 in imp]
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    return {"n": len(pairs), "before": _mean(before), "after": _mean(after)}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
