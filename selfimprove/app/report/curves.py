"""Lines over the generations: one plot for several quantities that share an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from selfimprove.app.report.overview import thin
from selfimprove.app.report.progress import HALF
from selfimprove.app.report.svg import Frame, drawing, element, frame, line, path, tick_text, tip, whisker, whole_ticks

MOST_MARKS = 30


@dataclass(frozen=True)
class Mark:
    """One value of a curve.

    Attributes:
        x: a generation.
        y: the value.
        words: of the tooltip.
        low, high: ends of its interval, where there is one.
        joined: whether the line goes through it; else it is a hollow dot beside the line.
    """

    x: float
    y: float
    words: str
    low: float | None = None
    high: float | None = None
    joined: bool = True


@dataclass(frozen=True)
class Curve:
    """One quantity.

    Attributes:
        style: 0, 1 or 2.
        marks: its values.
        until: where the last one ends, if each value holds until the next; else the line is straight in between.
    """

    style: int
    marks: tuple[Mark, ...]
    until: float | None = None


def curves(
    drawn: Sequence[Curve],
    y_domain: tuple[float, float],
    y_title: str,
    name: str,
    *,
    limit: float | None = None,
    y_text: Callable[[float], str] = tick_text,
    seed: int | None = None,
) -> Markup | None:
    """The plot; None without a value.

    Args:
        drawn: what to draw, the first on top.
        y_domain: ends of the axis; values outside are drawn at its ends.
        y_title: its title, with the unit.
        name: of the drawing.
        limit: a bound to draw across.
        y_text: how a tick of the y axis reads.
        seed: the generation that stands for the seed genome.
    """
    places = [mark.x for curve in drawn for mark in curve.marks]
    if not places:
        return None
    first, last = round(min(places)), round(max(places))
    plot = frame(HALF, 270, (min(places) - 0.4, max(places) + 0.4), y_domain, "generation", y_title)
    parts = [plot.axes(whole_ticks(first, last), lambda v: "seed" if v == seed else f"{v:g}", y_text)]
    if limit is not None:
        parts.append(line(plot.x.start, plot.y(limit), plot.x.stop, plot.y(limit), "limit"))
    for curve in reversed(drawn):
        parts += _curve(plot, curve)
    return drawing(HALF, 270, name, *parts)


def _curve(plot: Frame, curve: Curve) -> list[Markup]:
    points: list[tuple[float, float]] = []
    for mark in (mark for mark in curve.marks if mark.joined):
        x, y = plot.x(mark.x), plot.y(mark.y)
        points += [(x, points[-1][1])] if curve.until is not None and points else []
        points.append((x, y))
    if curve.until is not None and points:
        points.append((max(plot.x(curve.until), points[-1][0]), points[-1][1]))
    parts = [path(points, f"series s{curve.style}")] if points else []
    return parts + [_mark(plot, mark, curve.style) for mark in thin(curve.marks, MOST_MARKS, lambda _: False)]


def _mark(plot: Frame, mark: Mark, style: int) -> Markup:
    x, parts = plot.x(mark.x), [tip(mark.words)]
    if mark.low is not None and mark.high is not None:
        parts.append(whisker(x, (plot.y(mark.low), plot.y(mark.high)), f"w{style}"))
    class_ = f"dot d{style}" if mark.joined else f"dot d{style} open"
    parts.append(element("circle", cx=x, cy=plot.y(mark.y), r=4, class_=class_))
    return element("g", *parts)
