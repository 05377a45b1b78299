"""Best-so-far against charged FLOPs, and skill by task over the generations."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from selfimprove.app.report.overview import Report, thin
from selfimprove.app.report.svg import Frame, drawing, element, frame, join, label, line, path, px, tip, whole_ticks
from selfimprove.app.report.text import decimal
from selfimprove.app.report.views import Candidate, Curve, Score
from selfimprove.app.units import flop_unit, flops

LOG_RATIO = 20.0  # spread of final spending between runs from which the axis turns logarithmic
WIDTH, HEIGHT = 1320.0, 380.0
HALF = 636.0  # width of a figure that shares its row with another
FLOOR = -0.2  # a candidate below it may be drawn at the edge: how bad the bad ones are must not flatten the rest
SERIES = 6  # number of categorical styles in the style sheet


def best_so_far(report: Report) -> Markup | None:
    """Step line of the best search skill against charged FLOPs; None where nothing was scored."""
    curves = (report.curve, *report.baselines)
    scored = [curve for curve in curves if curve.points]
    if not scored:
        return None
    size, unit = flop_unit(max(curve.charged for curve in curves))
    skills = [point.skill for curve in scored for point in curve.points]
    bests = [curve.points[0].skill for curve in scored]  # where the lines start: they only rise
    low = lowest(skills, bests + ([report.seed_score.skill] if report.seed_score else []))
    domain, log = x_domain(scored, report.run.flop_limit, size)
    plot = frame(
        WIDTH,
        HEIGHT,
        domain,
        (low, highest(skills)),
        f"charged compute ({unit}, {'log' if log else 'linear'} scale)",
        "search skill (0 = uniform guess, 1 = perfect)",
        log_x=log,
    )
    parts = [plot.axes()]
    parts += [_limit(plot, report.run.flop_limit, size)]
    if report.seed_score:
        limit = (report.run.flop_limit or 0) / size
        end = plot.x(limit) if 0 < limit <= plot.x.high else plot.x.stop
        parts.append(_reference(plot, report.seed_score.skill, end))
    for number, curve in reversed(list(enumerate(curves))):
        if curve.points:
            parts.append(steps(plot, curve, size, number))
    parts += [
        dot(plot, point.flops / size, point.skill, f"{point.name}: {decimal(point.skill)}", "dot faint")
        for point in thin(report.curve.points, 400, lambda point: False)
    ]
    parts += _promotions(plot, report, size)
    best = max(point.skill for point in report.curve.points) if report.curve.points else None
    name = (
        f"Best search skill against charged compute; this run reaches {decimal(best)} after {flops(report.run.charged)}"
    )
    return drawing(WIDTH, HEIGHT, name, *parts)


def x_domain(curves: Sequence[Curve], limit: int | None, size: float) -> tuple[tuple[float, float], bool]:
    """Ends of the axis of charged compute, and whether it is logarithmic: where spendings are far apart.

    Args:
        curves: with a point each.
        limit: on charged FLOPs, drawn in where it is near.
        size: of the axis' unit, in FLOPs.
    """
    ends = [max(curve.charged, curve.points[-1].flops, 1) for curve in curves]
    high = max(ends)
    if limit and high < limit <= 1.8 * high:
        high = limit
    if max(ends) / min(ends) < LOG_RATIO:
        return (0.0, high * 1.02 / size), False
    positive = [point.flops for curve in curves for point in curve.points if point.flops > 0]
    low = min(positive, default=1)
    return (min(low, high / 2) / size, high * 1.1 / size), True


def lowest(skills: Sequence[float], lines: Sequence[float]) -> float:
    """The lower end of an axis: 0, or as far below as the floor, or as what must not be cut off."""
    if min(*skills, *lines, 0.0) >= 0:
        return 0.0
    return min(FLOOR, *((value - 0.05) * 10 // 1 / 10 for value in lines))


def highest(skills: Sequence[float]) -> float:
    """The next tenth above what was reached."""
    return min(1.0, max(-int(-(max(skills) + 0.02) * 10 // 1) / 10, 0.2))


def steps(plot: Frame, curve: Curve, size: float, number: int) -> Markup:
    """The line of the best skill so far, up to what was charged."""
    points: list[tuple[float, float]] = []
    best = None
    for point in curve.points:
        if best is None or point.skill > best:
            x = plot.x(point.flops / size)
            if best is not None:
                points.append((x, plot.y(best)))
            best = point.skill
            points.append((x, plot.y(best)))
    if best is not None:
        points.append((plot.x(max(curve.charged, curve.points[-1].flops) / size), plot.y(best)))
    return element("g", tip(f"{curve.label}: best {decimal(best)}"), path(points, f"series s{number % SERIES}"))


def _limit(plot: Frame, limit: int | None, size: float) -> Markup:
    if not limit or limit / size > plot.x.high:
        return Markup("")
    x = plot.x(limit / size)
    return join(
        [
            line(x, plot.y.start, x, plot.y.stop, "limit"),
            label("FLOP limit", x - 6, plot.y.start - 8, anchor="end", class_="note"),
        ]
    )


def _reference(plot: Frame, skill: float, end: float) -> Markup:
    y = plot.y(skill)
    below = y + 15 if y + 20 < plot.y.start else y - 6
    return join(
        [
            line(plot.x.start, y, plot.x.stop, y, "reference"),
            label(f"seed genome {decimal(skill)}", end - 6, below, anchor="end", class_="note"),
        ]
    )


def dot(plot: Frame, x: float, y: float, words: str, class_: str, r: float = 2.6) -> Markup:
    """A dot; a triangle that points down at the lower edge where the value lies below it."""
    at = plot.x(x)
    if y < plot.y.low:
        edge = plot.y.start
        points = f"{px(at - 4)},{px(edge - 7)} {px(at + 4)},{px(edge - 7)} {px(at)},{px(edge)}"
        return element("polygon", tip(words), points=points, class_=class_)
    return element("circle", tip(words), cx=at, cy=plot.y(y), r=r, class_=class_)


def _promotions(plot: Frame, report: Report, size: float) -> list[Markup]:
    """A ring around the score of every promoted candidate, named."""
    places = {point.name: point for point in report.curve.points}
    parts = []
    for candidate in report.lineage():
        point = places.get(candidate.name)
        if point:
            words = f"{candidate.name}, promoted, search skill {decimal(point.skill)}"
            parts.append(dot(plot, point.flops / size, point.skill, words, "dot ring", r=5.5))
    return parts


def task_skills(report: Report) -> tuple[tuple[str, Markup], ...]:
    """One small plot per task family, with the average first: all candidates as dots, the champion as a line."""
    if not any(candidate.score for candidate in report.candidates):
        return ()
    return tuple((name or "average", _task_plot(report, name)) for name in ("", *report.families))


def _task_plot(report: Report, family: str) -> Markup:
    values = [
        (candidate, skill) for candidate in report.dotted if (skill := task_skill(candidate.score, family)) is not None
    ]
    numbers = report.numbers
    domain = (float(numbers[0]) - 1, float(numbers[-1]) + 0.4)
    seed = task_skill(report.seed_score, family)
    held = [task_skill(champion.score, family) for _, champion in champions(report) if champion]
    low = lowest([skill for _, skill in values], [skill for skill in (seed, *held) if skill is not None])
    plot = frame(312, 222, (domain[0] - 0.3, domain[1]), (low, 1.0), "generation", "skill", left=46, right=10)
    ticks = whole_ticks(numbers[0], numbers[-1], 8)
    parts = [plot.axes([domain[0], *ticks], lambda v: "seed" if v == domain[0] else f"{v:g}")]
    for candidate, skill in values:
        shift = (candidate.index % 5 - 2) * 0.07
        words = f"{candidate.name}: {decimal(skill)}"
        parts.append(dot(plot, candidate.generation + shift, skill, words, "dot faint"))
    parts.append(_champion_line(plot, report, family, seed))
    return drawing(312, 222, f"Skill on {family or 'average over tasks'} by generation", *parts)


def task_skill(score: Score | None, family: str) -> float | None:
    """Skill on one family, or the average where ``family`` is empty."""
    if score is None:
        return None
    if not family:
        return score.skill
    task = score.tasks.get(family)
    return task.skill if task else None


def champions(report: Report) -> tuple[tuple[int, Candidate | None], ...]:
    """The champion after every generation; None while it is still the seed."""
    champion: Candidate | None = None
    found = []
    for number in report.numbers:
        champion = report.promoted(number) or champion
        found.append((number, champion))
    return tuple(found)


def _champion_line(plot: Frame, report: Report, family: str, seed: float | None) -> Markup:
    points: list[tuple[float, float]] = []
    marks = []
    if seed is not None and report.numbers:
        points.append((plot.x(report.numbers[0] - 1), plot.y(seed)))
        marks.append(dot(plot, report.numbers[0] - 1, seed, f"seed genome: {decimal(seed)}", "dot solid", r=3.6))
    for number, champion in champions(report):
        skill = task_skill(champion.score, family) if champion else seed
        if skill is None:
            continue
        x = plot.x(number)
        points += [(x, points[-1][1])] if points else []
        points.append((x, plot.y(skill)))
        name = champion.name if champion else "seed genome"
        marks.append(dot(plot, number, skill, f"champion {name}: {decimal(skill)}", "dot solid", r=3.6))
    return join([path(points, "series s0"), *thin(marks, 60, lambda _: False)]) if points else Markup("")
