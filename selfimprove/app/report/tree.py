"""The lineage tree: generations from left to right, the champion's lane on top, the edit on every edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from selfimprove.app.report.colors import sequential
from selfimprove.app.report.overview import Report
from selfimprove.app.report.progress import WIDTH
from selfimprove.app.report.svg import MONO, drawing, element, join, label, path, px, tip
from selfimprove.app.report.text import decimal, edit_lines
from selfimprove.app.report.views import Candidate

ROW = 50.0  # three lines of an edit, or a node with its name above and its skill below
LINES = 3
HEADER = 56.0
FONT = 10.5  # size of the words on an edge, in pixels
SPREAD = 26.0  # room in which the edges of one generation bend away from the champion's lane
NODE = 48.0  # room of a node with its words
NARROWEST, WIDEST = 248.0, 400.0  # width of a generation: five of them fill a page of 1440 pixels
ROOT, END = 48.0, 30.0  # room of the seed, and behind the last generation
RADIUS = 8.5
MAX_ROWS, MAX_NODES = 24, 200  # per generation, and in all; the table holds the rest

_STATE_WORDS = {"pending": "open", "rejected": "no score", "promoted": "no score"}


@dataclass(frozen=True)
class _Spot:
    x: float
    y: float


@dataclass
class _Plan:
    """Where everything goes, filled column by column."""

    column: float  # width of a generation
    spots: dict[str, _Spot] = field(default_factory=dict)  # genome -> place of its node
    lane: _Spot = _Spot(ROOT / 2, HEADER + ROW / 2)  # the champion before the column that is drawn
    champion: str = ""

    @property
    def words(self) -> float:
        """Width of the words on an edge."""
        return self.column - SPREAD - NODE

    def start(self, number: int) -> float:
        """Where the words of a generation begin."""
        return ROOT + number * self.column + SPREAD


def skill_domain(report: Report) -> tuple[float, float]:
    """The skills that the colour scale spans, widened to tenths; what is worse than a guess counts as a guess."""
    skills = [c.score.skill for c in report.candidates if c.score]
    skills += [report.seed_score.skill] if report.seed_score else []
    if not skills:
        return 0.0, 1.0
    low, high = max(int(min(skills) * 10 // 1) / 10, 0.0), -int(-max(skills) * 10 // 1) / 10
    return (low, high) if high > low else (low, low + 0.1)


def lineage_tree(report: Report) -> Markup:
    """Draw the tree; every node links to its row in the table of candidates."""
    numbers = report.numbers
    plan = _Plan(min(WIDEST, max(NARROWEST, (WIDTH - ROOT - END) / max(len(numbers), 1))), champion=report.seed_genome)
    plan.spots[report.seed_genome] = plan.lane
    domain = skill_domain(report)
    edges: list[Markup] = []
    bold: list[Markup] = []
    nodes = [_root(report, plan.lane, domain)]
    tallest = 1
    most = _most(report)
    for column, generation in enumerate(numbers):
        members = [c for c in report.candidates if c.generation == generation]
        rows = _ordered(members)
        winner = rows[0] if rows and rows[0].fate == "promoted" else None
        x = plan.start(column) + plan.words + NODE / 2
        closed = any(entry.number == generation for entry in report.generations)
        nodes.append(_heading(generation, members, winner, plan.start(column), closed=closed))
        if winner is None:
            bold.append(path([(plan.lane.x, plan.lane.y), (x, plan.lane.y)], "edge kept"))
            nodes.append(_kept(x, plan.lane.y, report, plan.champion, closed=closed))
        first = 0 if winner else 1
        tallest = max(tallest, first + min(len(rows), most + 1))
        for row, candidate in enumerate(rows[:most], start=first):
            spot = _Spot(x, HEADER + ROW * (row + 0.5))
            source = plan.lane if candidate.parent == plan.champion else plan.spots.get(candidate.parent)
            (bold if candidate is winner else edges).append(_edge(source, spot, candidate, plan))
            nodes.append(_node(candidate, spot, domain, plan.words))
            if candidate.genome and candidate.fate != "duplicate":
                plan.spots.setdefault(candidate.genome, spot)
        if len(rows) > most:
            more = f"and {len(rows) - most} more"
            nodes.append(label(more, x - NODE / 2, HEADER + ROW * (first + most + 0.5), anchor="end", class_="muted"))
        plan.lane = _Spot(x, plan.lane.y)
        plan.champion = winner.genome if winner else plan.champion
    width, height = ROOT + len(numbers) * plan.column + END, HEADER + ROW * tallest + 8
    return drawing(width, height, _summary(report), join(edges), join(bold), join(nodes), role="group", class_="tree")


def drawn(report: Report) -> set[str]:
    """Names of the candidates that have a node."""
    most = _most(report)
    members = ([c for c in report.candidates if c.generation == generation] for generation in report.numbers)
    return {c.name for one in members for c in _ordered(one)[:most]}


def _most(report: Report) -> int:
    """Nodes of one generation."""
    return max(1, min(MAX_ROWS, MAX_NODES // max(len(report.numbers), 1)))


def _ordered(members: Sequence[Candidate]) -> list[Candidate]:
    """Promoted first, then by skill, then what was never scored, by index."""
    return sorted(
        members,
        key=lambda c: (c.fate != "promoted", c.score is None, -c.score.skill if c.score else 0.0, c.index),
    )


def _summary(report: Report) -> str:
    count = len(report.lineage())
    return (
        f"Lineage tree with {len(report.candidates)} candidates in {len(report.numbers)} generations; "
        f"{count} on the path from the seed to the champion. Every node links to its row in the table of candidates."
    )


def _root(report: Report, spot: _Spot, domain: tuple[float, float]) -> Markup:
    skill = report.seed_score.skill if report.seed_score else None
    return element(
        "g",
        tip(f"Seed genome {report.seed_genome[:10]}, skill {decimal(skill)}"),
        _shape("seed", spot, _fill(skill, domain), "node promoted"),
        *_words("seed", decimal(skill, 2), spot, strong=True),
    )


def _heading(
    generation: int, members: Sequence[Candidate], winner: Candidate | None, x: float, *, closed: bool
) -> Markup:
    scored = sum(1 for c in members if c.score)
    verdict = f"c{winner.index:02d} promoted" if winner else "no promotion" if closed else "not decided yet"
    return join(
        [
            label(f"Generation {generation}", x, 16, class_="column-title"),
            label(f"{len(members)} proposed, {scored} scored, {verdict}", x, 32, class_="muted"),
        ]
    )


def _kept(x: float, y: float, report: Report, champion: str, *, closed: bool) -> Markup:
    holder = next((c.name for c in report.candidates if c.genome == champion and c.fate == "promoted"), "seed")
    words = f"No promotion: {holder} stays the champion" if closed else f"Not decided yet: {holder} is the champion"
    return element(
        "g",
        tip(words),
        element("circle", cx=x, cy=y, r=5, class_="node kept"),
        label(f"{holder} kept" if closed else "open", x, y - 11.5, anchor="middle", class_="node-name"),
    )


def _edge(source: _Spot | None, target: _Spot, candidate: Candidate, plan: _Plan) -> Markup:
    start = target.x - NODE / 2 - plan.words
    class_ = "edge promoted" if candidate.fate == "promoted" else "edge"
    if source is None:
        return path([(start, target.y), (target.x - RADIUS, target.y)], class_)
    x0, y0, y1, bend = source.x, px(source.y), px(target.y), start - SPREAD
    curve = f"C{px(start - 8)} {y0} {px(bend + 8)} {y1} {px(start)} {y1}"
    if start - x0 > plan.column:
        class_ += " far"
    return element("path", d=f"M{px(x0)} {y0}H{px(bend)}{curve}H{px(target.x - RADIUS)}", class_=class_)


def _node(candidate: Candidate, spot: _Spot, domain: tuple[float, float], width: float) -> Markup:
    skill = candidate.score.skill if candidate.score else None
    below = _STATE_WORDS.get(candidate.fate, candidate.fate) if skill is None else decimal(skill, 2)
    lines = edit_lines(candidate.edits, int(width / (FONT * MONO)), LINES)
    x, offsets = spot.x - NODE / 2 - width, (-6.0, 13.0, 24.5)
    text = [label(line, x, spot.y + dy, class_="edit") for line, dy in zip(lines, offsets, strict=False)]
    return element(
        "a",
        tip(_tooltip(candidate, skill)),
        *text,
        _shape(candidate.kind, spot, _fill(skill, domain), f"node {candidate.fate}"),
        _strike(spot, candidate.fate),
        *_words(f"c{candidate.index:02d}", below, spot, strong=candidate.fate == "promoted"),
        href=f"#{candidate.name}",
        class_=f"candidate {candidate.fate}",
    )


def _words(name: str, below: str, spot: _Spot, *, strong: bool) -> tuple[Markup, Markup]:
    """Name above a node and skill below it: on the champion's lane edges leave to the right."""
    return (
        label(name, spot.x, spot.y - 11.5, anchor="middle", class_="node-name strong" if strong else "node-name"),
        label(below, spot.x, spot.y + 18.5, anchor="middle", class_="node-skill"),
    )


