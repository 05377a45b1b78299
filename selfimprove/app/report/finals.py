"""What the final comparison of champion and seed genome says, in words."""

from __future__ import annotations

from collections.abc import Sequence

from selfimprove.app.report.comparisons import HELD_OUT
from selfimprove.app.report.text import decimal, p_text, signed
from selfimprove.app.report.views import Comparison


def verdict(finals: Sequence[Comparison]) -> str:
    """A few sentences on the sealed split and the held-out families; empty where the split was not opened.

    Tasks on which the champion is worse are named: a better mean may hide a loss.
    """
    by_split = {pair.split: pair for pair in finals}
    if "sealed" not in by_split:
        return ""
    words = _sentences("On the sealed split", by_split["sealed"])
    if HELD_OUT in by_split:
        words += " " + _sentences("Trained on families that the search has never seen", by_split[HELD_OUT])
    return words


def _sentences(where: str, pair: Comparison) -> str:
    count = len(pair.candidate)
    better = pair.mean > 0
    words = (
        f"{where} the champion scores {decimal(sum(pair.candidate) / count)} and the seed genome "
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
