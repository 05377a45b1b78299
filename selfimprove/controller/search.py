"""Which points the forecaster is asked about, and what improvement it expects of each."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from selfimprove.controller.candidates import change, conform, unseen
from selfimprove.controller.encoding import Encoding
from selfimprove.controller.forecaster import Forecast

Array = NDArray[np.float64]

RANDOM, CHANGED, REFINED = 96, 160, 96  # points that are asked about: new, changed from good trials, from good points
PARENTS = 20  # good trials, and good points, that changes start from
ROUNDS = 2  # of refinement


def consider(
    encoding: Encoding,
    forecast: Forecast,
    waiting: Float[Array, "waiting parameter"],
    rng: np.random.Generator,
) -> tuple[Float[Array, "point parameter"], Float[Array, " point"]]:
    """Several hundred points, new ones unless all have been tried, and the improvement expected of each.

    Args:
        encoding: of the space.
        forecast: after the trials so far.
        waiting: points that are being tried now: not asked about again.
        rng: of the draws.
    """
    trials = forecast.points
    seen = np.concatenate([trials, waiting])
    good = trials[np.argsort(forecast.settled, kind="stable")[:PARENTS]]
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