def _tooltip(candidate: Candidate, skill: float | None) -> str:
    parts = [f"{candidate.name}, {candidate.kind}, {candidate.fate}", *candidate.edits]
    if skill is not None:
        parts.append(f"search skill {decimal(skill)}")
    reasons = candidate.decision_reasons or tuple(filter(None, (candidate.reason,)))
    parts += [candidate.denial.reason] if candidate.denial else list(reasons)
    return "\n".join(parts)


def _fill(skill: float | None, domain: tuple[float, float]) -> str | None:
    return None if skill is None else sequential((skill - domain[0]) / (domain[1] - domain[0]))


def _shape(kind: str, spot: _Spot, fill: str | None, class_: str) -> Markup:
    """Square for architecture, triangle for objective, circle for recipe, diamond for mixed edits."""
    class_ = class_ if fill else f"{class_} hollow"
    r = RADIUS
    corners = {
        "architecture": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "objective": ((0.0, -1.1), (1.1, 0.85), (-1.1, 0.85)),
        "mixed": ((0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)),
        "seed": ((-0.5, -1.0), (0.5, -1.0), (1.05, 0.0), (0.5, 1.0), (-0.5, 1.0), (-1.05, 0.0)),
    }.get(kind)
    if corners is None:
        return element("circle", cx=spot.x, cy=spot.y, r=r, fill=fill, class_=class_)
    points = " ".join(f"{px(spot.x + dx * r)},{px(spot.y + dy * r)}" for dx, dy in corners)
    return element("polygon", points=points, fill=fill, class_=class_)


