"""Runs beside each other: what each spent, found and proved, and where their configurations part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from selfimprove.app.report.about import run_state
from selfimprove.app.report.comparisons import read_finals
from selfimprove.app.report.records import Records, integer, mapping, shown
from selfimprove.app.report.scores import read_curve
from selfimprove.app.report.views import RunRow
from selfimprove.app.units import flops
from selfimprove.canonical import finite

THIS = "this run"
MOST_DIFFERENCES = 6
_OWN_COLUMN = ("seed", "controller")  # the table shows these anyway


def run_rows(records: Records, baselines: Mapping[str, Records]) -> tuple[RunRow, ...]:
    """This run and the others, a row each; nothing where there are no others to stand beside."""
    if not baselines:
        return ()
    others = tuple(run_row(label, other, _differences(other, records)) for label, other in baselines.items())
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


def _differences(there: Records, here: Records) -> tuple[str, ...]:
    """Every setting in which two configurations differ, the first few of them spelled out."""
    if not all(records.last("run").get("config") for records in (there, here)):
        return ("configuration not recorded",)
    found = [
        f"{key} {theirs} (here {ours})"
        for key, (ours, theirs) in settings_apart([here, there]).items()
        if key.partition(".")[0] not in _OWN_COLUMN
    ]
    more = len(found) - MOST_DIFFERENCES
    return (*found[:MOST_DIFFERENCES], f"and {more} more") if more > 0 else tuple(found)


def settings_apart(runs: Sequence[Records]) -> dict[str, tuple[str, ...]]:
    """Every setting that is not the same in all of some runs: its value in each, ``absent`` where there is none."""
    found = [dict(_leaves(records.last("run").get("config"))) for records in runs]
    every = dict.fromkeys(key for leaves in found for key in leaves)
    values = {key: tuple(leaves.get(key, "absent") for leaves in found) for key in every}
    return {key: told for key, told in values.items() if len(set(told)) > 1}


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in mapping(value).items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{prefix}{key}.")
        else:
            counted = finite(item) if "flops" in key else None
            yield f"{prefix}{key}", shown(item) if counted is None else flops(counted)
