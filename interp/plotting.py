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
