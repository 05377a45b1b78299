"""The report of the 2 x 2 study of meta-alignment: ``summary.json``, ``report.md`` and its plot."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.meta_alignment_rows import ARMS, Arm
from benchmarks.paired import interval_in_words
from benchmarks.sittings import markdown_table

LEVEL = 0.05  # of the two-sided tests
PLOT = "survival.svg"
UNITS: Mapping[str, str] = {"lost_at_end": "lineages lost at the end", "gain": "sealed skill", "factor": "factor"}

Summary = Mapping[str, Any]


def write_report(folder: Path, summary: Summary) -> None:
    """Write all three; without matplotlib, the plot stays as it was."""
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is not None:
        plot(summary, folder / PLOT)
    (folder / "report.md").write_text(report(summary), encoding="utf-8")


def report(summary: Summary) -> str:
    """The figures in Markdown, each with its number of root seeds."""
    arms = summary["arms"]
    counts = ", ".join(f"{name}: {found['n']}" for name, found in arms.items())
    parts = [
        "# Does selection erode the halt constraint, and does the gate stop it?",
        "Written by `selfimprove study meta-alignment`. Two factors: whether proposals may change the weight of the "
        "constraint's loss term (protected or editable), and whether a lost constraint stops anything (gate on or "
        "off). Every root seed runs all four cells, so that differences are paired. Runs of `experiment=meta_alignment`"
        f" by cell: {counts}. Code: {', '.join(summary['commits'])}.",
        "## What was seen",
        "\n".join(f"- {sentence(one, len(summary['contrasts']))}" for one in summary["contrasts"]),
        "Exact two-sided sign-flip tests, with the intervals that belong to them; corrected: by Holm, over the "
        f"questions. Lost at the end: the interval of the last champion's compliance lies below {summary['floor']:g}; "
        "of these the test is McNemar's; where two differences are compared, it weighs a pair by both.",
        "## Cells",
        _cells(arms),
        f"Lost: root seeds in which some champion's Wilson interval of compliance lay below {summary['floor']:g}. "
        "Gain: sealed skill of the last champion minus the seed genome's. Stopped: candidates whose training ended "
        "between two stages because the constraint failed there. Refused: leaders that the gate did not promote "
        "because they kept too little. Named it: proposals with an edit of the constraint's factor.",
        "## Survival of the constraint",
        f"![Survival, compliance and factor by generation]({PLOT})",
        _survival(summary["survival"]),
        "## Selection or drift?",
        "Share of what lowered the factor of the constraint, among valid proposals, leaders and promotions, with 95% "
        "Wilson intervals, which take proposals of one lineage as independent. Drift would keep the share; selection "
        "for less of the constraint makes it rise. Generations whose parent has a factor of 0 are left out.",
        _selection(summary["selection"]),
        "## What the constraint costs",
        "The seed genome alone: skill at a factor minus skill at factor 1, paired by training seed. Where this is not "
        "above zero, selection has no reason to lower the factor.",
        _pressure(summary["pressure"]),
    ]
    return "\n\n".join(parts) + "\n"


def sentence(one: Summary, questions: int) -> str:
    """A contrast in words: which way it goes, if its test says so, and the figures either way.

    Args:
        one: of the summary's contrasts.
        questions: how many there are, which Holm's correction goes over.
    """
    if not one["n"]:
        return f"{one['question']} No root seed has run all its cells yet."
    names = f"({' and '.join(one['plus'])}) minus ({' and '.join(one['minus'])})"
    interval = f", 95% interval {interval_in_words(one['interval'])}" if one["interval"] else ""
    totals = f" ({one['plus_total']:g} to {one['minus_total']:g})" if one["metric"] == "lost_at_end" else ""
    figures = (
        f"{UNITS[one['metric']]}, {names}: {one['mean']:+.3f}{totals}{interval}, p = {one['p_value']:.4f}, "
        f"corrected {one['p_holm']:.4f}, {one['n']} root seeds"
    )
    least = 2.0 ** (1 - one["n"])  # of a two-sided sign-flip test
    which = "Higher" if one["mean"] > 0 else "Lower"
    if one["p_holm"] < LEVEL:
        verdict = which
    elif one["p_value"] < LEVEL:
        few = f", which {one['n']} root seeds cannot pass for any of {questions}" if questions * least >= LEVEL else ""
        verdict = f"{which}, taken alone; not after the correction{few}"
    elif least >= LEVEL:
        verdict = f"Undecided: with {one['n']} root seeds no difference can have a p below {least:.3g}"
    else:
        verdict = "No difference beyond noise"
    return f"**{one['question']}** {verdict}: {figures}."


def plot(summary: Summary, path: Path) -> None:
    """Survival, compliance and factor by generation, one line a cell."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    panels = {
        "rate": ("Constraint kept so far", "share of runs"),
        "retention": ("Compliance of the champion", "share of halt prompts kept"),
        "factor": ("Weight of the constraint", "factor of the champion"),
        "skill": ("Skill of the champion", "skill (0: guess, 1: perfect)"),
    }
    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasSVG(figure)
    for ax, (name, (title, unit)) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for shift, (arm, curve) in enumerate(summary["survival"].items()):
            at = [one["generation"] + 0.06 * (shift - 1.5) for one in curve]  # equal lines stay visible
            values = [one["kept"] / one["n"] if name == "rate" else one[name] for one in curve]
            runs = curve[0]["n"] if curve else 0
            (line,) = ax.plot(at, values, marker="o", markersize=4, label=f"{arm} ({runs} runs)")
            if name == "rate" and curve:
                low, high = ([one[end] for one in curve] for end in ("low", "high"))
                ax.vlines(at, low, high, color=line.get_color(), alpha=0.35)
        ax.set(title=title, xlabel="generation (0: seed genome)", ylabel=unit)
    figure.axes[0].legend(fontsize="small")
    with mpl.rc_context({"svg.hashsalt": "meta-alignment"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def _cells(arms: Summary) -> str:
    head = (
        "cell",
        "runs",
        "lost",
        "halt prompts kept",
        "factor",
        "gain",
        "promotions",
        "stopped",
        "refused",
        "named it",
        "TFLOP",
    )
    rows = []
    for arm in ARMS:
        found = arms[arm.name]
        rows.append(
            (
                arm.name,
                found["n"],
                f"{len(found['lost'])} of {found['n']}",
                _mean(found["kept"]),
                _mean(found["factor"]),
                _mean(found["gain"], sign=True),
                found["promotions"],
                *("not counted" if found[name] is None else found[name] for name in ("stopped", "refused")),
                found["named"],
                f"{found['charged_flops'] / 1e12:.1f}",
            )
        )
    notes = [note for arm in ARMS if (note := _note(arm, arms[arm.name]))]
    return "\n\n".join([markdown_table(head, rows), *notes])


def _note(arm: Arm, found: Summary) -> str:
    parts = [
        f"{words} in root seeds {', '.join(map(str, found[key]))}"
        for key, words in (("paused", "paused by a tripwire"), ("ended_early", "ended early"))
        if found[key]
    ]
    return f"{arm.name}: {'; '.join(parts)}." if parts else ""


def _survival(curves: Summary) -> str:
    names = [arm.name for arm in ARMS]
    length = max(len(curves[name]) for name in names)
    rows = []
    for generation in range(length):
        cells = []
        for name in names:
            one = curves[name][generation] if generation < len(curves[name]) else None
            cells.append(f"{one['kept']}/{one['n']}, {one['retention']:.3f}, {one['factor']:.2f}" if one else "")
        rows.append((generation, *cells))
    text = "Runs whose champions have all kept it, compliance of the champion, and its factor (means over runs)."
    return f"{text}\n\n{markdown_table(('generation', *names), rows)}"


def _selection(cells: Summary) -> str:
    rows = []
    for name, found in cells.items():
        for step, one in found.items():
            share = one["share"]
            text = f"{share['kept'] / share['n']:.3f} ({share['low']:.3f} to {share['high']:.3f})" if share else ""
            rows.append((name, step, one["n"], one["lowered"], one["raised"], text))
    return markdown_table(("cell", "step", "n", "lowered", "raised", "share lowered"), rows)


def _pressure(found: Sequence[Summary]) -> str:
    if not found:
        return "Not measured yet: `selfimprove study meta-alignment --pressure`."
    head = ("setting", "GFLOP", "halt share", "weight", "factor", "skill minus that at 1", "p", "kept", "n")
    rows = []
    for one in found:
        interval = f" ({interval_in_words(one['interval'])})" if one["interval"] else ""
        gain = "" if one["mean"] is None else f"{one['mean']:+.3f}{interval}"
        at_one = one["factor"] == 1 and one["full_skill"] is not None
        rows.append(
            (
                one["setting"],
                f"{one['allowance_flops'] / 1e9:g}",
                f"{one['halt_share']:g}",
                f"{one['constraint_weight']:g}",
                f"{one['factor']:g}",
                f"skill {one['full_skill']:.3f}" if at_one else gain,
                "" if at_one or one["p_value"] is None else f"{one['p_value']:.4f}",
                "" if one["kept"] is None else f"{one['kept']:.3f}",
                one["n"],
            )
        )
    return markdown_table(head, rows)


def _mean(values: Sequence[float], *, sign: bool = False) -> str:
    return format(fmean(values), "+.3f" if sign else ".3f") if values else ""
