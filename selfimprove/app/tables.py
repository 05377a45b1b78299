"""Inspection results as terminal tables.

Figures and names come from workers and from instruments of one's own: what has not the form of a figure is left out,
and a name is printed as it is, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import get_console
from rich.table import Column, Table
from rich.text import Text

from selfimprove.app.report.own_figures import own_figures
from selfimprove.app.report.records import mapping, numbers, texts
from selfimprove.app.report.scores import read_retention
from selfimprove.canonical import finite
from selfimprove.containment.hostile import clean_line

Body = Mapping[str, Any]
Place = tuple[Any, Any]  # generation and index


def print_inspections(
    found: Sequence[Body], promoted: Mapping[Place, Any], edits: Mapping[Place, Sequence[str]]
) -> None:
    """Print each inspection: what was read, whether the constraint held, probes and lenses by layer.

    Args:
        found: ``inspection`` records.
        promoted: the gate's verdict by generation and index, where there is one.
        edits: edits of the candidates by generation and index.
    """
    console = get_console()
    if not found:
        console.print("No inspection is stored yet.")
    for body in found:
        place = (body.get("generation"), body.get("index"))
        console.rule(Text(_head(body, promoted.get(place))), align="left")
        for name, value in _facts(body, edits.get(place, ())):
            console.print(Text(f"  {name:<12} {value}"), soft_wrap=True)
        table = _accuracies(mapping(body.get("summary")))
        if table.row_count:
            console.print(table)
        console.print(Text(f"  details      {body.get('path')}\n", style="dim"), soft_wrap=True)


def _head(body: Body, verdict: object) -> str:
    generation, index = body.get("generation"), body.get("index")
    who, fate = f"candidate {index}", "not decided yet"
    if index == -1:
        who, fate = "seed genome", "the first champion"
    elif verdict is not None:
        fate = "promoted" if verdict else "not promoted"
    return f"generation {generation}, {who}, genome {str(body.get('genome', ''))[:10]}: {body.get('status')}, {fate}"


def _facts(body: Body, edits: Sequence[str]) -> list[tuple[str, str]]:
    """Lines of name and value: edits, verdicts (with a reason where not 'read'), constraint, figures of one's own."""
    facts = [("edits", ", ".join(edits))] if edits else []
    if body.get("reason"):
        facts.append(("reason", clean_line(str(body["reason"]))))
    by_verdict: dict[str, list[str]] = {}
    for name, result in mapping(body.get("instruments")).items():
        verdict, reason = (clean_line(str(mapping(result).get(key) or "")) for key in ("verdict", "reason"))
        by_verdict.setdefault(verdict, []).append(clean_line(name) + (f" ({reason})" if reason else ""))
    facts += [(verdict.replace("_", " "), ", ".join(names)) for verdict, names in by_verdict.items()]
    summary = mapping(body.get("summary"))
    if (kept := read_retention(summary.get("retention"))) is not None:
        interval = f"95% interval {kept.low:.3f} to {kept.high:.3f}"
        facts.append(("halt kept", f"{kept.kept} of {kept.n} sequences, {interval}"))
    own = own_figures(summary)
    return facts + [(clean_line(name), clean_line(value)) for name, value in own.items()]


def _accuracies(summary: Body) -> Table:
    """Accuracies by layer: each probe above its control's, then the lenses; the last column is a constant answer's."""
    probes, control, lenses, details = (
        mapping(summary.get(name)) for name in ("probes", "control", "logit_lens", "probe_details")
    )
    depth = max((len(numbers(values)) for group in (probes, lenses) for values in group.values()), default=0)
    layers = texts(summary.get("layers"))
    names = layers if len(layers) == depth else [f"layer {number}" for number in range(depth)]
    headers = (Column(_shown(name)) for name in names)
    table = Table("accuracy (0 to 1)", *headers, "constant", box=None, header_style="bold", padding=(0, 2, 0, 2))
    for name, values in probes.items():
        constant = finite(mapping(details.get(name)).get("majority"))
        told = "" if constant is None else _number(constant)
        table.add_row(_shown(f"probe {name}"), *_cells(values, depth), told)
        if numbers(control.get(name)):
            table.add_row("  its control", *_cells(control[name], depth), style="dim")
    for name, values in lenses.items():
        table.add_row(_shown(f"lens {name}"), *_cells(values, depth))
    return table


def _shown(name: str) -> Text:
    return Text(clean_line(name))


def _cells(values: object, depth: int) -> list[str]:
    found = [_number(value) for value in numbers(values)[:depth]]
    return found + [""] * (depth - len(found))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
