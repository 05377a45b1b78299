"""Labelled positions for probes: states of the stream, a variable's values, and where in the sequence they stand.

A task's variables are defined where an answer is asked for. *Halted* is read after the halt token and, as often, at the
same positions of plain sequences: within one sequence its position and the token alone would tell most of it. Position
classes are the early, middle and late third of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from interp.bench import Bench, Reading, Role
from interp.contrast import after_halt
from interp.verdict import NotApplicable, Unreadable
from selfimprove.seeds import derive
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.halt import LATENT as HALTED

THIRDS = ("early", "middle", "late")
Labelled = tuple[Reading, Int[Tensor, "n pos"]]
Pairs = tuple[Reading, Reading, Bool[Tensor, "n pos"]]  # as `after_halt` gives them


@dataclass(frozen=True)
class Rows:
    """Labelled positions: ``states [layer row d_model]``, ``labels [row]``, ``tokens [row]`` (the control's types).

    ``classes [row]`` names each row's position class; None where there are none.
    """

    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    tokens: NDArray[np.int64]
    classes: NDArray[np.str_] | None = None


def variable_rows(bench: Bench, variable: str, *, families: Sequence[str]) -> tuple[Rows, Rows]:
    """Rows of one latent, or of 'halted', that a probe of this bench learns on, and those that it is scored on.

    Raises:
        NotApplicable: a family does not have the variable, or it is defined nowhere.
    """
    return _rows_of(bench, "train", variable, families), _rows_of(bench, "test", variable, families)


def _rows_of(bench: Bench, role: Role, variable: str, families: Sequence[str]) -> Rows:
    limit, seed = bench.plan.rows, derive(bench.plan.control, variable, "rows", role)
    if variable == HALTED:
        return halted_rows([after_halt(bench, role, family) for family in families], limit=limit, seed=seed)
    readings = [bench.task(role, family) for family in families]
    for family, reading in zip(families, readings, strict=True):
        if variable not in reading.latents:
            known = ", ".join([*sorted(set(reading.latents) - {HALTED}), HALTED])
            raise NotApplicable(f"probe {variable}", family, f"families that have it; {family} has {known}")
    return collect(variable, [(reading, reading.latents[variable]) for reading in readings], limit=limit, seed=seed)


def halted_rows(pairs: Sequence[Pairs], *, limit: int, seed: int) -> Rows:
    """As many rows of halted as of plain sequences, at most ``limit`` in all, at the same positions, drawn by ``seed``.

    Raises:
        NotApplicable: no position comes after a halt token.
    """
    halted = [(stopped, torch.where(after, 1, UNSCORED)) for stopped, _, after in pairs]
    plain = [(free, torch.where(after, 0, UNSCORED)) for _, free, after in pairs]
    both = [collect(HALTED, side, limit=limit // 2, seed=seed) for side in (halted, plain)]  # the same seed and places
    joined = {name: np.concatenate([getattr(rows, name) for rows in both]) for name in ("labels", "tokens", "classes")}
    return Rows(states=np.concatenate([rows.states for rows in both], axis=1), **joined)


def collect(variable: str, labelled: Sequence[Labelled], *, limit: int, seed: int) -> Rows:
    """At most ``limit`` positions that have a label, drawn without replacement by ``seed``.

    Args:
        variable: whose labels they are.
        labelled: readings, each with labels ``[n pos]`` of its first ``n`` sequences, `UNSCORED` where there is none.
        limit: most positions.
        seed: of the draw.

    Raises:
        NotApplicable: no position has a label.
    """
    places = [np.flatnonzero(labels.numpy() != UNSCORED) for _, labels in labelled]
    total = sum(len(at) for at in places)
    if not total:
        raise NotApplicable(f"probe {variable}", 0, "at least one position at which the variable is defined")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:limit])
    first, parts = 0, []  # chosen first, so that no more is copied than is used
    for (reading, labels), at in zip(labelled, places, strict=True):
        mine = at[chosen[(chosen >= first) & (chosen < first + len(at))] - first]
        parts.append(_rows(reading, labels.numpy(), mine))
        first += len(at)
    states, *others = zip(*parts, strict=True)
    return Rows(np.concatenate(states, axis=1), *(np.concatenate(other) for other in others))


def _rows(
    reading: Reading, labels: NDArray[np.int64], at: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
    """States, labels, tokens and position classes at flat indices."""
    states = reading.residual.flatten(1, 2)[:, at].float().cpu().numpy()
    return states, labels.ravel()[at], reading.tokens.numpy().ravel()[at], _thirds(labels.shape).ravel()[at]


def _thirds(shape: tuple[int, int]) -> NDArray[np.str_]:
    third = np.arange(shape[1]) * len(THIRDS) // shape[1]
    return np.broadcast_to(np.asarray(THIRDS)[third], shape)


def control_labels(rows: Sequence[Rows], *, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Control-task labels for every set of rows: one random label a token type, drawn with the first set's frequencies.

    A type has the same label in every set, or the control could not be learned at all.
    """
    types = np.unique(np.concatenate([r.tokens for r in rows]))
    drawn = np.random.default_rng(seed).choice(np.sort(rows[0].labels), size=len(types))
    return tuple(drawn[np.searchsorted(types, r.tokens)] for r in rows)


def check_rows(variable: str, train: Rows, test: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values of the training labels and how often each occurs, if a probe can be trained and scored on these rows.

    Raises:
        NotApplicable: a single value.
        Unreadable: activations that are not finite.
    """
    values, counts = np.unique(train.labels, return_counts=True)
    if len(values) < 2:
        raise NotApplicable(f"probe {variable}", values.tolist(), "at least two values among the training positions")
    if not (np.isfinite(train.states).all() and np.isfinite(test.states).all()):
        raise Unreadable(f"probe {variable}", "non-finite activations", "finite numbers")
    return values, counts
