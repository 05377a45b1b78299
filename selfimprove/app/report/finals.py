"""What the final comparison of champion and seed genome says, in words."""

from __future__ import annotations

from collections.abc import Sequence

from selfimprove.app.report.text import decimal, p_text, signed
from selfimprove.app.report.views import Comparison


def verdict(finals: Sequence[Comparison]) -> str:
    """One or two sentences on the sealed split; empty where it was not opened.

    The second one names the tasks on which the champion is worse: a better mean may hide a loss.
    """
    pair = next((pair for pair in finals if pair.split == "sealed"), None)
    if pair is None:
        return ""
    count = len(pair.candidate)
    better = pair.mean > 0
    words = (
        f"On the sealed split the champion scores {decimal(sum(pair.candidate) / count)} and the seed genome "
        f"{decimal(sum(pair.parent) / count)}, {signed(pair.mean)} on average over {count} fresh training seeds: "
    )
    words += "better beyond noise" if pair.passed else "not better beyond noise" if better else "not better"
    words += f" ({p_text(pair.p_value)}, alpha {pair.alpha:g}{_smallest(pair)})."
    worse = [
        f"{name} ({signed(ours - theirs)})"
        for name, (ours, theirs) in pair.tasks.items()
        if ours is not None and theirs is not None and ours < theirs
    ]
    if worse:
        words += f" It is worse than the seed genome on {' and '.join(worse)}."
    return words


def _smallest(pair: Comparison) -> str:
    """The exact test cannot go below one sign pattern of all: say so where it got there."""
    count = len(pair.candidate)
    reached = pair.p_value is not None and pair.p_value <= 2.0**-count
    return f"; {count} pairs allow no smaller p" if reached else ""
