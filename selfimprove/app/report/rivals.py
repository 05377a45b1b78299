"""Runs beside each other: what each spent, found and proved, and where their configurations part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from selfimprove.app.report.about import run_state
from selfimprove.app.report.comparisons import read_finals
from selfimprove.app.report.records import Records, integer, mapping, shown
from selfimprove.app.report.scores import read_curve
from selfimprove.app.report.views import RunRow
from selfimprove.app.units import flops
from selfimprove.canonical import finite
from selfimprove.seeds import table_seed

THIS = "this run"
MOST_DIFFERENCES = 6
ABSENT = "absent"
NAME = "controller.name"
TABLE_SEED = "tasks.table_seed"
_OWN_COLUMN = ("seed", NAME)  # the table shows these anyway


def run_rows(records: Records, baselines: Mapping[str, Records]) -> tuple[RunRow, ...]:
    """This run and the others, a row each; nothing where there are no others to stand beside."""
    if not baselines:
        return ()
    others = tuple(run_row(label, other, set_apart(other, records)) for label, other in baselines.items())
    return (run_row(THIS, records), *others)


def run_row(label: str, records: Records, differs: tuple[str, ...] = ()) -> RunRow:
    """One run as a row; ``differs``: see there."""
    body, curve = records.last("run"), read_curve(label, records)
    sealed = next((pair for pair in read_finals(records) if pair.split == "sealed"), None)
    limit = integer(mapping(body.get("limits")).get("flops"))
    return RunRow(
        label=label,
        proposer=shown(mapping(mapping(body.get("config")).get("controller")).get("name")),
        seed=shown(body.get("root_seed")),
        state=run_state(records)[0],
        charged=curve.charged,
        limit=limit,
        scored=sum(1 for point in curve.points if point.candidate),
        promotions=sum(1 for line in records.of("decision") if line.body.get("promoted") is True),
        best=max((point.skill for point in curve.points), default=None),
        final=sealed,
        differs=differs,
    )


def set_apart(there: Records, here: Records, aside: Collection[str] = _OWN_COLUMN) -> tuple[str, ...]:
    """Every setting in which two configurations differ, the first few of them spelled out.

    Controllers need not have the same settings: between two different ones, what only one of them has is no difference.
    Nor is a seed of the facts of memorization that each run has from its own root seed.

    Args:
        there, here: the runs.
        aside: settings that are not looked at.
    """
    if not all(records.last("run").get("config") for records in (there, here)):
        return ("configuration not recorded",)
    apart = settings_apart([here, there])
    if _from_own_seed(here) and _from_own_seed(there):
        apart.pop(TABLE_SEED, None)
    found = [
        f"{key} {theirs} (here {ours})"
        for key, (ours, theirs) in apart.items()
        if key not in aside and not (NAME in apart and key.startswith("controller.") and ABSENT in (ours, theirs))
    ]
    more = len(found) - MOST_DIFFERENCES
    return (*found[:MOST_DIFFERENCES], f"and {more} more") if more > 0 else tuple(found)


def _from_own_seed(records: Records) -> bool:
    """Whether ``tasks.table_seed`` is what ``auto`` gives for the run's own root seed."""
    config = mapping(records.last("run").get("config"))
    root = config.get("seed")
    return isinstance(root, int) and mapping(config.get("tasks")).get("table_seed") == table_seed(root)


def settings_apart(runs: Sequence[Records]) -> dict[str, tuple[str, ...]]:
    """Every setting that is not the same in all of some runs: its value in each, ``absent`` where there is none."""
    found = [dict(_leaves(records.last("run").get("config"))) for records in runs]
    every = dict.fromkeys(key for leaves in found for key in leaves)
    values = {key: [leaves.get(key, ABSENT) for leaves in found] for key in every}
    return {key: _told(key, these) for key, these in values.items() if any(one != these[0] for one in these)}


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in mapping(value).items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _told(key: str, values: Sequence[Any]) -> tuple[str, ...]:
    """Values of one setting as text: rounded, and exact where two that differ would read alike."""
    counted = "flops" in key and all(one == ABSENT or finite(one) is not None for one in values)
    rounded = tuple(flops(one) if counted and one != ABSENT else shown(one) for one in values)
    if all(a == b or x != y for (a, x), (b, y) in combinations(zip(values, rounded, strict=True), 2)):
        return rounded
    unit = " FLOP" if counted else ""
    return tuple(f"{one:,}{unit}" if finite(one) is not None else shown(one) for one in values)
