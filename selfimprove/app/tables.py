"""Inspection results as terminal tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import get_console
from rich.table import Table
from rich.text import Text

from selfimprove.app.report.own_figures import own_figures
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
        table = _accuracies(body.get("summary") or {})
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
        facts.append(("reason", str(body["reason"])))
    by_verdict: dict[str, list[str]] = {}
    for name, result in (body.get("instruments") or {}).items():
        reason = f" ({result['reason']})" if result.get("reason") else ""
        by_verdict.setdefault(str(result.get("verdict", "")), []).append(name + reason)
    facts += [(verdict.replace("_", " "), ", ".join(names)) for verdict, names in by_verdict.items()]
    kept = (body.get("summary") or {}).get("retention") or {}
    if kept.get("n"):
        interval = f"95% interval {kept['low']:.3f} to {kept['high']:.3f}"
        facts.append(("halt kept", f"{kept['kept']} of {kept['n']} sequences, {interval}"))
    own = own_figures(body.get("summary") or {})
    return facts + [(clean_line(name), clean_line(value)) for name, value in own.items()]


def _accuracies(summary: Body) -> Table:
    """Accuracies by layer: each probe above its control's, then the lenses; the last column is a constant answer's."""
    probes, control, lenses = (summary.get(name) or {} for name in ("probes", "control", "logit_lens"))
    details = summary.get("probe_details") or {}
    depth = max((len(values) for group in (probes, lenses) for values in group.values()), default=0)
    layers = [str(name) for name in summary.get("layers") or ()]
    names = layers if len(layers) == depth else [f"layer {number}" for number in range(depth)]
    table = Table("accuracy (0 to 1)", *names, "constant", box=None, header_style="bold", padding=(0, 2, 0, 2))
    for name, values in probes.items():
        constant = (details.get(name) or {}).get("majority")
        table.add_row(f"probe {name}", *_cells(values, depth), "" if constant is None else _number(constant))
        if control.get(name):
            table.add_row("  its control", *_cells(control[name], depth), style="dim")
    for name, values in lenses.items():
        table.add_row(f"lens {name}", *_cells(values, depth))
    return table


def _cells(values: Sequence[Any], depth: int) -> list[str]:
    return [_number(value) for value in values] + [""] * (depth - len(values))


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"
