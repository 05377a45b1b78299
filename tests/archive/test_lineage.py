from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.archive.chain import Entry
from selfimprove.archive.ledger import Ledger, read
from selfimprove.archive.lineage import Lineage, replay
from selfimprove.errors import LedgerError
from selfimprove.genome.genome import seed_genome

if TYPE_CHECKING:
    from .conftest import Key, Run

Record = tuple[str, dict[str, Any]]
SEED = "s" * 64
RUN: Record = ("run", {"run_id": "r", "seed_genome": {"width": 64}})
SEED_RECORD: Record = ("genome", {"sha256": SEED, "genome": {"width": 64}})
STATUSES = ("invalid", "duplicate", "denied", "failed", "pending", "scored", "rejected", "promoted")


def entries(records: Iterable[Record]) -> list[Entry]:
    """Entries with nothing but their place in order, kind and body."""
    return [Entry(index, f"t{index}", kind, body, "", "", "") for index, (kind, body) in enumerate(records)]


def candidate(generation: int, index: int, status: str, *, parent: str = SEED, skill: float = 0.5) -> list[Record]:
    """The records that a candidate of this fate leaves."""
    place = {"generation": generation, "index": index}
    sha = f"{generation:02d}{index:02d}" * 16
    named = sha if status != "invalid" else None
    proposed = status if status in ("invalid", "duplicate") else "valid"
    fields = {"parent": parent, "edits": ["recipe.batch=8"], "kinds": ["recipe"], "reason": "because"}
    records: list[Record] = [("proposal", {**place, **fields, "status": proposed, "genome": named})]
    if proposed == "valid":
        records.append(("genome", {"sha256": sha, "genome": {"width": 100 * generation + index}}))
    key = f"g{generation:03d}/c{index:02d}/s1"
    if status == "denied":
        records.append(("denial", {**place, "genome": sha, "reason": "too dear", "limit": "flops"}))
    if status == "failed":
        records.append(("outcome", {"key": key, "status": "crashed", "reason": "boom", "files": {}}))
    if status in ("scored", "rejected", "promoted"):
        records.append(("outcome", {"key": key, "status": "completed", "reason": "", "files": {}}))
        records.append(("score", {**place, "genome": sha, "split": "search", "seeds": 2, "skill": skill}))
    if status in ("rejected", "promoted"):
        records.append(("confirmation", {**place, "genome": sha, "parent": parent, "p_value": 0.004, "seeds": [1]}))
        records.append(("decision", {**place, "genome": sha, "promoted": status == "promoted", "reasons": ["r"]}))
    return records


def history(fates: list[list[tuple[str, float]]]) -> list[Record]:
    """All records of a run whose generations had these fates (status, skill)."""
    records = [RUN, SEED_RECORD]
    for generation, candidates in enumerate(fates, start=1):
        for index, (status, skill) in enumerate(candidates):
            records += candidate(generation, index, status, skill=skill)
        records.append(("generation", {"generation": generation, "champion": SEED}))
    return records


fates = st.lists(
    st.lists(st.tuples(st.sampled_from(STATUSES), st.floats(0, 1)), min_size=1, max_size=5), min_size=1, max_size=4
)


@pytest.mark.parametrize("status", STATUSES)
def test_a_node_has_the_fate_that_its_records_tell(status: str) -> None:
    (node,) = replay(entries([RUN, SEED_RECORD, *candidate(1, 0, status)])).nodes
    assert node.status == status
    assert node.parent == SEED
    assert node.edits == ("recipe.batch=8",)


@given(fates, st.randoms(use_true_random=False))
def test_the_order_in_which_records_arrive_does_not_matter(
    fates: list[list[tuple[str, float]]], shuffle: random.Random
) -> None:
    records = history(fates)
    lineage = replay(entries(records))
    shuffle.shuffle(records)
    again = replay(entries(records))
    assert again == lineage
    assert again.sha256() == lineage.sha256()


