"""What a run looks like so far: a plain fold over ledger records, for progress lines, tables and tracking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selfimprove.app.units import count
from selfimprove.archive.records import FINAL, job_place

Body = Mapping[str, Any]
Stand = tuple[int, str, bool]
"""A hand-over in short: its generation, the contender's genome (empty where nobody stood), whether it took over."""
Place = tuple[int, int]
"""Generation and index of a candidate."""

WORDS_OF_FAILURE = {
    "ask": "the controller failed to propose, and random proposals took its place",
    "controller": "the controller did not learn",
}
"""What it means where such a record has a reason."""

SEARCH = frozenset(
    {
        *("run", "proposal", "denial", "charge", "outcome", "score", "reference", "confirmation", "decision", "climb"),
        *("controller", "generation"),
    }
)
"""Kinds that say how good proposals were."""


@dataclass
class CandidateRow:
    """One proposal and what became of it."""

    generation: int
    index: int
    edits: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    status: str = "valid"  # valid, invalid, duplicate, denied, stopped, failed, scored, promoted, rejected
    genome: str = ""
    parent: str = ""
    skill: float | None = None
    retention: float | None = None
    flops: int = 0
    reason: str = ""


@dataclass
class RunView:
    """Live totals. Only :meth:`apply` changes them."""

    run_id: str = ""
    experiment: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    limit_flops: int = 0
    charged_flops: int = 0
    accounts: dict[str, int] = field(default_factory=dict)  # FLOPs charged to each
    generation: int = 0  # generations completed
    best_skill: float | None = None
    denied: int = 0
    failed: int = 0
    last_decision: str = ""
    champion: str = ""
    generations: dict[int, dict[str, Any]] = field(default_factory=dict)
    candidates: dict[Place, CandidateRow] = field(default_factory=dict)
    inspections: list[dict[str, Any]] = field(default_factory=list)
    confirmations: dict[int, dict[str, Any]] = field(default_factory=dict)
    controllers: dict[int, dict[str, Any]] = field(default_factory=dict)  # their inspections
    genomes: dict[str, Body] = field(default_factory=dict)  # by hash
    handovers: dict[int, Body] = field(default_factory=dict)
    checkpoints: dict[Place, Body] = field(default_factory=dict)  # of whole trainings
    searched: list[tuple[str, Body]] = field(default_factory=list)  # records of ``SEARCH``, as they came

    @property
    def planned(self) -> int:
        """Generations that the configuration asks for; 0 when unknown."""
        return int(self.config.get("generations", 0))

    @property
    def stands(self) -> list[Stand]:
        """Its hand-overs in short, in order."""
        return [
            (generation, str(body.get("contender") or ""), body["accepted"] is True)
            for generation, body in sorted(self.handovers.items())
        ]

    @property
    def budget_left(self) -> float | None:
        """Share of the FLOP limit that is left, 0 to 1; None when there is no limit on record."""
        return max(0.0, 1 - self.charged_flops / self.limit_flops) if self.limit_flops else None

    def apply(self, kind: str, body: Body) -> None:
        """Take in one record; kinds that nothing here shows are ignored."""
        if kind in SEARCH:
            self.searched.append((kind, body))
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, body)

    def row(self, body: Body) -> CandidateRow:
        """The candidate that a record speaks of, created when it is new."""
        place = (int(body["generation"]), int(body["index"]))
        return self.candidates.setdefault(place, CandidateRow(*place))


def _run(view: RunView, body: Body) -> None:
    view.run_id, view.experiment = str(body["run_id"]), str(body["experiment"])
    view.config = body.get("config", {})
    view.limit_flops = int(body.get("limits", {}).get("flops", 0))


def _genome(view: RunView, body: Body) -> None:
    view.genomes[str(body["sha256"])] = body["genome"]


def _proposal(view: RunView, body: Body) -> None:
    row = view.row(body)
    row.edits, row.kinds = tuple(body["edits"]), tuple(body["kinds"])
    row.status, row.reason, row.genome = body["status"], body.get("reason", ""), body.get("genome") or ""
    row.parent = str(body.get("parent") or "")
    view.denied += row.status == "invalid"


