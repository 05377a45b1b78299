"""Genomes as rows of numbers, as the experts read points: what takes effect in each, place by place. Imports no torch.

A number is its place on the grid of its field, from 0 to 1; a name or a flag is the index of its value; what a genome
has not, or what has no effect in it, is NaN. Of the loss there is what the whole expression is, and how often it holds
each operation and each constant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from selfimprove.genome.fields import FIELDS, Value, format_value, pattern
from selfimprove.genome.genome import Genome

Array = NDArray[np.float64]
Row = Mapping[str, Value]

COUNTED = "count of "  # before the name of an operation of the loss


def row_of(genome: Genome) -> Row:
    """What takes effect in a genome, by its path."""
    architecture, recipe = genome.architecture.effective(), genome.recipe.effective()
    blocks = architecture.pop("blocks")
    nodes = (node for _, node in genome.objective.expression.nodes())
    counts = Counter(f"{COUNTED}{node.op} {'' if node.value is None else format_value(node.value)}" for node in nodes)
    return {
        **{f"architecture.{name}": value for name, value in architecture.items()},
        **{f"architecture.blocks.{at}.{name}": value for at, b in enumerate(blocks) for name, value in b.items()},
        **{f"recipe.{name}": value for name, value in recipe.items()},
        **counts,
        f"{COUNTED}blocks": len(blocks),
        "objective": genome.objective.expression.canonical,
    }


def table(rows: Sequence[Row]) -> tuple[Float[Array, "genome column"], Bool[NDArray[np.bool_], " column"]]:
    """Rows side by side, without the columns in which all agree, and which columns have an order."""
    names = sorted({name for row in rows for name in row})
    columns = list(_columns(names, rows))
    kept = [(column, ordered) for column, ordered in columns if len(np.unique(np.nan_to_num(column, nan=-1.0))) > 1]
    if not kept:
        return np.zeros((len(rows), 1)), np.array([True])
    return np.stack([column for column, _ in kept], axis=1), np.array([ordered for _, ordered in kept])


def _columns(names: Sequence[str], rows: Sequence[Row]) -> Iterator[tuple[Array, bool]]:
    for name in names:
        field = FIELDS.get(pattern(name))
        if name.startswith(COUNTED):
            counts = np.array([float(row.get(name, 0)) for row in rows])
            yield counts / max(counts.max(), 1.0), True
        elif field is not None and field.kind in ("integer", "number"):
            grid = np.array(sorted(float(choice) for choice in field.choices))
            values = np.array([float(row.get(name, np.nan)) for row in rows])
            yield np.interp(values, grid, np.linspace(0.0, 1.0, len(grid))), True
        else:
            kinds = sorted({str(row[name]) for row in rows if name in row})
            index = {kind: float(at) for at, kind in enumerate(kinds)}
            yield np.array([index.get(str(row.get(name)), np.nan) if name in row else np.nan for row in rows]), False
