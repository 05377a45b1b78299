"""Figures of the controller over the generations: what its proposals gained, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from selfimprove.app.report.curves import Curve, Mark, curves
from selfimprove.app.report.overview import Report, thin
from selfimprove.app.report.progress import HALF
from selfimprove.app.report.quality import GenerationQuality
from selfimprove.app.report.svg import drawing, element, frame, line, nice_step, path, tip
from selfimprove.app.report.text import decimal, signed
from selfimprove.app.report.views import Fate
from selfimprove.app.units import flop_unit, flops

HEIGHT = 300.0
ONE, SOME = 1, 4  # the k of imp@k that are drawn
MOST_ROWS = 12
WORDS: Mapping[Fate, str] = {"rejected": "scored"}
"""How a fate is called in a table, where its own name would mislead."""


def gained(report: Report) -> Markup | None:
    """Confirmed gain so far against charged FLOPs, with the best human discovery; None where nothing was scored."""
    confirmed, human = report.quality.confirmed, report.quality.human
    if not confirmed.values:
        return None
    end = max(report.run.charged, confirmed.charged[-1], 1)
    size, unit = flop_unit(end)
    target = human.ladder.gain if human.ladder and not human.reason else None
    values = [*confirmed.values, target or 0.0, 0.0]
    step = nice_step(max(values) - min(values) or 0.1, 6)
    domain = (min(values) // step * step, -(-(max(values) or step) // step) * step)
    titles = (f"charged compute ({unit})", "gain of skill, confirmed")
    plot = frame(HALF, HEIGHT, (0.0, 1.02 * end / size), domain, *titles)
    points: list[tuple[float, float]] = []
    marks = []
    for place, value in zip(confirmed.charged, confirmed.values, strict=True):
        x = plot.x(place / size)
        points += [(x, points[-1][1])] if points else []
        points.append((x, plot.y(value)))
        words = tip(f"{signed(value)} after {flops(place)}")
        marks.append(element("circle", words, cx=x, cy=plot.y(value), r=4, class_="dot d0"))
    points.append((plot.x(end / size), points[-1][1]))
    parts = [plot.axes()]
    if target is not None:
        parts.append(line(plot.x.start, plot.y(target), plot.x.stop, plot.y(target), "reference"))
    name = f"Confirmed gain against charged compute: {signed(confirmed.values[-1])} after {flops(end)}"
    return drawing(HALF, HEIGHT, name, *parts, path(points, "series s0"), *thin(marks, 60, lambda _: False))


def improvement(report: Report) -> Markup | None:
    """imp@k by generation: of one proposal, of four, and of all, the last on fresh seeds."""
    rows = [one for one in report.quality.generations if one.imp]
    series = (
        [(one.generation, one.fresh) for one in rows],  # of all
        [(one.generation, one.imp.get(SOME)) for one in rows],
        [(one.generation, one.imp.get(ONE)) for one in rows],
    )
    values = [value for pairs in series for _, value in pairs if value is not None]
    if not values:
        return None
    low, high = min(0.0, *values), max(0.0, *values)
    step = nice_step(high - low or 0.1, 6)
    drawn = [
        Curve(style, tuple(Mark(g, v, f"g{g}: {signed(v, 4)}") for g, v in pairs if v is not None))
        for style, pairs in enumerate(series)
    ]
    domain = (low // step * step, -(-(high or step) // step) * step)
    return curves(drawn, domain, "skill over the parent", "imp@k by generation")


def rows(report: Report) -> tuple[GenerationQuality, ...]:
    """The generations that get a row: all, or evenly thinned, those with a promotion kept."""
    return thin(report.quality.generations, MOST_ROWS, lambda one: one.gained != 0)


def subsets(report: Report) -> tuple[int, ...]:
    """The k that get a column: those that every generation has, all proposals left out."""
    kept = [set(one.imp) - {one.proposals} for one in report.quality.generations if one.imp]
    return tuple(sorted(set.intersection(*kept))) if kept else ()


def kinds(report: Report) -> tuple[str, ...]:
    """Every kind of edit that was proposed, in order of first appearance."""
    return tuple(dict.fromkeys(kind for one in report.quality.generations for kind in one.kinds))


def fates(one: GenerationQuality, kind: str) -> str:
    """What became of a generation's proposals of a kind, in words: the most frequent fate first."""
    counts = sorted(one.kinds.get(kind, {}).items(), key=lambda pair: -pair[1])
    return ", ".join(f"{count} {WORDS.get(fate, fate)}" for fate, count in counts)


def figures_of_merit(report: Report) -> tuple[tuple[str, str], ...]:
    """The run as a search, in a few named figures."""
    quality, human = report.quality, report.quality.human
    last = quality.confirmed.values[-1] if quality.confirmed.values else None
    found = [("Confirmed gain, all promotions together", signed(last))]
    if quality.area is not None:
        found.append(("Area under the best search skill", f"{decimal(quality.area)} of a perfect skill from the start"))
    if quality.regret is not None:
        found.append(("Simple regret of the best search skill", decimal(quality.regret)))
    found.append(("Acceleration exponent", str(quality.acceleration)))
    if human.recovered is None:
        found.append(("Share of the human ladder recovered", f"not comparable: {human.reason}"))
    else:
        reached = "not reached" if human.passed is None else f"reached after {flops(human.passed)}"
        found.append(("Share of the human ladder recovered", f"{decimal(human.recovered, 2)}; {reached}"))
    return tuple(found)
