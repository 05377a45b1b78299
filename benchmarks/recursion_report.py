"""The report of the recursion study: ``summary.json`` and ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.paired import interval_in_words
from benchmarks.sittings import markdown_table
from selfimprove.controller.config import ARMS

Summary = Mapping[str, Any]


def write_report(folder: Path, summary: Summary, note: str = "") -> None:
    """Write both; ``note`` stands below the title."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(report(summary, note), encoding="utf-8")


def report(summary: Summary, note: str = "") -> str:
    """The figures in Markdown, each with its number of root seeds."""
    claims, overrides = summary["claims"], "; ".join(f"`{one}`" for one in summary["overrides"] if one) or "none"
    verdict = (
        f"Self-improvement is claimed for: {', '.join(claims)}."
        if claims
        else "No self-improvement is claimed: no arm that handed something over beats all controls beyond noise."
    )
    parts = [
        "# Does a controller that is built from a promoted genome propose better?",
        "Written by `selfimprove study recursion`. Every root seed runs all arms of `experiment=recursion`. Until the "
        "first promotion all but `frozen` are one and the same run; from then on they differ by what a promotion means "
        f"to the controller. Further overrides: {overrides}. Code: {', '.join(summary['commits'])}. Where levels may "
        "rise (`climb_seeds` above 0), skill and imp@k after a champion has mastered its tasks are of harder ones.",
        note,
        "## Claims",
        verdict,
        "## Self-referential gain",
        f"Quality of proposals (imp@{summary['k']} over the generations after the first promotion) of an arm less that "
        "of a control, paired by root seed. One-sided exact sign-flip test, Holm over all comparisons; a claim needs "
        f"all three controls beaten at {summary['level']:g}, and a hand-over: an arm without one is `none`. Root seeds "
        "without a generation after a promotion say nothing.",
        _contrasts(summary["contrasts"], summary["level"]),
        "## Learning",
        _learning(summary["learning"]),
        "## Arms",
        _arms(summary),
        "\n".join(f"- `{arm}`: {what}." for arm, what in ARMS.items()),
        "Contests: promotions after which a contender was trained and compared. FLOPs: all that was charged, the "
        "controller's own training and trials included, mean a run. Around a hand-over: mean "
        f"imp@{summary['k']} in its generation and in the next, whose parent is harder to improve.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _contrasts(contrasts: Sequence[Summary], level: float) -> str:
    rows = []
    for one in contrasts:
        if not one["n"]:
            rows.append((one["arm"], one["control"], 0, "", "", "", "", "no pair yet"))
            continue
        least = 0.5 ** one["n"] * len(contrasts)
        verdict = "better" if one["p_holm"] < level else "no better beyond noise"
        if not one["handovers"]:
            verdict = "not tested: nothing was handed over"
        elif least >= level:
            verdict = f"undecided: p after Holm's correction cannot be below {min(1.0, least):.3g}"
        ends = one["interval"]
        interval = f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else "too few pairs"
        figures = (f"{one['mean']:+.4f}", interval, f"{one['p_value']:.4f}", f"{one['p_holm']:.4f}")
        rows.append((one["arm"], one["control"], one["n"], *figures, verdict))
    head = ("arm", "minus", "root seeds", "mean", "95% interval", "p", "p (Holm)", "")
    return markdown_table(head, rows)


def _learning(found: Summary) -> str:
    if not found["n"]:
        return "No root seed has run `none` and `frozen` yet."
    interval = f", 95% interval {words}" if (words := interval_in_words(found["interval"])) else ""
    return (
        f"Best skill of `none`, which learns and never hands over, less that of `frozen`, which never learns: "
        f"{found['mean']:+.3f}{interval}, two-sided p = {found['p_value']:.4f}, {found['n']} root seeds."
    )


def _arms(summary: Summary) -> str:
    k = str(summary["k"])
    head = (
        "arm", "runs", "promotions", "contests", "hand-overs", "best skill", "imp@1", f"imp@{k}", "around a hand-over",
        "TFLOP", "of which controller",
    )  # fmt: skip
    rows = []
    for arm, found in summary["arms"].items():
        around = found["around"]
        pair = f"{around['before']:.4f}, {around['after']:.4f} (n = {around['n']})" if around["n"] else ""
        figures = (_figure(found["best_skill"]), *(_figure(found["quality"][name]) for name in ("1", k)))
        cost = (_figure(found[name], 1e12) for name in ("charged_flops", "controller_flops"))
        counts = (found["n"], found["promotions"], found["contests"], found["accepted"])
        rows.append((arm, *counts, *figures, pair, *cost))
    return markdown_table(head, rows)


def _figure(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else f"{value / unit:.4f}"
