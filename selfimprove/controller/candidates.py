"""Points that are worth asking the forecaster about: new ones, and changes of the best."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from selfimprove.controller.encoding import Encoding
from selfimprove.controller.experts import distances

Array = NDArray[np.float64]

STEPS = (0.03, 0.1, 0.3)  # deviations of a change, as parts of a range
ANYWHERE = 0.3  # chance that a changed number goes anywhere in its range
CROSSED = 0.25  # share of the changed points that first take each parameter from one of two good ones


def change(
    encoding: Encoding, good: Float[Array, "point parameter"], count: int, rng: np.random.Generator
) -> Float[Array, "changed parameter"]:
    """Points with one parameter or a few changed, from good ones; better ones come first, and more often.

    Args:
        encoding: of the space.
        good: at least one point, the best first.
        count: how many.
        rng: of the draws.
    """
    n, width = good.shape
    picked = np.minimum(rng.geometric(min(0.5, 3 / n), (2, count)) - 1, n - 1)
    crossed = (rng.random((count, width)) < 0.5) & (rng.random((count, 1)) < CROSSED)
    points = np.where(crossed, good[picked[1]], good[picked[0]])
    fresh = encoding.uniform(count, rng)
    changed = rng.random((count, width)) < rng.choice([1.0, 2.0, 4.0], (count, 1)) / max(width, 1)
    changed[np.arange(count), rng.integers(width, size=count)] = True
    near = points + rng.normal(size=points.shape) * rng.choice(STEPS, (count, 1))
    goes_near = encoding.ordered & (rng.random(points.shape) > ANYWHERE) & ~np.isnan(points)
    moved = np.where(goes_near, near, fresh)
    return encoding.snap(np.where(changed | np.isnan(points), moved, points))


def conform(
    encoding: Encoding, points: Float[Array, "point parameter"], trials: Float[Array, "trial parameter"]
) -> Float[Array, "point parameter"]:
    """Points without the parameters that the trial most like them lacked.

    Alike is who agrees in most of the parameters that all trials have, choices before numbers, since conditions hang on
    choices; of those who agree alike, who does in the ones that all of them have beside, and so on.

    Args:
        encoding: of the space.
        points: with a value of every parameter.
        trials: at least one, the oldest first; NaN where it lacked one.
    """
    found, lacking = points.copy(), np.isnan(trials)
    undecided = [(np.arange(len(points)), np.arange(len(trials)), np.zeros(points.shape[1], dtype=np.bool_))]
    while undecided:
        at, like, agreed = undecided.pop()
        deciding = ~lacking[like].any(0) & ~agreed
        if (lacking[like] == lacking[like[0]]).all() or not deciding.any():
            found[np.ix_(at, lacking[like[0]])] = np.nan
            continue
        if (deciding & ~encoding.ordered).any():
            deciding &= ~encoding.ordered
        apart = distances(points[np.ix_(at, deciding)], trials[np.ix_(like, deciding)], encoding.ordered[deciding])
        total = apart.sum(-1)
        nearest, which = np.unique(total == total.min(-1, keepdims=True), axis=0, return_inverse=True)
        for number, near in enumerate(nearest):
            undecided.append((at[which.reshape(-1) == number], like[near], agreed | deciding))
    return found


def unseen(
    points: Float[Array, "point parameter"], seen: Float[Array, "trial parameter"]
) -> Float[Array, "new parameter"]:
    """Those that are no trial, each once, in their order."""
    known = {row.tobytes() for row in np.round(seen, 9)}
    new = np.zeros(len(points), dtype=bool)
    for at, row in enumerate(np.round(points, 9)):
        key = row.tobytes()
        new[at] = key not in known
        known.add(key)
    return points[new]
