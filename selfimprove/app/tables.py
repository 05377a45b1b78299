"""Inspection results as terminal tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import get_console
from rich.table import Table

Body = Mapping[str, Any]


def print_inspections(found: Sequence[Body], promoted: Mapping[tuple[Any, Any], Any]) -> None:
    """Print each inspection: verdicts of the instruments, probes and lenses by layer."""
    console = get_console()
    if not found:
        console.print("No inspection is stored yet.")
    for body in found:
        place = (body.get("generation"), body.get("index"))
        verdict = promoted.get(place)
        fate = "undecided" if verdict is None else ("promoted" if verdict else "not promoted")
        genome = str(body.get("genome", ""))[:10]
        head = f"generation {place[0]}, candidate {place[1]}, genome {genome}: {body.get('status')}, {fate}"
        console.rule(head, align="left")
        console.print(_verdicts(body.get("instruments") or {}))
        summary = body.get("summary") or {}
        groups = (("probes", "probe"), ("control", "control task"), ("logit_lens", "logit lens"))
        rows = [(name, key, values) for group, name in groups for key, values in (summary.get(group) or {}).items()]
        if rows:
            console.print(_by_layer(rows))
        console.print(f"details: {body.get('path')}\n", style="dim", highlight=False)


def _verdicts(instruments: Mapping[str, Any]) -> Table:
    table = Table("instrument", "verdict", "reason", box=None, header_style="bold")
    for name, result in instruments.items():
        table.add_row(name, str(result.get("verdict", "")), str(result.get("reason", "")))
    return table


def _by_layer(rows: Sequence[tuple[str, str, Any]]) -> Table:
    """Accuracies (0 to 1), one column a layer; layer 0 is what the first probed position holds."""
    columns = [values if isinstance(values, list) else [values] for _, _, values in rows]
    layers = max(len(values) for values in columns)
    table = Table("accuracy (0 to 1)", "of", *(f"layer {i}" for i in range(layers)), box=None, header_style="bold")
    for (name, variable, _), values in zip(rows, columns, strict=True):
        shown = [f"{value:.3f}" if isinstance(value, int | float) else str(value) for value in values]
        table.add_row(name, variable, *shown, *[""] * (layers - len(shown)))
    return table
