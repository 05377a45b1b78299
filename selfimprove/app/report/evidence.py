"""Figures of the gate: paired confirmations, and constraint retention."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from selfimprove.app.report.overview import Report, thin
from selfimprove.app.report.progress import WIDTH, champions
from selfimprove.app.report.records import mapping
from selfimprove.app.report.svg import (
    Frame,
    Scale,
    drawing,
    element,
    frame,
    join,
    label,
    line,
    nice_step,
    px,
    tick_text,
    tip,
    whisker,
    whole_ticks,
)
from selfimprove.app.report.text import decimal, p_text, percent, signed
from selfimprove.app.report.views import Confirmation, Retention
from selfimprove.canonical import finite


def confirmations(report: Report) -> Markup | None:
    """One row per confirmation: a dot per seed pair, a diamond at the mean, the verdict on the right.

    Beyond 40 rows they are thinned; every promotion stays.
    """
    rows = thin(report.confirmations, 40, lambda row: row.promoted)
    if not rows:
        return None
    spread = [value for row in rows for value in row.pair.differences] + [0.0]
    step = nice_step(max(spread) - min(spread) or 0.1, 6)
    low, high = (min(spread) // step) * step, -((-max(spread)) // step) * step
    top, pitch, left, right = 30.0, 36.0, 100.0, WIDTH - 216.0
    height = top + pitch * len(rows) + 48
    x = Scale(low, max(high, low + step), left, right)
    bottom = height - 48
    parts = []
    for value in x.ticks(8):
        parts.append(line(x(value), top - 8, x(value), bottom, "gridline"))
        parts.append(label(tick_text(value), x(value), bottom + 17, anchor="middle"))
    parts.append(line(x(0), top - 8, x(0), bottom, "zero"))
    title = "skill of candidate minus skill of parent, same training seed"
    parts.append(label(title, (left + right) / 2, bottom + 38, anchor="middle", class_="axis-title"))
    parts.append(label("candidate", left - 12, 14, anchor="end", class_="axis-title"))
    parts.append(label("mean, p-value, gate", right + 18, 14, class_="axis-title"))
    parts += [_confirmation(row, x, top + pitch * (number + 0.5)) for number, row in enumerate(rows)]
    return drawing(WIDTH, height, f"Paired differences of {len(rows)} confirmations, candidate minus parent", *parts)


def _confirmation(row: Confirmation, x: Scale, y: float) -> Markup:
    name = f"g{row.generation}" + ("" if row.index is None else f"c{row.index:02d}")
    pair = row.pair
    dots = [
        element("circle", tip(f"pair {number}: {signed(value)}"), cx=x(value), cy=y, r=4, class_="dot pair")
        for number, value in enumerate(pair.differences, start=1)
    ]
    mean, verdict = x(pair.mean), "promoted" if row.promoted else "not promoted"
    diamond = element(
        "polygon",
        tip(f"mean {signed(pair.mean)}"),
        points=" ".join(f"{px(mean + dx)},{px(y + dy)}" for dx, dy in ((0, -8), (6, 0), (0, 8), (-6, 0))),
        class_="mean promoted" if row.promoted else "mean",
    )
    words = f"{signed(pair.mean)}, {p_text(pair.p_value)}"
    return join(
        [
            label(name, x.start - 12, y + 4, anchor="end", class_="row-name"),
            line(x.start, y, x.stop, y, "gridline"),
            *dots,
            diamond,
            label(words, x.stop + 18, y - 2, class_="row-name"),
            label(verdict, x.stop + 18, y + 13, class_="note strong" if row.promoted else "note"),
        ]
    )


@dataclass(frozen=True)
class _Kept:
    generation: float
    retention: Retention
    words: str


def retention(report: Report) -> Markup | None:
    """Share of halt prompts on which the constraint held, with 95% Wilson intervals."""
    others = [
        _Kept(c.generation + (c.index % 7 - 3) * 0.045, c.score.retention, c.name)
        for c in report.dotted
        if c.score and c.score.retention and c.fate != "promoted"
    ]
    main = [
        _Kept(number, champion.score.retention, f"champion {champion.name}")
        for number, champion in champions(report)
        if champion and champion.score and champion.score.retention
    ]
    seed = report.seed_score.retention if report.seed_score else None
    if seed and report.numbers:
        main.insert(0, _Kept(report.numbers[0] - 1, seed, "seed genome"))
    gate = [
        _Kept(c.generation + 0.22, c.pair.retention, "gate split") for c in report.confirmations if c.pair.retention
    ]
    risen = {rise.generation: rise.retention for rise in report.rises if rise.retention}  # one for all that rose
    harder = [_Kept(number + 0.36, kept, "champion, harder tasks") for number, kept in risen.items()]
    everything = [*others, *main, *gate, *harder]
    if not everything:
        return None
    floor, numbers = retention_floor(report), report.numbers
    lowest = min([item.retention.low for item in everything] + ([] if floor is None else [floor]))
    first = numbers[0] - 1.0
    plot = frame(
        WIDTH, 300, (first - 0.3, numbers[-1] + 0.5), (max(0.0, int(lowest * 10) / 10), 1.0), "generation",
        "share of halt prompts kept",
    )  # fmt: skip
    ticks = [first, *whole_ticks(numbers[0], numbers[-1])]
    parts = [plot.axes(ticks, lambda v: "seed" if v == first else f"{v:g}", lambda v: percent(v))]
    if floor is not None:
        parts.append(line(plot.x.start, plot.y(floor), plot.x.stop, plot.y(floor), "limit"))
    parts += [_mark(plot, item, "faint", 2.6, interval=False) for item in others]
    parts += [_mark(plot, item, "gate", 4.0) for item in thin(gate, 40, lambda _: False)]
    parts += [_mark(plot, item, "harder", 4.0) for item in thin(harder, 40, lambda _: False)]
    parts += [_mark(plot, item, "solid", 4.5) for item in thin(main, 40, lambda _: False)]
    return drawing(WIDTH, 300, "Constraint retention by generation with 95% Wilson intervals", *parts)


def retention_floor(report: Report) -> float | None:
    """The least lower end of the interval with which the gate lets a candidate pass, where the run recorded one."""
    return finite(mapping(report.run.config.get("inspection")).get("retention_floor"))


def retention_gate(report: Report) -> bool:
    """Whether the gate asked for that at all; a run from before it could be switched off did."""
    return mapping(report.run.config.get("inspection")).get("retention_gate") is not False


def unguarded(report: Report) -> tuple[str, ...]:
    """What the configuration took away from the constraint's protection, in words; empty in a run as it should be."""
    config = report.run.config
    found = []
    if not retention_gate(report):
        found.append(
            "The gate was weakened (inspection.retention_gate=false): a lost constraint stopped neither a promotion "
            "nor a training, and no tripwire about it paused the run."
        )
    if mapping(config.get("space")).get("constraint_editable") is True:
        found.append(
            "The constraint was editable (space.constraint_editable=true): proposals could change the weight of its "
            "loss term."
        )
    return tuple(found)


def _mark(plot: Frame, item: _Kept, class_: str, r: float, *, interval: bool = True) -> Markup:
    x, kept = plot.x(item.generation), item.retention
    words = f"{item.words}: {kept.kept} of {kept.n} kept, 95% interval {decimal(kept.low)} to {decimal(kept.high)}"
    parts = [tip(words)]
    if interval:
        parts.append(whisker(x, (plot.y(kept.low), plot.y(kept.high)), class_))
    parts.append(element("circle", cx=x, cy=plot.y(kept.rate), r=r, class_=f"dot {class_}"))
    return element("g", *parts)
