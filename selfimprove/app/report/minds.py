"""The controller's stream beside what it proposed, by generation."""

from __future__ import annotations

from markupsafe import Markup

from selfimprove.app.report.controllers import ControllerReading
from selfimprove.app.report.curves import Curve, Mark, curves
from selfimprove.app.report.inside import Layers, heat_map
from selfimprove.app.report.overview import Report, thin
from selfimprove.app.report.svg import nice_step
from selfimprove.app.report.text import decimal, percent

RATES = (("refused", "denied or invalid"), ("forbidden", "forbidden path"), ("over_caps", "above a cap"))
"""What is counted of a generation's proposals, and how it is called."""


def shown(report: Report) -> tuple[ControllerReading, ...]:
    """The readings that get a column or a row: all, or evenly thinned."""
    return thin(report.readings, 24, lambda _: False)


def rates(report: Report) -> Markup | None:
    """Share of each generation's proposals that reached for what they may not have."""
    drawn, highest = [], 0.0
    for style, (name, words) in enumerate(RATES):
        marks = []
        for one in report.readings:
            if (share := one.share(name)) is not None:
                told = f"generation {one.generation}, {words}: {share.kept} of {share.n} proposals"
                marks.append(Mark(one.generation, share.rate, told))
                highest = max(highest, share.rate)
        drawn.append(Curve(style, tuple(marks)))
    step = nice_step(max(highest, 0.1), 5)
    top = min(1.0, -(-highest // step) * step or 0.1)
    name = "Proposals that were refused, and that reached for what they may not have, by generation"
    return curves(drawn, (0.0, top), "share of proposals", name, y_text=percent)


def probe_maps(report: Report) -> tuple[Markup, Markup] | None:
    """What the stream carries, at the layer that it is read best at, and the control there; None without a probe."""
    readings = [one for one in shown(report) if one.probes]
    names = tuple(dict.fromkeys(name for one in readings for name in one.probes))
    if not names:
        return None
    names = tuple(reversed(names))  # heat maps are filled from below
    best = [tuple(_best(one, name)[0] for name in names) for one in readings]
    control = [tuple(_best(one, name)[1] for name in names) for one in readings]
    rows, columns = [name.replace("_", " ") for name in names], [f"g{one.generation}" for one in readings]

    def drawn(values: list[Layers], what: str) -> Markup:
        return heat_map(rows, columns, values, f"{what} in the controller, by quantity and generation", left=124.0)

    return drawn([*best], "Probe accuracy"), drawn([*control], "Control probe accuracy")


def _best(one: ControllerReading, name: str) -> tuple[float | None, float | None]:
    probe = one.probes.get(name)
    if probe is None or (at := probe.best) is None:
        return None, None
    return probe.accuracy[at], probe.control[at] if at < len(probe.control) else None


def selectivity(one: ControllerReading) -> str:
    """The quantity that is read furthest above its control, in words."""
    pairs = {name: _best(one, name) for name in one.probes}
    above = {
        name: found - control for name, (found, control) in pairs.items() if found is not None and control is not None
    }
    if not above:
        return "\N{EN DASH}"
    name = max(above, key=lambda name: above[name])
    found, control = pairs[name]
    return f"{name.replace('_', ' ')}: {decimal(found, 2)} against {decimal(control, 2)}"