def _denial(view: RunView, body: Body) -> None:
    row = view.row(body)
    row.status, row.reason = "denied", str(body["reason"])
    view.denied += 1


def _charge(view: RunView, body: Body) -> None:
    view.charged_flops = int(body["total"])
    account = str(body.get("account", ""))
    view.accounts[account] = view.accounts.get(account, 0) + int(body["flops"])
    row = _row(view, body)
    if row is not None:
        row.flops += int(body["flops"])


def _outcome(view: RunView, body: Body) -> None:
    row = _row(view, body)
    if row is not None and body["status"] != "completed" and row.status == "valid":
        row.status = "stopped" if body["status"] == "stopped" else "failed"
        row.reason = str(body.get("reason", ""))
        view.failed += row.status == "failed"


def _score(view: RunView, body: Body) -> None:
    if body.get("index") is None or body["index"] < 0:
        return
    row = view.row(body)
    row.skill, row.status = float(body["skill"]), "scored"
    retention = body.get("retention") or {}
    row.retention = retention["kept"] / retention["n"] if retention.get("n") else None


def _confirmation(view: RunView, body: Body) -> None:
    view.confirmations[int(body["generation"])] = dict(body)


def _inspection(view: RunView, body: Body) -> None:
    view.inspections.append(dict(body))


def _controller_inspection(view: RunView, body: Body) -> None:
    view.controllers[int(body["generation"])] = dict(body)


def _decision(view: RunView, body: Body) -> None:
    row = view.row(body)
    row.status = "promoted" if body["promoted"] else "rejected"
    row.reason = "; ".join(body.get("reasons", ()))
    verdict = "promoted" if body["promoted"] else "kept the parent over"
    edits = f" ({', '.join(row.edits)})" if row.edits else ""
    view.last_decision = f"{verdict} {row.genome[:10] or 'the candidate'}{edits}"


def _handover(view: RunView, body: Body) -> None:
    verdict = "takes over" if body["accepted"] else "does not take over"
    contender = f"contender {body['contender'][:10]} {verdict}: " if body["contender"] else ""
    view.handovers[int(body["generation"])] = body
    view.last_decision = f"controller: {contender}{'; '.join(body['reasons'])}"


def _checkpoint(view: RunView, body: Body) -> None:
    if body.get("stage", FINAL) == FINAL:
        view.checkpoints[int(body["generation"]), int(body["index"])] = body


def _generation(view: RunView, body: Body) -> None:
    number = int(body["generation"])
    view.generations[number] = dict(body)
    view.generation = max(view.generation, len(view.generations))
    view.champion = str(body["champion"])
    view.best_skill = float(body["best_skill"])
    view.charged_flops = int(body.get("charged_flops", view.charged_flops))


def succession(handovers: Sequence[Stand]) -> str:
    """Who rules as controller, in one line; empty where no promotion has raised the question.

    >>> succession([(1, "", False), (2, "5d0c", True)])
    '1 contender after 2 promotions, 1 accepted; genome 5d0c rules since generation 2'
    """
    if not handovers:
        return ""
    stood = [one for one in handovers if one[1]]
    accepted = [(generation, contender) for generation, contender, took_over in stood if took_over]
    line = f"{count(len(stood), 'contender')} after {count(len(handovers), 'promotion')}, {len(accepted)} accepted"
    if not accepted:
        return f"{line}; the first genome rules"
    generation, contender = accepted[-1]
    return f"{line}; genome {contender[:10]} rules since generation {generation}"


def _row(view: RunView, body: Body) -> CandidateRow | None:
    """The candidate that a job's record is about; None for work that belongs to no single candidate."""
    generation, index = job_place(str(body["key"]))
    return None if generation is None or index is None else view.candidates.get((generation, index))


_HANDLERS = {
    "run": _run,
    "genome": _genome,
    "proposal": _proposal,
    "denial": _denial,
    "charge": _charge,
    "outcome": _outcome,
    "score": _score,
    "confirmation": _confirmation,
    "inspection": _inspection,
    "controller_inspection": _controller_inspection,
    "decision": _decision,
    "handover": _handover,
    "checkpoint": _checkpoint,
    "generation": _generation,
}
