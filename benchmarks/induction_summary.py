"""The summary of ``benchmarks.induction``: a JSON record, a Markdown table and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

SUMMARY, TABLE, PLOT = "summary.json", "summary.md", "induction.svg"
PREVIOUS, INDUCTION = "previous_token", "induction"
LEARNED = 0.9  # accuracy


def write_summary(arms: Sequence[str], lines: Sequence[dict[str, Any]], folder: Path, about: dict[str, Any]) -> str:
    """Write ``summary.json``, ``summary.md`` and ``induction.svg``; returns the table.

    Args:
        arms: their names, in order.
        lines: trials, one a training.
        folder: where to.
        about: what else the summary says.
    """
    found = summarize(arms, lines)
    (folder / SUMMARY).write_text(json.dumps(about | {"arms": found}, indent=1) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(table(found), encoding="utf-8")
    draw(arms, lines, folder / PLOT)
    return table(found)


def summarize(arms: Sequence[str], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By arm: how many trainings learned the task and show the signature, when, and means of what ablation leaves."""
    found = {}
    for arm in arms:
        mine = [line for line in lines if line["arm"] == arm and "accuracy" in line["end"]]
        if not mine:
            continue
        ends = [line["end"] for line in mine]
        found[arm] = {
            "n": len(mine),
            "learned": sum(end["accuracy"] >= LEARNED for end in ends),
            "signature": sum(end["signature"] for end in ends),
            "accuracy": _mean(end["accuracy"] for end in ends),
            **{
                f"accuracy_without_{group}": _mean(end["accuracy_without"].get(group) for end in ends)
                for group in (PREVIOUS, INDUCTION, "others")
            },
            "induction_score": _mean(end["induction_score"] for end in ends),
            "induction_score_without_previous": _mean(end["induction_score_without_previous"] for end in ends),
            "jumps_by_induction": _mean(line["points"][-1]["jumps"]["induction"] for line in mine),
            "jumps_by_short_cut": _mean(line["points"][-1]["jumps"]["short_cut"] for line in mine),
            "half_learned_at": [_first(line, lambda p: p["accuracy"], 0.5) for line in mine],
            "induction_head_at": [_first(line, lambda p: max(p["scores"][INDUCTION].values()), 0.5) for line in mine],
        }
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _first(line: dict[str, Any], figure: Callable[[dict[str, Any]], float], least: float) -> int | None:
    """The first step read at which a figure is at least this large."""
    return next((point["step"] for point in line["points"] if figure(point) >= least), None)


def table(arms: dict[str, Any]) -> str:
    """The arms as a Markdown table; what is left without heads is with their mean output in their place."""
    columns = {
        "trainings": "n",
        "learned": "learned",
        "with the signature": "signature",
        "accuracy": "accuracy",
        "jumps answered by induction": "jumps_by_induction",
        "by the short cut": "jumps_by_short_cut",
        "without previous-token heads": f"accuracy_without_{PREVIOUS}",
        "without induction heads": f"accuracy_without_{INDUCTION}",
        "without all other heads": "accuracy_without_others",
        "induction score": "induction_score",
        "that without previous-token heads": "induction_score_without_previous",
    }
    lines = [f"| arm | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    for arm, row in arms.items():
        cells = (row[key] for key in columns.values())
        shown = (f"{cell:.2f}" if isinstance(cell, float) else "none" if cell is None else str(cell) for cell in cells)
        lines.append(f"| {arm} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def draw(arms: Sequence[str], lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy and the highest scores over the steps of each training, one panel an arm, as an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "induction"  # the same figures, the same file
    from matplotlib import pyplot

    curves: dict[str, Callable[[dict[str, Any]], float]] = {
        "accuracy on the task": lambda point: point["accuracy"],
        "previous-token score, highest of any head": lambda point: max(point["scores"][PREVIOUS].values()),
        "induction score, highest of any head": lambda point: max(point["scores"][INDUCTION].values()),
        "jumps answered by induction": lambda point: point["jumps"]["induction"],
    }
    figure, panels = pyplot.subplots(2, -(-len(arms) // 2), figsize=(12, 7), layout="constrained", sharey=True)
    for panel, arm in zip(panels.flat, arms, strict=False):
        for color, (name, curve) in enumerate(curves.items()):
            for number, line in enumerate(line for line in lines if line["arm"] == arm):
                steps = [point["step"] for point in line["points"]]
                label = None if number else name
                panel.plot(steps, [curve(point) for point in line["points"]], color=f"C{color}", alpha=0.7, label=label)
        panel.set(title=arm, xlabel="optimizer step", xscale="log", ylim=(0, 1.02))
    for panel in panels[:, 0]:
        panel.set_ylabel("share")
    panels.flat[0].legend(loc="upper left", fontsize="small")
    figure.suptitle("Skill and heads as a model learns to repeat")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
