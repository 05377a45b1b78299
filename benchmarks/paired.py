"""Paired differences as the summaries of studies say them, and Holm's correction over a study's comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from selfimprove.loop.statistics import exact_interval, holm, two_sided_p_value


def paired(differences: Sequence[float]) -> dict[str, Any]:
    """Number of pairs, mean, exact 95% interval and two-sided exact sign-flip p-value; None where there are no pairs.

    Raises:
        ValueError: more pairs than the exact test can enumerate.
    """
    if not differences:
        return {"n": 0, "mean": None, "interval": None, "p_value": None, "p_holm": None}
    return {
        "n": len(differences),
        "mean": fmean(differences),
        "interval": exact_interval(differences),
        "p_value": two_sided_p_value(differences),
        "p_holm": None,
    }


def correct(compared: Iterable[dict[str, Any]]) -> None:
    """Add ``p_holm`` to each comparison that has a ``p_value``: Holm's, over all of them."""
    tested = [one for one in compared if one["p_value"] is not None]
    for one, adjusted in zip(tested, holm([one["p_value"] for one in tested]), strict=True):
        one["p_holm"] = adjusted


def interval_in_words(found: Sequence[float] | None) -> str:
    """As in ``-0.045 to +0.422``; empty where there are too few pairs for one."""
    return f"{found[0]:+.3f} to {found[1]:+.3f}" if found else ""