@given(fates)
@settings(max_examples=15)
def test_a_reopened_ledger_replays_to_the_same_lineage(key: Key, fates: list[list[tuple[str, float]]]) -> None:
    records = history(fates)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        with Ledger.create(path, key, None, RUN[1]) as ledger:
            for kind, body in records[1:]:
                ledger.append(kind, body)
            live = replay(ledger.entries)
        assert replay(read(path)) == live
        assert live.sha256() == replay(entries(records)).sha256()


class TestHash:
    BASE = history([[("promoted", 0.5), ("failed", 0.0), ("denied", 0.0)]])

    def changed(self, kind: str, **fields: Any) -> str:
        records = [(name, {**body, **fields} if name == kind else body) for name, body in self.BASE]
        return replay(entries(records)).sha256()

    @pytest.mark.parametrize(
        ("kind", "fields"),
        [
            ("proposal", {"edits": ["recipe.batch=16"]}),
            ("proposal", {"parent": "p" * 64}),
            ("score", {"skill": 0.5000001}),
            ("score", {"tasks": {"recall": {"skill": 1}}}),
            ("confirmation", {"p_value": 0.005}),
            ("decision", {"promoted": False}),
        ],
    )
    def test_it_covers_what_was_found_and_decided(self, kind: str, fields: dict[str, Any]) -> None:
        assert self.changed(kind, **fields) != replay(entries(self.BASE)).sha256()

    @pytest.mark.parametrize(
        ("kind", "fields"),
        [
            ("run", {"run_id": "another", "device": "cuda"}),
            ("outcome", {"usage": {"wall_seconds": 12.5}, "reason": "other words"}),
            ("decision", {"reasons": ["other words"]}),
            ("denial", {"reason": "other words"}),
            ("generation", {"charged_flops": 7}),
        ],
    )
    def test_it_leaves_out_usage_paths_names_and_wording(self, kind: str, fields: dict[str, Any]) -> None:
        assert self.changed(kind, **fields) == replay(entries(self.BASE)).sha256()

    def test_records_that_a_crash_leaves_behind_do_not_enter_it(self) -> None:
        extra: list[Record] = [
            ("recovery", {"path": "recovered/ledger-9.part"}),
            ("charge", {"key": "g001/c00/s1", "account": "lost", "flops": 5, "total": 5}),
            ("resume", {}),
            ("a kind from the future", {"x": 1}),
        ]
        assert replay(entries(self.BASE + extra)).sha256() == replay(entries(self.BASE)).sha256()


def test_what_was_decided_first_stays_decided() -> None:
    again: Record = ("decision", {"generation": 1, "index": 0, "promoted": True})
    assert replay(entries([*history([[("rejected", 0.5)]]), again])).nodes[0].status == "rejected"


def test_records_about_the_seed_are_found_under_any_place_without_a_proposal() -> None:
    score: Record = ("score", {"generation": 0, "index": 0, "genome": SEED, "skill": 0.25})
    assert replay(entries([RUN, SEED_RECORD, score])).seed.score == score[1]


def build(change: Callable[[list[Record]], list[Record]]) -> Lineage:
    return replay(entries(change(history([[("promoted", 0.5)]]))))


def test_a_ledger_without_a_run_entry_is_refused() -> None:
    with pytest.raises(LedgerError, match="a run entry"):
        build(lambda records: records[1:])


def test_a_record_without_its_fields_is_named() -> None:
    with pytest.raises(LedgerError, match=r"ledger entry 0 \(score\)"):
        build(lambda records: [("score", {"skill": 1.0}), *records])


def test_the_synthetic_run_replays(full_run: Run) -> None:
    lineage = replay(read(full_run.ledger, full_run.anchor))
    assert [node.status for node in lineage.nodes] == ["promoted", "rejected"]
    first, second = lineage.nodes
    assert (first.parent, second.parent) == (lineage.seed.genome_sha256, first.genome_sha256)


def test_the_seed_has_its_hash_before_its_genome_record_is_written() -> None:
    genome = seed_genome()
    lineage = replay(entries([("run", {"run_id": "r", "seed_genome": genome.to_json()})]))
    assert lineage.seed.genome_sha256 == genome.sha256