def _strike(spot: _Spot, fate: str) -> Markup:
    """A bar through a node that was denied, two through one that was stopped, a cross through one that failed."""
    r, x, y = RADIUS * 0.55, spot.x, spot.y
    if fate == "denied":
        return element("path", d=f"M{px(x - r)} {px(y)}H{px(x + r)}", class_="strike bold")
    if fate == "stopped":
        bars = "".join(f"M{px(x + dx)} {px(y - r)}V{px(y + r)}" for dx in (-r / 2, r / 2))
        return element("path", d=bars, class_="strike")
    if fate == "failed":
        down = f"M{px(x - r)} {px(y - r)}L{px(x + r)} {px(y + r)}"
        return element("path", d=f"{down}M{px(x - r)} {px(y + r)}L{px(x + r)} {px(y - r)}", class_="strike")
    return Markup("")


def legend_shape(kind: str, *, fill: str | None = "#1fa187", fate: str = "") -> Markup:
    """A swatch of a node for the legend."""
    spot = _Spot(12, 12)
    shape = _shape(kind, spot, fill, f"node {fate}")
    return element("svg", shape, _strike(spot, fate), width=24, height=24, viewBox="0 0 24 24", aria_hidden="true")


def color_bar(low: float, high: float, name: str, *, clipped: bool = False) -> Markup:
    """A horizontal colour scale with its ends labelled."""
    least = f"{low:g} or less" if clipped else f"{low:g}"
    left = 14.0 + 6.5 * len(least)
    steps = [element("rect", x=left + i * 6, y=5, width=6.5, height=12, fill=sequential(i / 19)) for i in range(20)]
    ends = [label(least, left - 6, 15, anchor="end"), label(f"{high:g}", left + 127, 15)]
    return drawing(left + 162, 22, f"{name}, from {least} (dark violet) to {high:g} (yellow)", *steps, *ends)
