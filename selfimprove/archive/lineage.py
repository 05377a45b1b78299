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
        genome: its JSON; ``None`` likewise.
        parent: genome hash of the parent; ``None`` for the seed.
        edits: text of each edit on the edge from the parent.
        kinds: of the edits: architecture, objective, recipe.
        generation, index: place in the run; the seed has index -1.
        status: seed, invalid, duplicate, denied, pending, failed, scored, rejected or promoted.
        reason: why it is invalid, duplicate, denied or failed; empty otherwise.
        score, confirmation, decision, inspection, checkpoint: bodies of the records about it; ``None`` without one.
    """

    genome_sha256: str | None
    genome: Mapping[str, Any] | None
    parent: str | None
    edits: tuple[str, ...]
    kinds: tuple[str, ...]
    generation: int
    index: int
    status: str
    reason: str = ""
    score: Mapping[str, Any] | None = None
    confirmation: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None
    inspection: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None

    @property
    def skill(self) -> float | None:
        """Mean skill on the search split; ``None`` when it was not scored."""
        return float(self.score["skill"]) if self.score and self.score.get("skill") is not None else None

    @property
    def promoted(self) -> bool:
        return self.status == "promoted"


@dataclass(frozen=True)
class Lineage:
    """All nodes of a run.

    Attributes:
        seed: the genome that the run started from.
        nodes: every proposal in order of (generation, index), without the seed.
        generations: bodies of the ``generation`` records, in order.
    """

    seed: Node
    nodes: tuple[Node, ...]
    generations: tuple[Mapping[str, Any], ...] = ()

    @property
    def decisions(self) -> tuple[Mapping[str, Any], ...]:
        """Bodies of the ``decision`` records in order of (generation, index)."""
        return tuple(node.decision for node in self.nodes if node.decision is not None)

    def champion(self) -> Node:
        """The node promoted last, or the seed."""
        return next((node for node in reversed(self.nodes) if node.promoted), self.seed)

    def find(self, genome_sha256: str) -> Node:
        """The node that brought this genome in: the seed, or the earliest proposal of it that was not a duplicate.

        Raises:
            LedgerError: no node has this genome.
        """
        same = [node for node in (self.seed, *self.nodes) if node.genome_sha256 == genome_sha256]
        if not same:
            raise LedgerError("find a genome in the lineage", genome_sha256, "genomes of this run")
        return next((node for node in same if node.status != "duplicate"), same[0])

    def path_to_root(self, genome_sha256: str | None = None) -> tuple[Node, ...]:
        """The nodes from a genome (by default the champion) to the seed, both included.

        Raises:
            LedgerError: a genome or an ancestor that this run does not have.
        """
        node = self.champion() if genome_sha256 is None else self.find(genome_sha256)
        path = [node]
        while node.parent is not None:
            node = self.find(node.parent)
            if node in path:
                raise LedgerError("walk the lineage to its root", node.genome_sha256, "a tree without cycles")
            path.append(node)
        return tuple(path)

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
    generations: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    placed: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = field(default_factory=dict)
    failures: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        body = entry.body
        if entry.kind == "run":
            self.run = self.run or body
        elif entry.kind == "genome":
            self.genomes.setdefault(body["sha256"], body["genome"])
        elif entry.kind == "generation":
            self.generations.setdefault(body["generation"], body)
        elif entry.kind in _PLACED:
            self.placed.setdefault(entry.kind, {}).setdefault((body["generation"], body["index"]), body)
        elif entry.kind == "outcome" and body.get("status") != "completed":
            self._add_failure(str(body.get("key", "")), f"{body.get('status')}: {body.get('reason', '')}")

    def _add_failure(self, key: str, reason: str) -> None:
        place = _place(key)
        if place is not None:
            self.failures[place] = min(self.failures.get(place, (key, reason)), (key, reason))


_PLACED = frozenset({"proposal", "denial", "score", "confirmation", "decision", "inspection", "checkpoint"})


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
    generations = tuple(body for _, body in sorted(records.generations.items()))
    return Lineage(_seed(records), nodes, generations)


def _seed(records: _Records) -> Node:
    genome = (records.run or {}).get("seed_genome")
    if not isinstance(genome, Mapping):
        raise LedgerError("replay a ledger", limit="a run entry with seed_genome")
    sha256 = next((sha for sha, known in records.genomes.items() if known == genome), None)
    if sha256 is None:
        from selfimprove.genome.genome import Genome  # only a run cut off before its first genome record needs it

        sha256 = Genome.from_json(dict(genome)).sha256

    def own(kind: str) -> Mapping[str, Any] | None:
        """The first record about the seed that is not about a proposal."""
        proposals = records.placed.get("proposal", {})
        placed = sorted(records.placed.get(kind, {}).items())
        return next((body for place, body in placed if place not in proposals and body.get("genome") == sha256), None)

    return Node(
        sha256, genome, None, (), (), 0, SEED_INDEX, "seed",
        score=own("score"), inspection=own("inspection"), checkpoint=own("checkpoint"),
    )  # fmt: skip


def _node(place: tuple[int, int], proposal: Mapping[str, Any], records: _Records) -> Node:
    about = {kind: records.placed.get(kind, {}).get(place) for kind in _PLACED}
    sha256 = proposal.get("genome")
    status, reason = _status(proposal, about, records.failures.get(place))
    return Node(
        genome_sha256=sha256,
        genome=records.genomes.get(sha256) if sha256 is not None else None,
        parent=proposal.get("parent"),
        edits=tuple(proposal.get("edits", ())),
        kinds=tuple(proposal.get("kinds", ())),
        generation=place[0],
        index=place[1],
        status=status,
        reason=reason,
        score=about["score"],
        confirmation=about["confirmation"],
        decision=about["decision"],
        inspection=about["inspection"],
        checkpoint=about["checkpoint"],
    )


def _status(
    proposal: Mapping[str, Any], about: Mapping[str, Mapping[str, Any] | None], failure: tuple[str, str] | None
) -> tuple[str, str]:
    decision, denial = about["decision"], about["denial"]
    if decision is not None:
        return ("promoted" if decision.get("promoted") else "rejected"), ""
    if about["score"] is not None:
        return "scored", ""
    if proposal.get("status") in ("invalid", "duplicate"):
        return str(proposal["status"]), str(proposal.get("reason", ""))
    if denial is not None:
        return "denied", str(denial.get("reason", ""))
    return ("failed", failure[1]) if failure is not None else ("pending", "")


def _place(key: str) -> tuple[int, int] | None:
    """(generation, index) of a candidate's job key such as ``g003/c05/s1``; ``None`` for other keys."""
    generation, _, rest = key.partition("/")
    index = rest.partition("/")[0]
    if generation[:1] == "g" and index[:1] == "c" and generation[1:].isdecimal() and index[1:].isdecimal():
        return int(generation[1:]), int(index[1:])
    return None


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
