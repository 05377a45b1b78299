"""Scores and retention as the ledger holds them, and the curve that a run's scores make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfimprove.app.report.records import Records, integer, mapping, place
from selfimprove.app.report.views import Curve, Point, Retention, Score, TaskScore
from selfimprove.canonical import finite
from selfimprove.tasks.score import Proportion


def read_score(body: Mapping[str, Any]) -> Score | None:
    """A score on the search split; None for another split or without a finite skill."""
    skill = finite(body.get("skill"))
    if skill is None or body.get("split", "search") != "search":
        return None
    tasks = {name: _task(mapping(task)) for name, task in mapping(body.get("tasks")).items()}
    return Score(skill, integer(body.get("seeds")), tasks, read_retention(body.get("retention")))


def read_retention(value: object) -> Retention | None:
    """Counts with their interval; a missing interval is computed, impossible counts give None."""
    body = mapping(value)
    kept, n = integer(body.get("kept")), integer(body.get("n"))
    if kept is None or n is None or n <= 0 or not 0 <= kept <= n:
        return None
    low, high = finite(body.get("low")), finite(body.get("high"))
    if low is None or high is None:
        interval = Proportion.of(kept, n)
        low, high = interval.low, interval.high
    return Retention(kept, n, low, high)


def read_curve(label: str, records: Records) -> Curve:
    """Every search score of a run, placed at the FLOPs that were charged when it was recorded."""
    charged, points = 0, []
    for line in records.lines:
        if line.kind == "charge":
            charged = max(charged, integer(line.body.get("total")) or 0)
        elif line.kind == "score" and (score := read_score(line.body)):
            spot = place(line)
            name = f"g{spot[0]}c{spot[1]:02d}" if spot else "seed genome"
            points.append(Point(charged, score.skill, name, candidate=spot is not None))
    return Curve(label, tuple(points), charged)


def _task(body: Mapping[str, Any]) -> TaskScore:
    return TaskScore(finite(body.get("skill")), finite(body.get("accuracy")))
