"""Probe accuracies of all generations as small drawings that stand alone: what W&B has no chart for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import escape

from selfimprove.app.report.inside import beside_leader, generation_of, heat_map
from selfimprove.app.report.readings import Inspection

_STYLE = """\
:root { color-scheme: light dark; }
body { margin: 8px; font: 13px system-ui, sans-serif; background: light-dark(#ffffff, #181d23);
  color: light-dark(#1b1f24, #e6eaee); }
text { fill: light-dark(#1b1f24, #e6eaee); font-size: 12px; }
.on-dark { fill: #ffffff; } .on-light { fill: #000000; } .cell { font-size: 11.5px; }
section { display: flex; flex-wrap: wrap; gap: 16px; }
.unread { fill: none; stroke: #888888; stroke-dasharray: 3 3; }"""


def probe_maps(inspections: Sequence[Inspection], leads: Callable[[Inspection], bool]) -> str:
    """One page: of each probed variable its accuracy by layer and generation, beside the control's; empty for none.

    Args:
        inspections: in order.
        leads: whether one is that of the leading candidate of its generation.
    """
    variables = dict.fromkeys(name for one in inspections for name in one.probes)
    if not variables:
        return ""
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><style>{_STYLE}</style></head>'
    below = [beside_leader(one, leads=leads(one)) for one in inspections]
    return f"{head}<body>{''.join(_maps(variable, inspections, below) for variable in variables)}</body></html>"


def _maps(variable: str, inspections: Sequence[Inspection], below: Sequence[str]) -> str:
    probes = [one.probes.get(variable, ()) for one in inspections]
    controls = [one.control.get(variable) or one.control.get("", ()) for one in inspections]
    columns = [generation_of(one) for one in inspections]
    rows = [f"layer {row}" for row in range(max(map(len, [*probes, *controls])))]
    parts = []
    for values, what in ((probes, "probe"), (controls, "control: the same probe on random labels")):
        name = f"Accuracy of {variable} by layer and generation, {what}"
        drawn = heat_map(rows, columns, values, name, below=below)
        parts.append(f"<div><p>{escape(variable)}, {what}</p>{drawn}</div>")
    return f"<section>{''.join(parts)}</section>"
