"""Several runs side by side: one page for what each was set up with, spent, found and proved."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from markupsafe import Markup

from selfimprove.app.report.climbs import exam_levels, read_levels
from selfimprove.app.report.comparisons import read_finals
from selfimprove.app.report.handovers import Handover, read_handovers, summed_up
from selfimprove.app.report.html import fill, write_page
from selfimprove.app.report.progress import HEIGHT, SERIES, WIDTH, dot, highest, lowest, steps, x_domain
from selfimprove.app.report.records import Records, mapping, shown, texts
from selfimprove.app.report.rivals import ABSENT, run_row, settings_apart
from selfimprove.app.report.scores import read_curve
from selfimprove.app.report.svg import drawing, frame, label
from selfimprove.app.report.text import decimal
from selfimprove.app.report.views import Comparison, Curve, RunRow
from selfimprove.app.units import flop_unit, flops
from selfimprove.archive.audit import AuditReport
from selfimprove.errors import RunError
from selfimprove.loop.anytime import Steps
from selfimprove.loop.anytime import best_so_far as rising

MOST_RUNS = len(ascii_uppercase)
SIZES = ("tasks.vocab_size", "tasks.context", "tasks.max_context")
_TITLE = re.compile(r"\s*<!DOCTYPE html>.{,2000}<title>\d+ runs compared · selfimprove</title>", re.DOTALL)
APART = 14.0  # least distance of two names at the ends of lines, in pixels


@dataclass(frozen=True)
class Entrant:
    """One run of a comparison.

    Attributes:
        letter: its short name: A, B, ...
        row: what a report says of a run beside another.
        experiment, generations: from its records.
        proposals: how many its ledger holds.
        curve: its search scores at what had been charged when they were made.
        best: best search skill so far, by charged FLOPs.
        levels: that its families reached; empty where none rose.
        exam_levels: of its families in the exam on the sealed split; empty where there was none.
        handovers: of the controller, one a promotion that raised the question.
        held_out: champion against seed genome on families that the search never saw, if that was examined.
        audit: what its audit found.
    """

    letter: str
    row: RunRow
    experiment: str
    generations: int
    proposals: int
    curve: Curve
    best: Steps
    levels: Mapping[str, int]
    exam_levels: Mapping[str, int]
    handovers: tuple[Handover, ...]
    held_out: Comparison | None
    audit: AuditReport

    @property
    def controller(self) -> str:
        """What became of the controller's place, in words."""
        return summed_up(self.handovers) or "no hand-over was in question"

    @property
    def examined_at(self) -> str:
        """The levels of the sealed exam that are above the lowest, in words; empty where none are recorded."""
        risen = ", ".join(f"{family} {level}" for family, level in self.exam_levels.items() if level)
        return f"at level {risen or 0}" if self.exam_levels else ""

    @property
    def sound(self) -> str:
        """The verdict of its audit, in words."""
        found = len(self.audit.findings)
        verdict = "OK" if self.audit.ok else f"NOT OK, {found} finding{'' if found == 1 else 's'}"
        return verdict if self.audit.anchored else f"{verdict}; not anchored here"


@dataclass(frozen=True)
class Comparing:
    """Several runs.

    Attributes:
        entrants: in the order in which they were named.
        apart: every setting in which they are not all alike, with its value in each.
        other_tasks: those of them that make skills incomparable.
        other_exams: those that make gains on held-out families incomparable.
        other_levels: families that were at different levels in the exams, which makes sealed gains incomparable.
    """

    entrants: tuple[Entrant, ...]
    apart: Mapping[str, tuple[str, ...]]
    other_tasks: tuple[str, ...]
    other_exams: tuple[str, ...]
    other_levels: tuple[str, ...]

    @property
    def common(self) -> int:
        """FLOPs that every run was charged: where they can be held against each other."""
        return min(entrant.curve.charged for entrant in self.entrants)


def compare_runs(runs: Mapping[str, tuple[Records, AuditReport]]) -> Comparing:
    """Runs by the name to show, with their records and what their audits found."""
    named = zip(ascii_uppercase, runs.items(), strict=False)
    entrants = tuple(_entrant(letter, name, *told) for letter, (name, told) in named)
    found = [records for records, _ in runs.values()]
    apart = settings_apart(found)
    searched = (*_of_tasks(found, apart, "families"), *(key for key in SIZES if key in apart))
    return Comparing(entrants, apart, searched, _of_tasks(found, apart, "held_out"), _of_exams(entrants))


def _of_exams(entrants: Sequence[Entrant]) -> tuple[str, ...]:
    """Families that two sealed exams had at different levels: one was harder than the other."""
    exams = [entrant.exam_levels for entrant in entrants if entrant.row.final and entrant.exam_levels]
    families = dict.fromkeys(family for levels in exams for family in levels)
    return tuple(name for name in families if len({levels[name] for levels in exams if name in levels}) > 1)


