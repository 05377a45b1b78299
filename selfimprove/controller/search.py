"""Which points the forecaster is asked about, and what improvement it expects of each."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from selfimprove.controller.candidates import change, conform, unseen
from selfimprove.controller.encoding import Encoding
from selfimprove.controller.experts import Experts
from selfimprove.controller.forecaster import Forecast, Forecaster, mixture

Array = NDArray[np.float64]

RANDOM, CHANGED, REFINED = 96, 160, 96  # points that are asked about: new, changed from good trials, from good points
PARENTS = 20  # good trials, and good points, that changes start from
ROUNDS = 2  # of refinement


def believing(
    model: Forecaster | None,
    points: Float[Array, "trial parameter"],
    z: Float[Array, " trial"],
    waiting: Float[Array, "waiting parameter"],
    ordered: Bool[NDArray[np.bool_], " parameter"],
) -> Forecast:
    """A forecast after trials and points without an outcome, which are taken to come out as expected."""
    if len(waiting):
        expected = mixture(Experts(points, z, ordered).about(waiting))[0]
        points, z = np.concatenate([points, waiting]), np.concatenate([z, expected])
    return Forecast(model, points, z, ordered)


def consider(
    encoding: Encoding,
    forecast: Forecast,
    trials: Float[Array, "trial parameter"],
    seen: Float[Array, "seen parameter"],
    rng: np.random.Generator,
) -> tuple[Float[Array, "point parameter"], Float[Array, " point"]]:
    """Several hundred points, new ones unless all have been tried, and the improvement expected of each.

    Args:
        encoding: of the space.
        forecast: after the trials so far.
        trials: those with an outcome, the first that the forecast has read; others are like them.
        seen: points that are not new, the trials among them.
        rng: of the draws.
    """
    good = trials[np.argsort(forecast.settled[: len(trials)], kind="stable")[:PARENTS]]
    asked = np.concatenate([encoding.uniform(RANDOM, rng), change(encoding, good, CHANGED, rng)])
    asked = conform(encoding, asked, trials)
    new = unseen(asked, seen)
    asked = new if len(new) else asked  # where all have been tried, the best of them once more
    worth = forecast.improvement(asked)
    for _ in range(ROUNDS):
        best = asked[np.argsort(-worth, kind="stable")[:PARENTS]]
        more = conform(encoding, change(encoding, best, REFINED, rng), trials)
        more = unseen(more, np.concatenate([seen, asked]))
        if len(more):
            asked, worth = np.concatenate([asked, more]), np.concatenate([worth, forecast.improvement(more)])
    return asked, worth
