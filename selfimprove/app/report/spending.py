"""Where the compute went, and how the controller's proposals fared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from selfimprove.app.report.curves import Curve, Mark, curves
from selfimprove.app.report.overview import Report, thin
from selfimprove.app.report.progress import HALF, WIDTH
from selfimprove.app.report.svg import (
    Frame,
    Scale,
    drawing,
    element,
    frame,
    label,
    line,
    tick_text,
    tip,
    whole_ticks,
)
from selfimprove.app.report.text import decimal, percent
from selfimprove.app.report.views import ACCOUNTS, FATES, KINDS, Candidate
from selfimprove.app.units import flop_unit, flops

Segment = tuple[str, float, str]  # name, size, class of its colour


def accounts(report: Report) -> tuple[str, ...]:
    """The four known accounts, then any other that the ledger names."""
    return (*ACCOUNTS, *sorted(set(report.spent) - set(ACCOUNTS)))


def account_class(name: str) -> str:
    """Style class of an account."""
    return f"account-{name}" if name in ACCOUNTS else "account-other"


def budget_bar(report: Report) -> Markup | None:
    """Charged FLOPs by account as one stacked bar against the limit."""
    totals = report.spent
    charged = sum(totals.values())
    if not charged:
        return None
    limit = report.run.flop_limit
    full = max(charged, limit or 0)
    size, unit = flop_unit(full)
    x = Scale(0, full / size, 14, WIDTH - 14)
    parts = [element("rect", tip("not spent"), x=14, y=26, width=WIDTH - 28, height=34, class_="unspent")]
    at = 0.0
    for name in accounts(report):
        share = totals.get(name, 0)
        if not share:
            continue
        left, right = x(at / size), x((at + share) / size)
        words = f"{name}: {flops(share)}, {percent(share / charged)} of what was charged"
        parts.append(
            element("rect", tip(words), x=left, y=26, width=max(right - left, 1), height=34, class_=account_class(name))
        )
        if right - left > 8 * len(name) + 12:
            inside = f"{account_class(name)}-ink inside"
            parts.append(label(name, (left + right) / 2, 47, anchor="middle", class_=inside))
        at += share
    for value in x.ticks(8):
        parts.append(line(x(value), 60, x(value), 65, "axis"))
        parts.append(label(tick_text(value), x(value), 79, anchor="middle"))
    parts.append(label(f"charged compute ({unit})", WIDTH / 2, 98, anchor="middle", class_="axis-title"))
    if limit:
        parts.append(line(x(limit / size), 18, x(limit / size), 66, "limit"))
        parts.append(label(f"limit {flops(limit)}", x(limit / size), 13, anchor="end", class_="note"))
    name = f"Budget: {flops(charged)} charged" + (f" of {flops(limit)}" if limit else "")
    return drawing(WIDTH, 104, name, *parts)


def budget_by_generation(report: Report) -> Markup | None:
    """Charged FLOPs by account: a stacked column for the seed genome, each generation and the final comparison."""
    numbers = report.numbers or (0,)
    names = {numbers[0] - 1: "seed", numbers[-1] + 1: "final"}
    columns = {number: Counter[str]() for number in (*names, *numbers)}
    for charge in report.charges:
        if charge.key.startswith("final/"):
            columns[numbers[-1] + 1][charge.account] += charge.flops
        elif charge.generation in columns:
            columns[charge.generation][charge.account] += charge.flops
    drawn = [number for number in sorted(columns) if columns[number] or number not in names]
    highest = max(sum(column.values()) for column in columns.values())
    if not highest:
        return None
    size, unit = flop_unit(highest)
    return _stacked(
        [
            (number, [(name, columns[number][name] / size, account_class(name)) for name in accounts(report)])
            for number in drawn
        ],
        highest * 1.04 / size,
        f"charged compute ({unit})",
        "Charged compute by generation and account",
        names,
    )


def fates_by_generation(report: Report) -> Markup | None:
    """Shares of the proposals of each generation by what became of them."""
    if not report.candidates:
        return None
    rows = []
    for number in report.numbers:
        members = [candidate for candidate in report.candidates if candidate.generation == number]
        rows.append((number, _shares(members)))
    return _stacked(rows, 1.0, "share of proposals", "Share of proposals by fate and generation")


def _shares(members: Sequence[Candidate]) -> list[Segment]:
    counts = Counter(candidate.fate for candidate in members)
    return [(fate, counts[fate] / max(len(members), 1), f"fate-{fate}") for fate in FATES]


def _stacked(
    rows: Sequence[tuple[int, list[Segment]]],
    high: float,
    y_title: str,
    name: str,
    names: Mapping[int, str] | None = None,
) -> Markup:
    """Stacked columns by generation; ``names`` are those of the columns that are none."""
    names = names or {}
    numbers = [number for number, _ in rows]
    rows = thin(rows, 50, lambda row: row[0] in names)
    plot = frame(HALF, 270, (numbers[0] - 0.6, numbers[-1] + 0.6), (0.0, high), "generation", y_title)
    counted = [number for number in numbers if number not in names]
    whole = whole_ticks(counted[0], counted[-1], 16) if counted else ()
    ticks = sorted({*whole, *(float(number) for number in names if number in numbers)})
    parts = [plot.axes(ticks, lambda value: names.get(round(value), f"{value:g}"))]
    half = min(26.0, (plot.x(numbers[0] + 1) - plot.x(numbers[0])) * 0.36)
    for number, segments in rows:
        place = names.get(number, f"generation {number}")
        parts += _column(plot, plot.x(number), half, segments, place)
    return drawing(HALF, 270, name, *parts)


def _column(plot: Frame, x: float, half: float, segments: Sequence[Segment], place: str) -> list[Markup]:
    base, parts = 0.0, []
    for segment, size, class_ in segments:
        if size > 0:
            upper, lower = plot.y(base + size), plot.y(base)
            words, height = f"{place}, {segment}: {decimal(size, 2)}", lower - upper
            parts.append(
                element("rect", tip(words), x=x - half, y=upper, width=2 * half, height=height, class_=f"bar {class_}")
            )
            base += size
    return parts


def fates_by_kind(report: Report) -> Markup | None:
    """One stacked bar per edit kind: how many proposals contained it, and what became of them."""
    names = [*KINDS, *sorted({kind for c in report.candidates for kind in c.kinds} - set(KINDS))]
    rows = [(name, [c for c in report.candidates if name in c.kinds]) for name in names]
    highest = max((len(members) for _, members in rows), default=0)
    if not highest:
        return None
    height = 40.0 * len(rows) + 56
    x = Scale(0, highest, 104, HALF - 16)
    parts = []
    for value in whole_ticks(0, highest, 7):
        parts.append(line(x(value), 6, x(value), height - 50, "gridline"))
        parts.append(label(tick_text(value), x(value), height - 32, anchor="middle"))
    for row, (name, members) in enumerate(rows):
        y, at = 10 + 40.0 * row, 0
        parts.append(label(name, 96, y + 18, anchor="end", class_="row-name"))
        counts = Counter(candidate.fate for candidate in members)
        for fate in FATES:
            if counts[fate]:
                words = f"{name}, {fate}: {counts[fate]} of {len(members)}"
                w = x(at + counts[fate]) - x(at)
                parts.append(element("rect", tip(words), x=x(at), y=y, width=w, height=27, class_=f"bar fate-{fate}"))
                if w >= 20:
                    middle = x(at) + w / 2
                    parts.append(
                        label(str(counts[fate]), middle, y + 18, anchor="middle", class_=f"inside fate-{fate}-ink")
                    )
                at += counts[fate]
    title = "proposals that contain the kind"
    parts.append(label(title, HALF / 2 + 44, height - 8, anchor="middle", class_="axis-title"))
    return drawing(HALF, height, "Proposals by edit kind and fate", *parts)


def controller_line(report: Report, field: str, title: str) -> Markup | None:
    """Loss or entropy of the controller by generation."""
    values = [(step.generation, step.loss if field == "loss" else step.entropy) for step in report.controller]
    known = [(generation, value) for generation, value in values if value is not None]
    if not known:
        return None
    low, high = min(0.0, *(v for _, v in known)), max(v for _, v in known)
    domain = (low, high * 1.12 if high > low else low + 1.0)
    marks = tuple(Mark(generation, value, f"generation {generation}: {decimal(value)}") for generation, value in known)
    return curves([Curve(0, marks)], domain, title, f"Controller: {title} by generation")
