"""What the forecaster is shown while it is trained: searches on synthetic objectives, and points to foretell there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.objective_prior import Synthetic, draw
from selfimprove.controller.candidates import change
from selfimprove.controller.encoding import Encoding
from selfimprove.controller.experts import ranks
from selfimprove.controller.forecaster import EDGES, Forecast, inputs, mixture
from selfimprove.controller.forecaster_price import QUERIES
from selfimprove.controller.search import consider

Array = NDArray[np.float64]

TRIALS = (3, 5, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64, 80, 100, 125, 150)  # lengths of the searches
STARTUP = 10  # random trials at first
ROUND = 8  # trials between looks at what is good
FRESH = 0.25  # share of random points, in a search and among those that are asked about
WANTED = QUERIES // 2  # points that are asked about because the experts expect most of them
BY_EXPERTS = 0.5  # share of searches that go where the experts expect most
GOOD = 8  # that changes start from


@dataclass(frozen=True)
class Lesson:
    """One search and points beside it.

    Attributes:
        seen: what the forecaster reads: the trials, then ``QUERIES`` points, ``[pos, input]``, float32.
        bins: where the points come out, ``[QUERIES]``.
    """

    seen: Tensor
    bins: Tensor


def lesson(seed: int) -> Lesson:
    """A lesson of the prior, as long as its seed says."""
    rng = np.random.default_rng(seed)
    count = TRIALS[seed % len(TRIALS)]
    while True:
        synthetic = draw(rng)
        points, outcomes = search(synthetic, count, rng)
        if np.isfinite(outcomes).all() and len(np.unique(outcomes)) > 1:
            break
    z, encoding = ranks(outcomes), synthetic.encoding
    forecast = Forecast(None, points, z, encoding.ordered)
    asked = _questions(encoding, forecast, rng)
    about = forecast.experts.about(asked)
    blend = mean, spread = mixture(about)
    off = (scores(synthetic.value(asked), outcomes, z) - mean) / spread
    seen = np.concatenate([forecast.shown, inputs(about, blend, None, count)])
    return Lesson(torch.from_numpy(seen).float(), torch.bucketize(torch.from_numpy(off), EDGES))


def _questions(encoding: Encoding, forecast: Forecast, rng: np.random.Generator) -> Array:
    """Points anywhere, near good trials, and those of which the experts expect most: there they flatter themselves."""
    good = forecast.points[np.argsort(forecast.settled, kind="stable")[:GOOD]]
    wanted, worth = consider(encoding, forecast, forecast.points, forecast.points, rng)
    wanted = wanted[np.argsort(-worth, kind="stable")[:WANTED]]
    fresh = encoding.uniform(round(FRESH * QUERIES), rng)
    near = change(encoding, good, QUERIES - len(fresh) - len(wanted), rng)
    asked = np.concatenate([wanted, fresh, near])
    rng.shuffle(asked)
    return asked


def search(synthetic: Synthetic, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A search of which one can learn: its points and their noisy outcomes.

    Half of the searches are plain evolutionary ones, each as greedy as it happens to be. The others go where the
    experts expect most, as the sampler does, several trials at a time.
    """
    encoding = synthetic.encoding
    points = encoding.uniform(min(STARTUP, count), rng)
    outcomes = _tried(synthetic, points, rng)
    greed, by_experts = int(rng.integers(1, 20)), rng.random() < BY_EXPERTS
    while len(points) < count:
        more = min(ROUND, count - len(points))
        if by_experts and len(np.unique(outcomes)) > 1:
            forecast = Forecast(None, points, ranks(outcomes), encoding.ordered)
            asked, worth = consider(encoding, forecast, points, points, rng)
            new = asked[np.argsort(-worth, kind="stable")[:more]]
        else:
            good = points[np.argsort(outcomes, kind="stable")[:greed]]
            fresh = rng.random((more, 1)) < FRESH
            new = np.where(fresh, encoding.uniform(more, rng), change(encoding, good, more, rng))
        points, outcomes = np.concatenate([points, new]), np.concatenate([outcomes, _tried(synthetic, new, rng)])
    return points, outcomes


def scores(values: Array, outcomes: Array, z: Array) -> Array:
    """Values on the scale of the trials' normal scores: interpolated, and beyond them by the slope at that end."""
    kinds, first = np.unique(outcomes, return_index=True)
    at = z[first]
    inner = np.interp(values, kinds, at)
    reach = max(1, len(kinds) // 5)
    low = (at[reach] - at[0]) / (kinds[reach] - kinds[0])
    high = (at[-1] - at[-1 - reach]) / (kinds[-1] - kinds[-1 - reach])
    below, above = np.minimum(values - kinds[0], 0.0) * low, np.maximum(values - kinds[-1], 0.0) * high
    return np.asarray(inner + below + above)


def _tried(synthetic: Synthetic, points: Array, rng: np.random.Generator) -> Array:
    return synthetic.value(points) + synthetic.noise * rng.normal(size=len(points))
