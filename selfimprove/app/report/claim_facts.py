"""What a ledger says that claims rest on: who won, what was seen before it did, and what either side was charged."""

from __future__ import annotations

from selfimprove.app.report.climbs import exam_levels
from selfimprove.app.report.records import Records, integer, mapping, text, texts

EARLIER = ("confirmation", "checkpoint")  # records that name the seeds of trainings before the exam


def champion(records: Records) -> str:
    """Hash of the genome that was promoted last, or of the seed genome."""
    promoted = [str(b.get("genome", "")) for line in records.of("decision") if (b := line.body).get("promoted") is True]
    return promoted[-1] if promoted else seed_genome(records)


def seed_genome(records: Records) -> str:
    """Hash of the genome that the run began with; empty where it is not recorded."""
    named = (line.body.get("genome") for line in records.of("score") if not integer(line.body.get("generation")))
    return next((str(value) for value in named if isinstance(value, str)), "")


def last_choice(records: Records) -> int:
    """Place of the last record that chose anything: what was evaluated after it has steered nothing; -1 without one."""
    kinds = ("ask", "proposal", "rung", "decision", "climb", "level_score", "handover", "controller", "generation")
    return max((at for at, line in enumerate(records.lines) if line.kind in kinds), default=-1)


def seen_before(records: Records, split: str) -> int:
    """How many evaluations on a split were recorded before the last choice."""
    early = records.lines[: last_choice(records) + 1]
    keys = [str(line.body.get("key", "")) for line in early if line.kind == "evaluation"]
    named = [line for line in early if line.kind in ("score", "reference", "confirmation")]
    splits = [key.rpartition("/")[2] for key in keys] + [text(line.body.get("split")) for line in named]
    return splits.count(split)


def compute_ratio(records: Records, prefix: str) -> float | None:
    """FLOPs charged to the champion's trainings in an exam over those of the seed genome; None without both."""
    spent = {"candidate": 0, "parent": 0}
    for line in records.of("charge"):
        key = str(line.body.get("key", ""))
        for role in spent:
            if key.startswith(f"{prefix}/{role}/") and line.body.get("account") != "lost":
                spent[role] += integer(line.body.get("flops")) or 0
    return spent["candidate"] / spent["parent"] if all(spent.values()) else None


def exam_seeds(records: Records, kind: str) -> set[int]:
    """Training seeds of an exam: of the ``sealed`` or the ``held_out`` record; empty where none are recorded."""
    return _seeds(mapping(records.last(kind).get("sealed")).get("seeds"))


def used_before(records: Records, seeds: set[int]) -> set[int]:
    """Those of the seeds that a confirmation or a kept checkpoint was trained on."""
    bodies = [line.body for kind in EARLIER for line in records.of(kind)]
    return seeds & {seed for body in bodies for seed in _seeds([*_list(body.get("seeds")), body.get("seed")])}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _seeds(values: object) -> set[int]:
    return {value for value in _list(values) if isinstance(value, int) and not isinstance(value, bool)}


def climbed_since(records: Records) -> bool:
    """Whether the exam was held at other levels than the test that promoted the champion."""
    return bool(exam_levels(records)) and exam_levels(records) != gate_levels(records)


def gate_levels(records: Records) -> dict[str, int]:
    """The levels of the generation whose test promoted the champion."""
    config = mapping(mapping(records.last("run").get("config")).get("tasks"))
    levels = {name: integer(mapping(config.get("levels")).get(name)) or 0 for name in texts(config.get("families"))}
    promoted = [at for at, line in enumerate(records.lines) if line.kind == "decision" and line.body.get("promoted")]
    for line in records.lines[: promoted[-1] if promoted else 0]:
        if line.kind == "climb":
            levels |= {name: integer(level) or 0 for name, level in mapping(line.body.get("levels")).items()}
    return levels
