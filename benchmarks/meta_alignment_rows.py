"""The four cells of the 2 x 2 study of meta-alignment, and what the ledger of one run says about the constraint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from selfimprove.archive.ledger import Entry
from selfimprove.archive.lineage import replay
from selfimprove.archive.records import Bodies, by_kind
from selfimprove.genome.fields import CONSTRAINT
from selfimprove.genome.recipe import PROTECTED
from selfimprove.loop.recovery import elapsed_seconds

Body = Mapping[str, Any]
WIRES = ("retention_fall", "retention_floor")
LOST, FAILS = "constraint not retained", "the constraint fails"  # in the reasons of the gate, and of a stage's reading


@dataclass(frozen=True)
class Arm:
    """One cell of the design.

    Attributes:
        editable: whether proposals may change the weight of the constraint's loss term.
        gate: whether a lost constraint stops anything.
    """

    editable: bool
    gate: bool

    @property
    def name(self) -> str:
        """For people."""
        return f"{'editable' if self.editable else 'protected'}, gate {'on' if self.gate else 'off'}"

    def __str__(self) -> str:
        """For folders."""
        return self.name.replace(", ", "-").replace(" ", "-")

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of ``experiment=meta_alignment``."""
        return (
            f"space.constraint_editable={str(self.editable).lower()}",
            f"inspection.retention_gate={str(self.gate).lower()}",
        )


ARMS = tuple(Arm(editable, gate) for editable in (False, True) for gate in (True, False))


def row_of(entries: Sequence[Entry], arm: Arm, seed: int) -> dict[str, Any]:
    """What a run's ledger says, by generation and at the end; a run that a tripwire paused has fewer generations."""
    bodies = by_kind((entry.kind, entry.body) for entry in entries)
    factors = {b["sha256"]: b["genome"]["recipe"].get("constraint_factor", PROTECTED) for b in bodies["genome"]}
    seed_score = next(b for b in bodies["score"] if b["generation"] == 0)
    champion = {
        "genome": seed_score["genome"],
        "factor": factors[seed_score["genome"]],
        "skill": seed_score["skill"],
        "retention": seed_score["retention"],
    }
    row = {"arm": {"editable": arm.editable, "gate": arm.gate}, "seed": seed, "seed_genome": champion}
    generations = []
    for closed in bodies["generation"]:
        found = _generation(closed, bodies, factors, champion)
        champion = found["champion"]
        generations.append(found)
    return row | {
        "generations": generations,
        "sealed": _sealed(bodies["sealed"]),
        "charged_flops": bodies["charge"][-1]["total"],
        "seconds": elapsed_seconds(entries),
        "lineage_sha256": replay(entries).sha256(),
    }


def _generation(closed: Body, bodies: Bodies, factors: Mapping[str, float], parent: Body) -> dict[str, Any]:
    """One generation: its proposals, its leader, and the champion that it leaves."""
    n = closed["generation"]
    confirmation = _first(bodies["confirmation"], n)
    decision = _first(bodies["decision"], n)
    leader = _leader(decision, confirmation, bodies["score"], factors) if decision else None
    champion = dict(parent)
    if leader is not None and leader["promoted"]:
        champion = {name: leader[name] for name in ("genome", "factor", "skill", "retention")}
    wires = _first(bodies["tripwire"], n) or {"readings": []}
    return {
        "generation": n,
        "promoted": closed["promoted"],
        "champion": champion,
        "leader": leader,
        "proposals": {
            **_touches([b for b in bodies["proposal"] if b["generation"] == n], factors, parent["factor"]),
            "forbidden": closed["forbidden"],
            "over_caps": closed["over_caps"],
            "stopped": sum(_stopped(body, n) for body in bodies["outcome"]),
        },
        "wires": {one["name"]: one["value"] for one in wires["readings"] if one["name"] in WIRES},
        "charged_flops": closed["charged_flops"],
    }


def _leader(
    decision: Body, confirmation: Body | None, scores: Iterable[Body], factors: Mapping[str, float]
) -> dict[str, Any]:
    """The leading candidate: at the gate where it was confirmed, else on the search split."""
    found = {"genome": decision["genome"], "factor": factors[decision["genome"]], "promoted": decision["promoted"]}
    found["refused"] = not decision["promoted"] and any(LOST in reason for reason in decision["reasons"])
    if confirmation is None:
        n, index = decision["generation"], decision["index"]
        score = next(b for b in scores if (b["generation"], b["index"]) == (n, index))
        return found | {"confirmed": False, "skill": score["skill"], "retention": score["retention"]}
    return found | {
        "confirmed": True,
        "skill": fmean(confirmation["candidate"]),
        "retention": confirmation["retention"],
        "difference": confirmation["difference"],
        "p_value": confirmation["p_value"],
    }


def _touches(proposals: Sequence[Body], factors: Mapping[str, float], parent: float) -> dict[str, int]:
    """How many proposals named the constraint, and which way those that were valid went from the parent's factor."""
    named = [any(edit.startswith(CONSTRAINT) for edit in body["edits"]) for body in proposals]
    made = [factors[body["genome"]] for body in proposals if body["status"] == "valid"]
    return {
        "n": len(proposals),
        "valid": len(made),
        "named": sum(named),
        "lowered": sum(factor < parent for factor in made),
        "raised": sum(factor > parent for factor in made),
    }


def _sealed(exams: Sequence[Body]) -> dict[str, Any] | None:
    """Champion against seed genome on the sealed split; None where nothing was promoted, or the run did not end."""
    if not exams:
        return None
    exam = exams[-1]["sealed"]
    return {
        "champion": exam["candidate"],
        "seed_genome": exam["parent_skill"],
        "difference": exam["difference"],
        "p_value": exam["p_value"],
        "retention": exam["retention"],
    }


def _stopped(outcome: Body, n: int) -> bool:
    """Whether a training was that of a candidate, and stopped between two stages for the constraint."""
    return outcome["key"].startswith(f"g{n:03d}/c") and "/s0" in outcome["key"] and FAILS in outcome["reason"]


def _first(bodies: Iterable[Body], generation: int) -> Body | None:
    return next((body for body in bodies if body["generation"] == generation), None)
