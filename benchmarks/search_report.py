"""The report of the search study: ``summary.json`` and ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.sittings import markdown_table

Summary = Mapping[str, Any]


def write_report(folder: Path, summary: Summary, note: str = "") -> None:
    """Write both; ``note`` stands below the title."""
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(report(summary, note), encoding="utf-8")


def report(summary: Summary, note: str = "") -> str:
    """The figures in Markdown, the controllers that are fastest first."""
    overrides = "; ".join(f"`{one}`" for one in summary["overrides"] if one) or "none"
    parts = [
        "# Which controller finds better designs for the same charged compute?",
        "Written by `selfimprove study search`: runs of `experiment=search`, paired by root seed. "
        f"Further overrides: {overrides}. Code: {', '.join(summary['commits'])}.",
        note,
        _table(summary["arms"]),
        "Compute to random's best: charged FLOPs, the controller's own included, until the champion's confirmed skill "
        f"is within {summary['near']:g} of what random search ended with on the same root seed, over what random "
        "search took for that itself; the median over root seeds, with a 95% bootstrap interval. Infinite: not reached "
        "within the run. Area: under the curve of the champion's skill, up to what it and random search both spent. "
        "Over random: the champion's skill at the end, paired; two-sided exact sign-flip test, Holm over controllers.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(arms: Summary) -> str:
    head = (
        "controller", "root seeds", "compute to random's best", "95% interval", "reached", "area", "skill at the end",
        "over random", "95% interval", "p (Holm)", "promotions", "TFLOP", "of which controller", "minutes",
    )  # fmt: skip
    order = sorted(arms, key=lambda arm: (_infinite(arms[arm]["ratio"]), -arms[arm]["area"]))
    return markdown_table(head, [_row(arm, arms[arm]) for arm in order])


def _row(arm: str, one: Summary) -> tuple[str, ...]:
    interval = one["ratio_interval"]
    paired = one["difference"] is not None
    return (
        f"`{arm}`",
        str(one["n"]),
        _times(one["ratio"]) if one["compared"] else "",
        f"{_times(interval[0])} to {_times(interval[1])}" if interval else "",
        f"{one['reached']} of {one['compared']}",
        f"{one['area']:.3f}",
        f"{one['skill']:.3f}",
        f"{one['difference']:+.3f}" if paired else "",
        f"{one['interval'][0]:+.3f} to {one['interval'][1]:+.3f}" if paired and one["interval"] else "",
        f"{one['p_holm']:.3f}" if paired else "",
        f"{one['promotions']:.1f}",
        f"{one['charged_flops'] / 1e12:.2f}",
        f"{one['controller_flops'] / 1e12:.3f}",
        f"{one['seconds'] / 60:.0f}",
    )


def _times(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f}"


def _infinite(value: float | None) -> float:
    return float("inf") if value is None else value
