"""What the ledger of one run of the recursion study says: proposals, hand-overs, skill and what it all cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.arms import shared
from selfimprove.archive.ledger import Entry
from selfimprove.archive.records import Bodies, by_kind, gains_are_known
from selfimprove.loop.improvement import imp_at_k
from selfimprove.loop.laboratory import best_skill

KS = (1, 4)  # of imp@k
Body = Mapping[str, Any]


def row_of(entries: Sequence[Entry], arm: str, seed: int) -> dict[str, Any]:
    """One run as a line of the study, JSON-ready."""
    bodies = by_kind((entry.kind, entry.body) for entry in entries)
    costs = shared(entries, bodies)
    return {
        "arm": arm,
        "seed": seed,
        "generations": [_generation(closed, bodies) for closed in bodies["generation"]],
        "handovers": [_handover(body) for body in bodies["handover"]],
        "best_skill": best_skill(bodies["decision"], bodies["confirmation"], bodies["score"]),
        "charged_flops": sum(costs["paid"].values()),
        **costs,
    }


def generation_row(n: int, promoted: bool, gains: Sequence[float | None], fresh: Sequence[float | None]) -> Body:
    """What a row says of one generation; ``gains`` and ``fresh``: see ``imp_at_k``, one a proposal."""
    imp = {str(k): imp_at_k(gains, min(k, len(gains)), fresh) for k in KS}
    return {"generation": n, "promoted": promoted, "proposals": len(gains), "imp": imp}


def _generation(closed: Body, bodies: Bodies) -> dict[str, Any]:
    """Gains on the search seeds; what was confirmed counts with what it gained on fresh ones.

    Of a generation whose parent could not be trained again no gain is known, and so no imp@k.
    """
    n = closed["generation"]
    scores, confirmed = ({b["index"]: b for b in bodies[k] if b["generation"] == n} for k in _MEASURED)
    known = (b for b in bodies["reference"] if b["generation"] == n and gains_are_known(b))
    reference = next((b["skill"] for b in known), None)
    indices = [b["index"] for b in bodies["proposal"] if b["generation"] == n]
    gains = [scores[i]["skill"] - reference if i in scores and reference is not None else None for i in indices]
    fresh = [confirmed[i]["difference"] if i in confirmed else None for i in indices]
    spent = {"charged_flops": closed["charged_flops"], "best_skill": closed["best_skill"]}
    row = {**generation_row(n, closed["promoted"], gains, fresh), **spent}
    return row if reference is not None else row | {"imp": dict.fromkeys(row["imp"])}


def _handover(body: Body) -> dict[str, Any]:
    comparison = body["comparison"] or {}
    figures = {name: comparison.get(name) for name in ("n", "succeeded", "difference", "p_value")}
    kept = {name: body[name] for name in ("generation", "accepted", "contender", "incumbent", "reasons", "extra_flops")}
    return {**kept, **figures}


_MEASURED = ("score", "confirmation")