def _of_tasks(runs: Sequence[Records], apart: Mapping[str, tuple[str, ...]], which: str) -> tuple[str, ...]:
    """Settings that are not alike and make the tasks others: which families, and at which levels.

    Args:
        runs: the runs.
        apart: what is not alike in them.
        which: ``families`` or ``held_out``; levels of families that no run has among these do not matter.
    """
    tasks = [mapping(mapping(records.last("run").get("config")).get("tasks")) for records in runs]
    levels = {f"tasks.levels.{name}" for told in tasks for name in texts(told.get(which))}
    risen = {
        key for key in levels & apart.keys() if {"0" if level == ABSENT else level for level in apart[key]} != {"0"}
    }
    return tuple(key for key in apart if key in (f"tasks.{which}", *risen))


def write_comparison(compared: Comparing, path: Path) -> Path:
    """Write the page; returns its path.

    Raises:
        RunError: it cannot be written, or something else is there.
    """
    check_place(path)
    page = fill("compare.html.j2", {}, compared=compared, race=race(compared), series=SERIES)
    return write_page(path, page, "comparison")


def check_place(path: Path) -> None:
    """Nothing but a comparison is ever replaced by one.

    Raises:
        RunError: there is no such folder, or what has this name is no page of ours that compares runs.
    """
    operation, limit = "write the comparison to", "a new file in an existing folder, or an earlier comparison"
    if not path.parent.is_dir():
        raise RunError(operation, str(path), limit, f"make the folder {path.parent}, or name another --output")
    if os.path.lexists(path) and not _is_comparison(path):
        raise RunError(operation, str(path), limit, "it is something else and was left alone: name another --output")


def _is_comparison(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            return _TITLE.match(file.read(4000)) is not None
    except (OSError, ValueError):
        return False


def race(compared: Comparing) -> Markup | None:
    """Best search skill so far against charged FLOPs, a line a run; None where nothing was scored."""
    scored = [entrant for entrant in compared.entrants if entrant.curve.points]
    if not scored:
        return None
    curves = [entrant.curve for entrant in scored]
    size, unit = flop_unit(max(curve.charged for curve in curves))
    skills = [point.skill for curve in curves for point in curve.points]
    domain, log = x_domain(curves, None, size)
    plot = frame(
        WIDTH,
        HEIGHT,
        domain,
        (lowest(skills, [curve.points[0].skill for curve in curves]), highest(skills)),
        f"charged compute ({unit}, {'log' if log else 'linear'} scale)",
        "search skill (0 = uniform guess, 1 = perfect)",
        log_x=log,
        right=36,
    )
    parts = [plot.axes()]
    for entrant in reversed(scored):
        number = compared.entrants.index(entrant)
        parts.append(steps(plot, entrant.curve, size, number))
        for x, y in zip(entrant.best.charged, entrant.best.values, strict=True):
            words = f"{entrant.letter}, {entrant.row.label}: {decimal(y)} at {flops(x)}"
            parts.append(dot(plot, x / size, y, words, f"dot d{number % SERIES}", r=3.2))
    ends = [(plot.x(e.curve.charged / size), plot.y(e.best.values[-1]), e.letter) for e in scored]
    parts += [label(letter, x + 7, y + 4, class_="end-name") for x, y, letter in spread(ends)]
    return drawing(WIDTH, HEIGHT, f"Best search skill against charged compute of {len(scored)} runs", *parts)


def spread(ends: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Names at places, each moved down until it lies on no other.

    >>> spread([(0.0, 0.0, "A"), (1.0, 2.0, "B"), (50.0, 0.0, "C")])
    [(0.0, 0.0, 'A'), (50.0, 0.0, 'C'), (1.0, 14.0, 'B')]
    """
    placed: list[tuple[float, float, str]] = []
    for x, y, name in sorted(ends, key=lambda end: end[1:]):
        for other, taken, _ in placed:  # from the top down
            if abs(other - x) < APART and abs(taken - y) < APART:
                y = taken + APART
        placed.append((x, y, name))
    return placed


def _entrant(letter: str, name: str, records: Records, audit: AuditReport) -> Entrant:
    curve = read_curve(name, records)
    return Entrant(
        letter=letter,
        row=run_row(name, records),
        experiment=shown(records.last("run").get("experiment")),
        generations=len(records.of("generation")),
        proposals=len(records.of("proposal")),
        curve=curve,
        best=rising([point.flops for point in curve.points], [point.skill for point in curve.points]),
        levels=read_levels(records),
        exam_levels=exam_levels(records),
        handovers=read_handovers(records),
        held_out=next((pair for pair in read_finals(records) if pair.split == "held-out"), None),
        audit=audit,
    )
