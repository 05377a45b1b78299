"""Probe transfer: does a probe that was trained on the parent read the child?

Without alignment, where both streams have one width: two models that were trained from other weights share no basis,
so that this mostly shows whether they do. With alignment: the child's states are first turned onto the parent's by the
orthogonal Procrustes solution (Schönemann 1966), between other widths by the partial isometry that takes its place,
fitted on training sequences; accuracy is of test sequences. What still reads then is held in the same geometry. Layers
are compared with those of the same relative depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interp import plotting
from interp.bench import Bench, at_common_positions
from interp.probes import ProbeResult, probe_variable, task_variables, train_probe
from interp.rows import Rows, check_rows, variable_rows
from interp.similarity import paired_states
from interp.verdict import NotApplicable
from selfimprove.seeds import derive
from selfimprove.tasks.halt import LATENT as HALTED
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

ALIGNED_ROWS = 1024  # positions that an alignment is fitted on


@dataclass(frozen=True)
class Alignment:
    """A map of states ``[row d_child]`` of one layer into the space of a parent's: shift, turn, scale, shift."""

    child_mean: Float[Tensor, " d_child"]
    parent_mean: Float[Tensor, " d_parent"]
    turn: Float[Tensor, "d_child d_parent"]
    scale: float

    def __call__(self, states: Float[Tensor, "row d_child"]) -> Float[Tensor, "row d_parent"]:
        mapped: Tensor = (states - self.child_mean) @ self.turn * self.scale + self.parent_mean
        return mapped


def align(child: Float[Tensor, "row d_child"], parent: Float[Tensor, "row d_parent"]) -> Alignment:
    """The turn (a partial isometry between other widths) and scale that bring ``child`` closest to ``parent``."""
    child_mean, parent_mean = child.mean(0), parent.mean(0)
    a, b = child - child_mean, parent - parent_mean
    left, size, right = torch.linalg.svd(a.T @ b, full_matrices=False)
    turn = left @ right
    scale = float(size.sum() / (a @ turn).square().sum().clamp_min(1e-12))
    return Alignment(child_mean, parent_mean, turn, scale)


