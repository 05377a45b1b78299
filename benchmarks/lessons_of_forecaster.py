"""What the forecaster is shown while it is trained: searches on synthetic objectives, and points to foretell there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.objective_prior import Synthetic, draw
from selfimprove.controller.candidates import change
from selfimprove.controller.experts import Experts, ranks
from selfimprove.controller.forecaster import EDGES, QUERIES, inputs, mixture

Array = NDArray[np.float64]

TRIALS = (3, 5, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64, 80, 100, 125, 150)  # lengths of the searches
STARTUP = 10  # random trials at first
ROUND = 8  # trials between looks at what is good
FRESH = 0.25  # share of random points, in a search and among those that are asked about
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
    z = ranks(outcomes)
    good = points[np.argsort(outcomes, kind="stable")[:GOOD]]
    fresh = synthetic.encoding.uniform(round(FRESH * QUERIES), rng)
    asked = np.concatenate([fresh, change(synthetic.encoding, good, QUERIES - len(fresh), rng)])
    rng.shuffle(asked)
    experts = Experts(points, z, synthetic.encoding.ordered)
    about = experts.about(asked)
    blend = mean, spread = mixture(about)
    off = (scores(synthetic.value(asked), outcomes, z) - mean) / spread
    seen = np.concatenate(
        [inputs(experts.trials, mixture(experts.trials), z, count), inputs(about, blend, None, count)]
    )
    return Lesson(torch.from_numpy(seen).float(), torch.bucketize(torch.from_numpy(off), EDGES))


def search(synthetic: Synthetic, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """A plain evolutionary search: its points and their noisy outcomes. How greedy it is differs."""
    encoding = synthetic.encoding
    points = encoding.uniform(min(STARTUP, count), rng)
    outcomes = _tried(synthetic, points, rng)
    greed = int(rng.integers(1, 20))
    while len(points) < count:
        good = points[np.argsort(outcomes, kind="stable")[:greed]]
        more = min(ROUND, count - len(points))
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
