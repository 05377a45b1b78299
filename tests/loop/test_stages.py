"""Trainings are granted in slices, read between them, and stopped where the constraint fails."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.genome.genome import seed_genome
from selfimprove.loop.stages import FINAL, slices
from selfimprove.nets.cost import quote
from tests.loop.records import bodies


@given(st.integers(min_value=0, max_value=10**11), st.sampled_from([1.0, 0.25]), st.sampled_from([1.0, 0.5]))
def test_slices_add_up_to_the_quote_and_none_is_empty(allowance: int, batch_start: float, context_start: float) -> None:
    genome = seed_genome(batch=64)
    genome = replace(genome, recipe=replace(genome.recipe, batch_start=batch_start, context_start=context_start))
    priced = quote(genome, vocab_size=24, context=24, allowance_flops=allowance)
    parts = list(slices(priced).values())
    assert sum(part.flops for part in parts) == priced.flops
    assert sum(part.tokens for part in parts) == priced.tokens
    assert [part.first for part in parts] == [0, *(part.last for part in parts[:-1])]
    assert parts[-1].stage == FINAL
    assert parts[-1].last == priced.steps
    assert all(part.steps > 0 for part in parts) or priced.steps == 0


def stages_of(finished: Any) -> list[str]:
    """Stages of the seed genome's training in the run; two that would end at the same of its few steps are one."""
    config = settings_from(compose(list(finished.micro))).run
    size = {"vocab_size": config.tasks.vocab_size, "context": config.tasks.context}
    found = list(slices(quote(config.seed_genome, **size, allowance_flops=config.allowance_flops)))
    assert len(found) >= 4
    return found


def test_every_slot_gets_a_permit_of_its_own_for_each_stage_and_each_is_charged(finished: Any) -> None:
    permits = bodies(finished.folder / "whole", "permit")
    trained = [p for p in permits if p["account"] != "controller"]
    assert {p["stage"] for p in trained} == set(stages_of(finished))
    assert len({p["key"] for p in permits}) == len(permits)
    charged = {body["key"]: body["flops"] for body in bodies(finished.folder / "whole", "charge")}
    assert all(charged[p["key"]] == p["flops"] for p in permits)


def test_no_later_stage_is_permitted_before_the_earlier_one_was_read(finished: Any) -> None:
    lines = (finished.folder / "whole" / "ledger.jsonl").read_text().splitlines()
    granted: dict[str, list[str]] = {}
    read: set[tuple[str, str]] = set()
    for entry in map(json.loads, lines):
        body = entry["body"]
        if entry["kind"] == "reading" and body["go"]:
            read.add((body["key"], body["stage"]))
        if entry["kind"] == "permit" and body["account"] != "controller":
            slot, _, stage = body["key"].rpartition("@")
            assert {(slot, earlier) for earlier in granted.setdefault(slot, [])} <= read, body["key"]
            granted[slot].append(stage)
    assert stages_of(finished) in granted.values()