@dataclass(frozen=True)
class Transfer:
    """Accuracy of one variable's probes by the child's layers, all on test sequences.

    Attributes:
        variable: name of the variable.
        parent_layers, child_layers: the places compared, pair by pair: the same relative depth.
        parent: the parent's probe on the parent; with ``parent_low, parent_high``, its 95 % Wilson interval.
        child: a probe of the child's own on the child; with its interval.
        direct: the parent's probe on the child as it is; None between other widths.
        aligned: the parent's probe on the child's states turned onto the parent's.
        majority: of always giving the parent's most frequent label.
        n_test: the child's test positions.
    """

    variable: str
    parent_layers: tuple[str, ...]
    child_layers: tuple[str, ...]
    parent: tuple[float, ...]
    parent_low: tuple[float, ...]
    parent_high: tuple[float, ...]
    child: tuple[float, ...]
    child_low: tuple[float, ...]
    child_high: tuple[float, ...]
    direct: tuple[float, ...] | None
    aligned: tuple[float, ...]
    majority: float
    n_test: int

    def changed(self, margin: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The child's layers at which its own probe gained on the parent's, and at which it lost.

        That is by ``margin`` and more, with 95 % intervals that do not overlap.
        """
        gained, lost = [], []
        for at, layer in enumerate(self.child_layers):
            change = self.child[at] - self.parent[at]
            if change >= margin and self.child_low[at] > self.parent_high[at]:
                gained.append(layer)
            if change <= -margin and self.child_high[at] < self.parent_low[at]:
                lost.append(layer)
        return tuple(gained), tuple(lost)

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair of layers."""
        import pandas

        columns = {
            "child_layer": self.child_layers,
            "parent_layer": self.parent_layers,
            "parent": self.parent,
            "child": self.child,
            "direct": self.direct if self.direct is not None else [float("nan")] * len(self.child_layers),
            "aligned": self.aligned,
        }
        frame = pandas.DataFrame({name: list(values) for name, values in columns.items()})
        return frame.assign(variable=self.variable, majority=self.majority, n_test=self.n_test)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The four accuracies by layer, and a constant answer's."""
        series: dict[str, Sequence[float]] = {
            "parent's probe on the parent": self.parent,
            "child's probe on the child": self.child,
            "parent's probe on the child, aligned": self.aligned,
            "a constant answer": [self.majority] * len(self.child_layers),
        }
        if self.direct is not None:
            series["parent's probe on the child, as it is"] = self.direct
        title, x = f"Probe transfer of {self.variable}", "place in the child's stream"
        return plotting.lines(ax, series, self.child_layers, title=title, x=x, y="share of test positions")


def matched_layers(parent: int, child: int) -> tuple[int, ...]:
    """For each of the child's places the parent's of the same relative depth: the first to the first, last to last."""
    return tuple(round(place * (parent - 1) / max(1, child - 1)) for place in range(child))


def transfers(parent: Bench, child: Bench) -> tuple[Transfer, ...]:
    """Transfer of each task's variables and of 'halted'; a variable that one of the models does not have is left out.

    Only positions that both models can read are read.

    Raises:
        NotApplicable: none is left.
        Unreadable: activations that are not finite.
    """
    parent, child = at_common_positions(parent, child)
    pairs = matched_layers(len(parent.layers), len(child.layers))
    seed = derive(child.plan.control, "alignment")
    theirs, ours = paired_states(parent, child, "train", ALIGNED_ROWS, seed)
    maps = [align(ours[at], theirs[mine]) for at, mine in enumerate(pairs)]
    wanted = task_variables(child) | {HALTED: child.suite.families}
    found = []
    for variable, families in wanted.items():
        try:
            own = probe_variable(child, variable, families=families)
            learnt, theirs_test = variable_rows(parent, variable, families=families)
            test = variable_rows(child, variable, families=families)[1]
            found.append(_transfer(parent, own, pairs, maps, learnt, theirs_test, test))
        except NotApplicable:
            continue
    if not found:
        raise NotApplicable("transfer probes", 0, "a variable that both models can be probed for")
    return tuple(found)


def _transfer(
    parent: Bench,
    own: ProbeResult,
    pairs: Sequence[int],
    maps: Sequence[Alignment],
    train: Rows,
    parent_test: Rows,
    test: Rows,
) -> Transfer:
    """One variable: train on the parent's rows, score on the parent's and on the child's."""
    values, counts = check_rows(own.variable, train, parent_test)
    probes = {mine: train_probe(train.states[mine], train.labels)[0] for mine in sorted(set(pairs))}
    right = {mine: probe.predict(parent_test.states[mine]) == parent_test.labels for mine, probe in probes.items()}
    shares = {mine: Proportion.of(int(hits.sum()), len(hits)) for mine, hits in right.items()}
    same_width = parent.model.cfg.d_model == test.states.shape[-1]
    direct, aligned = [], []
    for at, mine in enumerate(pairs):
        states, probe = test.states[at], probes[mine]
        aligned.append(_share(probe.predict(maps[at](torch.from_numpy(states)).numpy()), test.labels))
        if same_width:
            direct.append(_share(probe.predict(states), test.labels))
    return Transfer(
        variable=own.variable,
        parent_layers=tuple(parent.layers[mine] for mine in pairs),
        child_layers=own.layers,
        parent=tuple(shares[mine].kept / shares[mine].n for mine in pairs),
        parent_low=tuple(shares[mine].low for mine in pairs),
        parent_high=tuple(shares[mine].high for mine in pairs),
        child=own.accuracy,
        child_low=own.low,
        child_high=own.high,
        direct=tuple(direct) if same_width else None,
        aligned=tuple(aligned),
        majority=float(np.mean(test.labels == values[counts.argmax()])),
        n_test=len(test.labels),
    )


def _share(answers: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    return float(np.mean(answers == labels))
