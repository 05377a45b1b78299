"""The report of the search study: ``summary.json`` and ``report.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.paired import interval_in_words
from benchmarks.search_analysis import RANDOM
from benchmarks.sittings import markdown_table

Summary = Mapping[str, Any]
LEVEL = 0.05  # of the two-sided tests


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
        _reached(summary["arms"], summary["chance"]),
        "Compute to random's best: charged FLOPs, the controller's own included, until the champion's confirmed skill "
        f"is within {summary['near']:g} of what random search ended with on the same root seed; the median over root "
        "seeds. Over random's: over what random search took for that itself; the median of the ratios, with the sign "
        "test's interval. Infinite: not reached within the run. Random search reaches its own best by definition; what "
        "no better than random would look like is the row of random search beside itself on another root seed, over "
        "all ordered pairs. Area over random's: under the curve of the champion's "
        "skill, each up to what both spent; mean over root seeds.",
        _at_the_end(summary["arms"]),
        "Over random: the champion's skill after the last generation, by then at other FLOPs than random search, "
        "paired; two-sided exact sign-flip test, Holm over the controllers with six root seeds or more."
        f"{_undecided(summary['arms'])}",
        *_ours(summary["ours"]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reached(arms: Summary, chance: Summary) -> str:
    head = (
        "controller", "root seeds", "reached random's best", "TFLOP to it", "over random's", "95% interval",
        "area over random's",
    )  # fmt: skip
    rows = [
        (
            f"`{arm}`",
            str(one["n"]),
            f"{one['reached']} of {one['compared'] + one['neither']}",
            _times(one["flops_to_best"], 1e12) if one["compared"] else "",
            *_ratio(one),
            "" if one["area"] is None or arm == RANDOM else f"{one['area']:+.3f}",
        )
        for arm, one in sorted(arms.items(), key=_fastest_first)
    ]
    if chance["compared"]:
        came = f"{chance['reached']} of {chance['compared']}"
        took = _times(chance["flops_to_best"], 1e12), _times(chance["ratio"])
        rows.append(("`random` on another root seed", "", came, *took, "", ""))
    return markdown_table(head, rows)


def _at_the_end(arms: Summary) -> str:
    head = (
        "controller", "skill at the end", "over random", "95% interval", "p (Holm)", "promotions", "TFLOP",
        "of which controller", "minutes",
    )  # fmt: skip
    rows = [
        (
            f"`{arm}`",
            f"{one['skill']:.3f}",
            *_difference(one),
            f"{one['promotions']:.1f}",
            f"{one['charged_flops'] / 1e12:.2f}",
            f"{one['controller_flops'] / 1e12:.3f}",
            f"{one['seconds'] / 60:.0f}",
        )
        for arm, one in sorted(arms.items(), key=_fastest_first)
    ]
    return markdown_table(head, rows)


def _ours(ours: Summary) -> list[str]:
    """Our controllers beside every baseline but random search, with which the tables above compare all."""
    head = (
        "baseline", "root seeds", "sooner", "not sooner", "neither", "compute over the baseline's", "95% interval",
        "skill at the end over the baseline's", "95% interval", "p (Holm)",
    )  # fmt: skip
    parts = []
    for name, baselines in ours.items():
        rows = [
            (
                f"`{arm}`",
                str(one["paired"]),
                str(one["sooner"]),
                str(one["compared"] - one["sooner"]),
                str(one["neither"]),
                *_ratio(one),
                *_difference(one),
            )
            for arm, one in sorted(baselines.items(), key=_fastest_first)
            if one["difference"] is not None
        ]
        if rows:
            parts += [f"## `{name}` beside each baseline", markdown_table(head, rows), _undecided(baselines).strip()]
    if parts:
        parts.append(
            "Sooner: root seeds on which it took fewer FLOPs to random's best than the baseline; not sooner: as many "
            "or more; neither: both ended short of it, and the ratio leaves them out, as it does those on which "
            "random search found nothing. 0.00: only the baseline ended short; infinite: only it did. Holm over the "
            "baselines with six root seeds or more."
        )
    return parts


def _undecided(compared: Summary) -> str:
    """Where not even equal signs on all root seeds could be told from chance, that it is so; empty elsewhere."""
    tested = [one for one in compared.values() if one["p_holm"] is not None]
    most = max((one["paired"] for one in tested), default=0)
    least = len(tested) * 2.0 ** (1 - most)  # Holm's, of the exact two-sided test with all signs equal
    if least < LEVEL:
        return ""
    return f" Undecided: with {most} root seeds no p of {len(tested)} can be below {min(least, 1.0):.2f}."


def _ratio(one: Summary) -> tuple[str, str]:
    if not one["compared"]:
        return "", ""
    interval = one["ratio_interval"]
    return _times(one["ratio"]), f"{_times(interval[0])} to {_times(interval[1])}" if interval else ""


def _difference(one: Summary) -> tuple[str, str, str]:
    if one["difference"] is None:
        return "", "", ""
    p = "" if one["p_holm"] is None else f"{one['p_holm']:.3f}"
    return f"{one['difference']:+.3f}", interval_in_words(one["interval"]), p


def _times(value: float | None, unit: float = 1.0) -> str:
    return "infinite" if value is None else f"{value / unit:.2f}"


def _fastest_first(named: tuple[str, Summary]) -> tuple[float, str]:
    name, one = named
    return float("inf") if one["ratio"] is None else one["ratio"], name
