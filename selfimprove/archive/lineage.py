"""The lineage: the tree of genomes with the edit on every edge, a pure replay of the ledger.

Records are collected by what they are about and put in order of (generation, index), so the order in which a
generation's outcomes reached the ledger does not matter. Where two records of a kind are about the same thing the first
one counts: what was decided is replayed, never decided again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfimprove.archive.chain import Entry
from selfimprove.archive.records import job_place
from selfimprove.canonical import canonical
from selfimprove.errors import LedgerError

SEED_INDEX = -1  # the seed comes before every candidate of its generation

# What the lineage hash covers of each record: results and choices; no times, paths, usage, run id or lost FLOPs.
_SCORE = ("split", "seeds", "skill", "tasks", "retention")
_CONFIRMATION = (
    "parent", "split", "seeds", "candidate", "parent_skill", "difference", "p_value", "tasks", "retention",
)  # fmt: skip
_DECISION = ("promoted",)


@dataclass(frozen=True)
class Node:
    """One proposal, or the seed.

    Attributes:
        genome_sha256: ``None`` when no genome came of the proposal.
        parent: genome hash of the parent; ``None`` for the seed.
        edits: text of each edit on the edge from the parent.
        generation, index: place in the run; the seed has index -1.
        status: seed, invalid, duplicate, denied, pending, failed, scored, rejected or promoted.
        score, confirmation, decision: bodies of the records about it; ``None`` without one.
    """

    genome_sha256: str | None
    parent: str | None
    edits: tuple[str, ...]
    generation: int
    index: int
    status: str
    score: Mapping[str, Any] | None = None
    confirmation: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Lineage:
    """All nodes of a run.

    Attributes:
        seed: the genome that the run started from.
        nodes: every proposal in order of (generation, index), without the seed.
    """

    seed: Node
    nodes: tuple[Node, ...]

    def sha256(self) -> str:
        """Hash over genomes, edits, statuses, scores, confirmations and decisions in order of (generation, index).

        Equal for two runs that found the same things: times, paths, resource usage, run id, FLOPs lost to crashes and
        the wording of reasons are left out.
        """
        return hashlib.sha256(canonical([_essence(node) for node in (self.seed, *self.nodes)])).hexdigest()


@dataclass
class _Records:
    """Bodies by kind and by what they are about, while replaying."""

    run: Mapping[str, Any] | None = None
    genomes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    placed: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = field(default_factory=dict)
    failures: set[tuple[int | None, int | None]] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        body = entry.body
        if entry.kind == "run":
            self.run = self.run or body
        elif entry.kind == "genome":
            self.genomes.setdefault(body["sha256"], body["genome"])
        elif entry.kind in _PLACED:
            self.placed.setdefault(entry.kind, {}).setdefault((body["generation"], body["index"]), body)
        elif entry.kind == "outcome" and body.get("status") != "completed":
            self.failures.add(job_place(str(body.get("key", ""))))


_PLACED = frozenset({"proposal", "denial", "score", "confirmation", "decision"})


def replay(entries: Iterable[Entry]) -> Lineage:
    """Rebuild the lineage from ledger entries; kinds that it does not need are passed over.

    Raises:
        LedgerError: no ``run`` entry, or a record without the fields of its kind.
    """
    records = _Records()
    for entry in entries:
        try:
            records.add(entry)
        except (KeyError, TypeError) as error:
            raise LedgerError(f"replay ledger entry {entry.index} ({entry.kind})", str(error), "its fields") from error
    if records.run is None:
        raise LedgerError("replay a ledger", limit="one with a run entry")
    proposals = records.placed.get("proposal", {})
    nodes = tuple(_node(place, proposals[place], records) for place in sorted(proposals))
    return Lineage(_seed(records), nodes)


def _seed(records: _Records) -> Node:
    genome = (records.run or {}).get("seed_genome")
    if not isinstance(genome, Mapping):
        raise LedgerError("replay a ledger", limit="a run entry with seed_genome")
    sha256 = next((sha for sha, known in records.genomes.items() if known == genome), None)
    if sha256 is None:
        from selfimprove.genome.genome import Genome  # only a run cut off before its first genome record needs it

        sha256 = Genome.from_json(dict(genome)).sha256

    proposals, scores = records.placed.get("proposal", {}), sorted(records.placed.get("score", {}).items())
    own = (body for place, body in scores if place not in proposals and body.get("genome") == sha256)
    return Node(sha256, None, (), 0, SEED_INDEX, "seed", score=next(own, None))


def _node(place: tuple[int, int], proposal: Mapping[str, Any], records: _Records) -> Node:
    about = {kind: records.placed.get(kind, {}).get(place) for kind in _PLACED}
    return Node(
        genome_sha256=proposal.get("genome"),
        parent=proposal.get("parent"),
        edits=tuple(proposal.get("edits", ())),
        generation=place[0],
        index=place[1],
        status=_status(proposal, about, failed=place in records.failures),
        score=about["score"],
        confirmation=about["confirmation"],
        decision=about["decision"],
    )


def _status(proposal: Mapping[str, Any], about: Mapping[str, Mapping[str, Any] | None], *, failed: bool) -> str:
    if (decision := about["decision"]) is not None:
        return "promoted" if decision.get("promoted") else "rejected"
    if about["score"] is not None:
        return "scored"
    if proposal.get("status") in ("invalid", "duplicate"):
        return str(proposal["status"])
    if about["denial"] is not None:
        return "denied"
    return "failed" if failed else "pending"


def _essence(node: Node) -> dict[str, Any]:
    return {
        "genome": node.genome_sha256,
        "parent": node.parent,
        "edits": list(node.edits),
        "generation": node.generation,
        "index": node.index,
        "status": node.status,
        "score": _pick(node.score, _SCORE),
        "confirmation": _pick(node.confirmation, _CONFIRMATION),
        "decision": _pick(node.decision, _DECISION),
    }


def _pick(body: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    return None if body is None else {name: body[name] for name in names if name in body}
