"""Paired comparisons on fresh seeds: candidates against their parents at the gate, the champion against the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from selfimprove.app.report.records import Records, integer, mapping, numbers, place, text
from selfimprove.app.report.scores import read_retention
from selfimprove.app.report.views import Comparison, Confirmation
from selfimprove.canonical import finite

DEFAULT_TEST = "exact one-sided sign-flip test"
DEFAULT_ALPHA = 0.01
HELD_OUT = "held-out"  # in the place of a split: families that the search has never seen


def read_comparison(value: object, alpha: float, split: str) -> Comparison | None:
    """A comparison, or None without a single complete pair.

    Args:
        value: the record's body, or the part of it that holds one split.
        alpha: level of the test where the record names none.
        split: name of the split where the record names none.
    """
    body = mapping(value)
    pairs = zip(numbers(body.get("candidate")), numbers(body.get("parent_skill")), strict=False)
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if not known:
        return None
    candidate, parent = zip(*known, strict=True)
    return Comparison(
        split=text(body.get("split")) or split,
        test=text(body.get("test")) or DEFAULT_TEST,
        alpha=finite(body.get("alpha")) or alpha,
        candidate=candidate,
        parent=parent,
        p_value=finite(body.get("p_value")),
        tasks=_tasks(mapping(body.get("tasks")), mapping(body.get("parent_tasks"))),
        retention=read_retention(body.get("retention")),
        parent_failed=integer(mapping(body.get("failed")).get("parent")) or 0,
    )


def read_confirmations(records: Records) -> tuple[Confirmation, ...]:
    """Every comparison of a candidate with its parent, in ledger order."""
    promoted = {place(line) for line in records.of("decision") if line.body.get("promoted") is True}
    found, alpha = [], _alpha(records)
    for line in records.of("confirmation"):
        generation = integer(line.body.get("generation"))
        pair = read_comparison(line.body, alpha, "gate")
        if generation is not None and pair is not None:
            index = integer(line.body.get("index"))
            found.append(Confirmation(generation, index, pair, place(line) in promoted))
    return tuple(found)


def read_finals(records: Records) -> tuple[Comparison, ...]:
    """Champion against seed genome: on the sealed split, on the gate split, and on the held-out families.

    Empty where the sealed split was not opened.
    """
    body, alpha = records.last("sealed"), _alpha(records)
    if not body:
        return ()
    found = [read_comparison(body.get(split), alpha, split) for split in ("sealed", "gate")]
    if (held_out := read_comparison(records.last("held_out").get("sealed"), alpha, HELD_OUT)) is not None:
        found.append(replace(held_out, split=HELD_OUT))
    return tuple(pair for pair in found if pair is not None)


def _alpha(records: Records) -> float:
    return finite(mapping(records.last("run").get("config")).get("alpha")) or DEFAULT_ALPHA


def _tasks(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Mapping[str, tuple[float | None, float | None]]:
    names = dict.fromkeys((*ours, *theirs))
    return {name: (_skill(ours.get(name)), _skill(theirs.get(name))) for name in names}


def _skill(task: object) -> float | None:
    return finite(mapping(task).get("skill"))
