"""Plots that all results share: titled, both axes named with their units, on the caller's axes or on new ones.

matplotlib is imported when the first plot is made: no instrument needs it. It comes with the extra ``notebooks``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes(ax: Axes | None, *, title: str, x: str, y: str) -> Axes:
    """``ax``, or new axes of a new figure, with their title and the names of both axes."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
    ax.set(title=title, xlabel=x, ylabel=y)
    return ax


def count_along_x(ax: Axes) -> Axes:
    """``ax`` with ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax


def lines(
    ax: Axes | None, series: Mapping[str, Sequence[float]], at: Sequence[Any], *, title: str, x: str, y: str
) -> Axes:
    """One line a name over the places ``at``, with a legend where there are several."""
    ax = axes(ax, title=title, x=x, y=y)
    for name, values in series.items():
        ax.plot(at, values, marker="o", markersize=4, label=name)
    if len(series) > 1:
        ax.legend()
    return ax


def heat_map(
    ax: Axes | None,
    values: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x: str,
    y: str,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """A matrix ``[row column]`` in colors, each row and column named, with a color bar that names the unit."""
    ax = axes(ax, title=title, x=x, y=y)
    low, high = limits if limits is not None else (None, None)
    image = ax.imshow(np.asarray(values, dtype=float), aspect="auto", vmin=low, vmax=high)
    ax.set_xticks(range(len(columns)), labels=list(columns), rotation=45, ha="right")
    ax.set_yticks(range(len(rows)), labels=list(rows))
    ax.figure.colorbar(image, ax=ax, label=unit)
    return ax


def intervals(ax: Axes | None, shares: Mapping[str, Any], *, title: str, x: str, y: str) -> Axes:
    """One row a name, the first at the top: a proportion as a dot on its 95 % interval; a row without one stays empty.

    Args:
        ax: where to draw.
        shares: `selfimprove.tasks.score.Proportion` by name, None where there is none.
        title, x, y: words.
    """
    ax = axes(ax, title=title, x=x, y=y)
    rows = [(row, share) for row, share in enumerate(shares.values()) if share is not None]
    rates = [share.kept / share.n for _, share in rows]
    low = [rate - share.low for rate, (_, share) in zip(rates, rows, strict=True)]
    high = [share.high - rate for rate, (_, share) in zip(rates, rows, strict=True)]
    ax.errorbar(rates, [row for row, _ in rows], xerr=(low, high), fmt="o", capsize=3)
    ax.set_yticks(range(len(shares)), labels=list(shares))
    ax.set(xlim=(-0.03, 1.03), ylim=(len(shares) - 0.5, -0.5))
    return ax
