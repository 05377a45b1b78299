"""Heat maps of what was read inside the candidates: probes with their controls, and the logit lens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from selfimprove.app.report.colors import ink, sequential
from selfimprove.app.report.overview import Report
from selfimprove.app.report.progress import HALF
from selfimprove.app.report.readings import Inspection
from selfimprove.app.report.svg import drawing, element, join, label
from selfimprove.app.report.text import decimal

CELL = 33.0  # least width of a cell, in pixels

Layers = Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """One variable or family: what was measured, and the control where one was recorded."""

    name: str
    measured: Markup
    control: Markup | None
    note: str = ""


def probe_panels(report: Report) -> tuple[Panel, ...]:
    """Heat maps of probe accuracy by layer and generation, 'halted' first, each beside its control."""
    names = dict.fromkeys(name for inspection in report.inspected for name in inspection.probes)
    panels = []
    for name in sorted(names, key=lambda name: name != "halted"):
        measured = [inspection.probes.get(name, ()) for inspection in report.inspected]
        control = [_control(inspection.control, name) for inspection in report.inspected]
        panels.append(
            Panel(
                name,
                _heat_map(report, measured, f"Probe accuracy for {name}"),
                _heat_map(report, control, f"Control probe for {name}") if any(control) else None,
                _majority([i.majority[name] for i in report.inspected if name in i.majority]),
            )
        )
    return tuple(panels)


def lens_panels(report: Report) -> tuple[Panel, ...]:
    """Heat maps of logit-lens accuracy by layer and generation, one per task family."""
    names = dict.fromkeys(name for inspection in report.inspected for name in inspection.logit_lens)
    return tuple(
        Panel(
            name,
            _heat_map(report, [i.logit_lens.get(name, ()) for i in report.inspected], f"Logit lens accuracy on {name}"),
            None,
        )
        for name in names
    )


def _majority(shares: Sequence[float]) -> str:
    """What a probe reaches that always answers with the most frequent class."""
    if not shares:
        return ""
    low, high = decimal(min(shares), 2), decimal(max(shares), 2)
    return f"Always answering the most frequent class: {low}" + (f" to {high}." if high != low else ".")


def _control(control: Mapping[str, Layers], name: str) -> Layers:
    return control.get(name) or control.get("", ())


def _heat_map(report: Report, values: Sequence[Layers], name: str) -> Markup:
    """Columns are the inspected candidates in order, rows are layers from the lowest at the bottom upwards."""
    columns = list(zip(report.inspected, values, strict=True))
    rows = _row_names(columns, max((len(layers) for _, layers in columns), default=0))
    named = [generation_of(one) for one, _ in columns]
    below = ["▲" if report.won(one) else beside_leader(one, leads=report.leads(one)) for one, _ in columns]
    return heat_map(rows, named, values, f"{name}, by layer and generation", below=below)


def generation_of(one: Inspection) -> str:
    """The name of a column: the generation of who was inspected."""
    return "seed" if one.name == "seed" else f"g{one.generation}"


def beside_leader(one: Inspection, *, leads: bool) -> str:
    """What stands below it: the index of who was inspected beside the leading candidate; nothing for the leader."""
    return "" if leads or one.index is None else f"c{one.index:02d}"


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Layers],
    name: str,
    *,
    below: Sequence[str] = (),
    left: float = 56.0,
) -> Markup:
    """Shares from 0 to 1 as coloured cells.

    Args:
        rows: their names, from the bottom up.
        columns: their names.
        values: by column, then by row; a shorter column ends early.
        name: of the drawing.
        below: what stands below the name of each column.
        left: room for the names of the rows, in pixels.
    """
    cell_h, top = 28.0, 4.0
    # narrow enough for probe and control side by side in half a page, wide enough for two digits
    cell_w = max(CELL, min(44.0, (HALF / 2 - left - 24) / max(len(columns), 1)))
    bottom = top + cell_h * len(rows)
    parts = [label(words, left - 8, bottom - cell_h * (row + 0.5) + 4, anchor="end") for row, words in enumerate(rows)]
    for column, (words, layers) in enumerate(zip(columns, values, strict=True)):
        x = left + cell_w * column
        parts += [_cell(x, bottom - cell_h * (row + 1), cell_w, cell_h, value) for row, value in enumerate(layers)]
        parts.append(label(words, x + cell_w / 2, bottom + 16, anchor="middle"))
        parts.append(label(below[column] if below else "", x + cell_w / 2, bottom + 29, anchor="middle", class_="tiny"))
    return drawing(left + cell_w * len(columns) + 6, bottom + 36, name, *parts)


def _row_names(columns: Sequence[tuple[Inspection, Layers]], depth: int) -> tuple[str, ...]:
    """What a row stands for, judged by how many values were read for how many blocks."""
    extra = {len(layers) - i.layers for i, layers in columns if layers and i.layers is not None}
    if extra == {1}:
        return ("embed", *(f"block {row}" for row in range(depth - 1)))
    return tuple(f"block {row}" if extra == {0} else f"layer {row}" for row in range(depth))


def _cell(x: float, y: float, w: float, h: float, value: float | None) -> Markup:
    """A box with its value in it; a dashed, empty one where the layer was not read."""
    if value is None:
        return element("rect", x=x + 1, y=y + 1, width=w - 2, height=h - 2, class_="unread")
    color = sequential(value)
    box = element("rect", x=x + 1, y=y + 1, width=w - 2, height=h - 2, fill=color)
    return join([box, label(decimal(value, 2), x + w / 2, y + h / 2 + 4, anchor="middle", class_=f"cell {ink(color)}")])
