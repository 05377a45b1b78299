"""Labelled positions for probes: states of the stream, a variable's values, and where in the sequence they stand.

Position classes: early, middle and late third of the sequence for a task's variables, which are defined where an answer
is asked for; before, at and after the halt token for 'halted'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.bench import Bench, Reading
from interp.verdict import NotApplicable, Unreadable
from selfimprove.seeds import derive
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.halt import LATENT as HALTED

THIRDS = ("early", "middle", "late")
AROUND_HALT = ("before", "at", "after")


@dataclass(frozen=True)
class Rows:
    """Labelled positions: ``states [layer row d_model]``, ``labels [row]``, ``tokens [row]`` (the control's types).

    ``classes [row]`` names each row's position class; None where there are none.
    """

    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    tokens: NDArray[np.int64]
    classes: NDArray[np.str_] | None = None


def variable_rows(bench: Bench, variable: str, *, families: Sequence[str], halt: bool) -> tuple[Rows, Rows]:
    """Rows of one latent that a probe of this bench learns on, and those that it is scored on."""
    read = bench.halted if halt else bench.task
    train, test = (
        collect(
            [read(role, family) for family in families],
            variable,
            limit=bench.plan.rows,
            seed=derive(bench.plan.control, variable, "rows", role),
        )
        for role in ("train", "test")
    )
    return train, test


def collect(readings: Sequence[Reading], variable: str, *, limit: int, seed: int) -> Rows:
    """At most ``limit`` positions at which ``variable`` is defined, drawn without replacement by ``seed``.

    Raises:
        NotApplicable: the variable is defined nowhere.
    """
    places = [_defined(reading, variable) for reading in readings]
    total = sum(len(at) for at in places)
    if not total:
        raise NotApplicable(f"probe {variable}", 0, "at least one position at which the variable is defined")
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:limit])
    first, parts = 0, []
    for reading, at in zip(readings, places, strict=True):  # chosen first, so that no more is copied than is used
        mine = at[chosen[(chosen >= first) & (chosen < first + len(at))] - first]
        parts.append(_rows(reading, variable, mine))
        first += len(at)
    states, labels, tokens, classes = zip(*parts, strict=True)
    return Rows(np.concatenate(states, axis=1), np.concatenate(labels), np.concatenate(tokens), np.concatenate(classes))


def _defined(reading: Reading, variable: str) -> NDArray[np.int64]:
    """Flat indices, over sequences and positions, at which a variable has a value."""
    return np.flatnonzero(reading.latents[variable].numpy() != UNSCORED)


def _rows(
    reading: Reading, variable: str, at: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]]:
    """States, labels, tokens and position classes at flat indices."""
    values, tokens = reading.latents[variable].numpy(), reading.tokens.numpy()
    states = reading.residual.flatten(1, 2)[:, at].float().cpu().numpy()
    classes = _around_halt(values) if variable == HALTED else _thirds(values.shape)
    return states, values.ravel()[at], tokens.ravel()[at], classes.ravel()[at]


def _around_halt(halted: NDArray[np.int64]) -> NDArray[np.str_]:
    """Each position's class by its place around the first halted one, ``[n pos]``."""
    count = (halted == 1).cumsum(-1)
    classes: NDArray[np.str_] = np.asarray(AROUND_HALT)[np.minimum(count, 2)]
    return classes


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
