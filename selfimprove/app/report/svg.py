"""Drawing primitives: escaped SVG elements, scales, axes. Every coordinate is checked to be finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

MONO = 0.605  # advance of a monospaced glyph, in em


def px(value: float) -> str:
    """A coordinate with at most one decimal.

    Raises:
        ValueError: the value is not finite; a NaN in a path would silently blank the figure.
    """
    if not math.isfinite(value):
        raise ValueError(f"draw a coordinate: got {value!r}; allowed: finite numbers")
    shown = f"{value:.1f}".removesuffix(".0")
    return "0" if shown == "-0" else shown


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """One element. Children that are not Markup are escaped; a trailing underscore in a keyword is dropped.

    Example:
        >>> str(element("text", "a < b", x=1.5, class_="tick"))
        '<text x="1.5" class="tick">a &lt; b</text>'
    """
    pieces = [name]
    for key, value in attributes.items():
        if value is not None:
            shown = value if isinstance(value, str) else px(value)
            pieces.append(f'{key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    inner = Markup("").join(escape(child) for child in children)
    return Markup(f"<{' '.join(pieces)}>{inner}</{name}>")


def join(parts: Sequence[Markup]) -> Markup:
    """Elements in drawing order."""
    return Markup("").join(parts)


def label(content: str, x: float, y: float, *, anchor: str = "start", class_: str = "tick", **extra: str) -> Markup:
    """A line of text; ``anchor`` is start, middle or end."""
    return element("text", content, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_, **extra)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """An open polyline through at least one point."""
    steps = "L".join(f"{px(x)} {px(y)}" for x, y in points)
    return element("path", d=f"M{steps}", class_=class_)


def whisker(at: float, ends: tuple[float, float], class_: str, *, across: bool = False, reach: float = 4.0) -> Markup:
    """An interval with a bar at each end: upright at x = ``at``, or lying at y = ``at`` where it goes ``across``."""
    low, high = map(px, ends)
    near, far, middle = px(at - reach), px(at + reach), px(at)
    if across:
        d = f"M{low} {middle}H{high}M{low} {near}V{far}M{high} {near}V{far}"
    else:
        d = f"M{middle} {low}V{high}M{near} {low}H{far}M{near} {high}H{far}"
    return element("path", d=d, class_=f"whisker {class_}")


def tip(content: str) -> Markup:
    """A tooltip, which is also the accessible name of the element around it."""
    return element("title", content)


def shorten(content: str, limit: int) -> str:
    """At most ``limit`` characters, with an ellipsis where something was cut."""
    return content if len(content) <= limit else content[: max(limit - 1, 1)].rstrip() + "…"


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from a domain to pixels."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, held inside the domain."""
        value = min(max(value, self.low), self.high)
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        share = 0.5 if high == low else (value - low) / (high - low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int = 5) -> tuple[float, ...]:
        """About ``count`` round values inside the domain."""
        if self.log:
            return _log_ticks(self.low, self.high)
        step = nice_step(self.high - self.low, count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return tuple(index * step for index in range(first, last + 1))


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that divides ``span`` into at most ``count`` parts."""
    if span <= 0:
        return 1.0
    raw = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = tuple(f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high)
        if len(found) <= 8:
            break
    return found


def tick_text(value: float) -> str:
    """A tick without trailing zeros and with a true minus sign."""
    shown = f"{value:.10g}" if abs(value) >= 1e-12 else "0"
    return shown.replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Frame:
    """A plot area with its two scales and axis titles, in pixels."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str

    def axes(
        self,
        x_ticks: Sequence[float] | None = None,
        x_text: Callable[[float], str] = tick_text,
        y_text: Callable[[float], str] = tick_text,
        y_count: int = 5,
    ) -> Markup:
        """Grid lines, ticks, tick labels and axis titles."""
        left, right, bottom, top = self.x.start, self.x.stop, self.y.start, self.y.stop
        parts = []
        for value in self.y.ticks(y_count):
            parts.append(line(left, self.y(value), right, self.y(value), "gridline"))
            parts.append(label(y_text(value), left - 7, self.y(value) + 4, anchor="end"))
        for value in self.x.ticks() if x_ticks is None else x_ticks:
            parts.append(line(self.x(value), bottom, self.x(value), bottom + 4, "axis"))
            parts.append(label(x_text(value), self.x(value), bottom + 17, anchor="middle"))
        parts.append(line(left, bottom, right, bottom, "axis"))
        middle = (top + bottom) / 2
        parts.append(label(self.x_title, (left + right) / 2, bottom + 36, anchor="middle", class_="axis-title"))
        turn = f"rotate(-90 13 {px(middle)})"
        parts.append(label(self.y_title, 13, middle, anchor="middle", class_="axis-title", transform=turn))
        return join(parts)


def frame(
    width: float,
    height: float,
    x_domain: tuple[float, float],
    y_domain: tuple[float, float],
    x_title: str,
    y_title: str,
    *,
    log_x: bool = False,
    left: float = 58,
    right: float = 16,
    top: float = 12,
) -> Frame:
    """A frame with room for tick labels and titles on the left and below."""
    x = Scale(*x_domain, left, width - right, log=log_x)
    return Frame(x, Scale(*y_domain, height - 44, top), x_title, y_title)


def whole_ticks(low: int, high: int, count: int = 10) -> tuple[float, ...]:
    """Whole numbers from ``low`` to ``high``, thinned to about ``count``."""
    step = max(1, math.ceil((high - low + 1) / count))
    return tuple(float(value) for value in range(low, high + 1, step))


def drawing(width: float, height: float, name: str, *content: Markup, role: str = "img", class_: str = "") -> Markup:
    """The outer ``svg`` with its accessible name."""
    return element(
        "svg",
        *content,
        width=width,
        height=height,
        viewBox=f"0 0 {px(width)} {px(height)}",
        role=role,
        aria_label=name,
        class_=class_ or None,
    )
