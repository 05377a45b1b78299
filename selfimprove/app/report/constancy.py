"""Whether the constraint lives on: by generation, beside the parent, and what the halted direction causes."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from selfimprove.app.report.curves import Curve, Mark, curves
from selfimprove.app.report.evidence import retention_floor
from selfimprove.app.report.overview import Report
from selfimprove.app.report.progress import HALF
from selfimprove.app.report.readings import Beside, Inspection, Transfer
from selfimprove.app.report.svg import Scale, drawing, element, label, line, tip, whisker
from selfimprove.app.report.text import decimal, percent, signed
from selfimprove.app.report.views import Retention

ASIDE = 0.07  # of a generation, by which two intervals stand beside each other


def survival(report: Report) -> Markup | None:
    """The constraint in and out of distribution: lines through the champions, hollow dots for who was not promoted."""
    drawn = []
    for style, (inside, where) in enumerate(((True, "in"), (False, "out of"))):
        marks = []
        for one in report.inspected:
            share = one.kept(inside=inside)
            if share is not None:
                at = one.generation + (-ASIDE if inside else ASIDE)
                words = f"{one.name}, {where} distribution: {counted(share)}{'' if inside else _worst(one)}"
                champion = one.name == "seed" or report.won(one)
                marks.append(Mark(at, share.rate, words, share.low, share.high, joined=champion))
        drawn.append(Curve(style, tuple(marks), until=max(report.numbers, default=None)))
    name = "Constraint kept in and out of distribution, by generation, with 95% Wilson intervals"
    title = "share of halt prompts kept"
    return curves(drawn, (0.0, 1.0), title, name, limit=retention_floor(report), y_text=percent, seed=_seed(report))


def drift(report: Report) -> Markup | None:
    """How alike each inspected candidate is to its parent at the last layer; lines through the leading ones."""
    beside = [(one, one.beside) for one in report.inspected if one.beside is not None]
    cka = [_mark(report, one, found.cka, "linear CKA") for one, found in beside]
    turned = [_mark(report, one, found.aligned, "aligned cosine of the halted directions") for one, found in beside]
    chance = [_mark(report, one, found.chance, "aligned cosine by chance") for one, found in beside]
    drawn = [Curve(style, tuple(filter(None, marks))) for style, marks in enumerate((cka, turned, chance))]
    low = min((mark.y for curve in drawn for mark in curve.marks), default=0.0)
    name = "Likeness to the parent at the last layer, by generation"
    return curves(drawn, (-1.0 if low < 0 else 0.0, 1.0), "likeness (1 = the same)", name)


def _mark(report: Report, one: Inspection, value: float | None, what: str) -> Mark | None:
    if value is None:
        return None
    return Mark(one.generation, value, f"{one.name}, {what}: {decimal(value)}", joined=report.leads(one))


def _seed(report: Report) -> int | None:
    return next((one.generation for one in report.inspected if one.name == "seed"), None)


def _worst(one: Inspection) -> str:
    worst = one.worst
    return "" if worst is None else f"; least under {worst.name.replace('_', ' ')}: {counted(worst.share)}"


def counted(share: Retention) -> str:
    """Counts and interval in words."""
    return f"{share.kept} of {share.n}, 95% interval {decimal(share.low, 2)} to {decimal(share.high, 2)}"


def taken_out(report: Report) -> Markup | None:
    """Sequences with a halt token: what is left of halting without the halted direction."""
    rows = [(one.name, (c.halted, c.without, c.without_random)) for one in report.inspected if (c := one.causal)]
    return _dots(rows, "taken out", "with a halt token, share of sequences that halt")


def put_in(report: Report) -> Markup | None:
    """Sequences without a halt token: how many halt once the halted direction is put in."""
    rows = [(one.name, (c.plain, c.put, c.put_random)) for one in report.inspected if (c := one.causal)]
    return _dots(rows, "put in", "without a halt token, share of sequences that halt")


def _dots(rows: Sequence[tuple[str, tuple[Retention | None, ...]]], done: str, title: str) -> Markup | None:
    """A row a candidate: no intervention, the direction, random directions, each with its interval."""
    if not any(share for _, shares in rows for share in shares):
        return None
    words = ("no intervention", f"halted direction {done}", f"random directions {done}")
    pitch, top, left = 42.0, 8.0, 64.0
    bottom = top + pitch * len(rows)
    x, parts = Scale(0.0, 1.0, left, HALF - 24), []
    for value in x.ticks():
        parts.append(line(x(value), top, x(value), bottom, "gridline"))
        parts.append(label(percent(value), x(value), bottom + 17, anchor="middle"))
    parts.append(label(title, (left + HALF - 24) / 2, bottom + 36, anchor="middle", class_="axis-title"))
    for number, (name, shares) in enumerate(rows):
        y = top + pitch * (number + 0.5)
        parts.append(label(name, left - 10, y + 4, anchor="end", class_="row-name"))
        parts.append(line(left, y + pitch / 2, x.stop, y + pitch / 2, "gridline"))
        for style, share in enumerate(shares):
            if share is not None:
                parts.append(_dot(x, y + 10 * (style - 1), share, style, f"{name}, {words[style]}"))
    return drawing(HALF, bottom + 44, f"The halted direction {done}: {title}", *parts)


def _dot(x: Scale, y: float, share: Retention, style: int, words: str) -> Markup:
    bar = whisker(y, (x(share.low), x(share.high)), f"w{style}", across=True, reach=3.0)
    dot = element("circle", cx=x(share.rate), cy=y, r=4, class_=f"dot d{style}")
    return element("g", tip(f"{words}: {counted(share)}"), bar, dot)


def heads(beside: Beside) -> str:
    """What became of the kinds of heads, in words."""
    found = [
        f"{fate} {', '.join(kind.replace('_', ' ') for kind in kinds)}" for fate, kinds in beside.heads.items() if kinds
    ]
    return "; ".join(found) or "none of either"


def carried(one: Transfer, names: Sequence[str]) -> str:
    """How well the parent's probe reads the child, in words."""
    place = names[one.layer] if one.layer < len(names) else f"layer {one.layer}"
    direct = "" if one.direct is None else f", {decimal(one.direct, 2)} as it is"
    return f"{one.variable} {decimal(one.aligned, 2)} aligned{direct}; own {decimal(one.child, 2)} at {place}"


def direction(beside: Beside) -> str:
    """The drift of the halted direction, in words."""
    if beside.aligned is None and beside.cosine is None:
        return beside.without.get("halt direction", "not compared")
    return (
        f"{signed(beside.aligned, 2)} aligned (chance {decimal(beside.chance, 2)}), {signed(beside.cosine, 2)} as it is"
    )
