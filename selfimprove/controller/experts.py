"""Simple forecasters of an objective from its trials, each right for another kind of objective.
An expert is a Gaussian process with one fixed kernel (Rasmussen & Williams 2006): how fast outcomes change with
distance, whether parameters act one by one, in pairs or all together, and whether all count alike or those more whose
values alone tell outcomes apart. Its noise is chosen on a grid by marginal likelihood, its amplitude in closed form. So
all of them cost a few factorizations, and nothing is tuned on the objective at hand. Which of them to believe is what
the forecaster learns (``selfimprove.controller.forecaster``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

Array = NDArray[Any]

NOISES = (1e-4, 1e-2, 0.1, 0.5)  # variance of the noise over that of the signal
DEPTHS = ("flat", "additive", "pairs", "near", "middle", "far", "smooth near", "smooth far")
RELEVANT = ("additive relevant", "near relevant", "far relevant", "smooth relevant")
NAMES = (*DEPTHS, *RELEVANT)
FIGURES = 4  # of one expert about one point
BINS = 5  # that values with an order are grouped into, to see whether they tell outcomes apart
JITTER = 1e-8


def ranks(values: Float[Array, " trial"]) -> Float[Array, " trial"]:
    """Outcomes as normal scores of their ranks: the order is all that counts, so no scale and no outlier does."""
    kinds, at, sizes = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(sizes) - sizes
    return _scores(len(values))[first + (sizes - 1) // 2][at] if len(kinds) else np.empty(0)


@lru_cache(maxsize=1024)
def _scores(count: int) -> Float[Array, " rank"]:
    """Normal scores of the ranks of so many outcomes."""
    return np.array([NormalDist().inv_cdf((rank + 0.5) / count) for rank in range(count)])


def distances(
    a: Float[Array, "a parameter"], b: Float[Array, "b parameter"], ordered: Bool[NDArray[np.bool_], " parameter"]
) -> Float[Array, "a b parameter"]:
    """Distance of each parameter, 0 to 1: between places in a range; 1 for another choice, or where only one has it."""
    apart = np.abs(a[:, None, :] - b[None, :, :])
    apart[..., ~ordered] = apart[..., ~ordered] > 0.5
    if (lacking := np.isnan(a)).any() or np.isnan(b).any():
        here, there = lacking[:, None, :], np.isnan(b)[None, :, :]
        apart = np.where(here | there, here != there, apart)
    return apart


def relevance(
    points: Float[Array, "trial parameter"], z: Float[Array, " trial"], ordered: Bool[NDArray[np.bool_], " parameter"]
) -> Float[Array, " parameter"]:
    """How much of the outcome's variance each parameter explains alone, adjusted for chance; with mean 1."""
    total = float(((z - z.mean()) ** 2).sum()) or 1.0
    found = np.empty(points.shape[1])
    for column, has_order in enumerate(ordered):
        values = np.nan_to_num(points[:, column], nan=-1.0)
        groups = np.ceil(values * BINS) if has_order else values
        kinds, at = np.unique(groups, return_inverse=True)
        sizes = np.bincount(at)
        between = float((np.bincount(at, z - z.mean()) ** 2 / sizes).sum()) / total
        free = max(len(z) - len(kinds), 1)
        found[column] = max(0.0, 1 - (1 - between) * (len(z) - 1) / free)
    shared = found + 0.05
    return np.asarray(shared / shared.mean())


@dataclass(frozen=True)
class Kernels:
    """The kernels of all experts, in units of the distances that the trials have from each other.

    Attributes:
        weights: of the parameters, alike and by relevance.
        spans: medians of what ``_sums`` makes of the trials.
    """

    weights: Float[Array, "parameter 2"]
    spans: Float[Array, " 4"]

    @classmethod
    def of(cls, apart: Float[Array, "trial trial parameter"], relevance: Float[Array, " parameter"]) -> Kernels:
        """Kernels for trials that are so far apart."""
        weights = np.stack([np.ones_like(relevance), relevance], axis=-1)
        upper = np.triu_indices(len(apart), 1)
        sums = _sums(apart, weights)[upper]
        return cls(weights, np.maximum(np.median(sums, axis=0), 1e-3) if len(sums) else np.ones(4))

    def single(self) -> Kernels:
        """The same in single precision."""
        return Kernels(self.weights.astype(np.float32), self.spans.astype(np.float32))

    def __call__(self, apart: Float[Array, "a b parameter"]) -> Float[Array, "expert a b"]:
        """Covariances, 1 at distance 0."""
        even, own_even, squares, own_squares = np.moveaxis(_sums(apart, self.weights) / self.spans, -1, 0)
        additive, own_additive = np.moveaxis(np.exp(-apart / 0.3) @ (self.weights / self.weights.sum(0)), -1, 0)
        return np.stack([
            (even == 0).astype(apart.dtype),
            additive,
            additive**3,
            np.exp(-even / 0.3),
            np.exp(-even),
            np.exp(-even / 3),
            np.exp(-squares / 0.2),
            np.exp(-squares),
            own_additive,
            np.exp(-own_even / 0.5),
            np.exp(-own_even / 2),
            np.exp(-own_squares / 0.5),
        ])  # fmt: skip


def _sums(apart: Float[Array, "*pair parameter"], weights: Float[Array, "parameter 2"]) -> Float[Array, "*pair 4"]:
    """Distances over all parameters, and their squares, each with all parameters alike and by relevance."""
    return np.concatenate([apart @ weights, apart**2 @ weights], axis=-1)


class Experts:
    """All experts, fitted to the trials of one objective.

    Args:
        points: encoded trials; see ``Encoding``.
        z: their outcomes, of mean about 0 and variance about 1; less is better.
        ordered: which parameters have an order.

    Attributes:
        trials: figures of every expert about each trial from all the *others*, ``[trial, expert * FIGURES]``.
    """

    def __init__(
        self,
        points: Float[Array, "trial parameter"],
        z: Float[Array, " trial"],
        ordered: Bool[NDArray[np.bool_], " parameter"],
    ) -> None:
        apart = distances(points, points, ordered)
        kernels = Kernels.of(apart, relevance(points, z, ordered))
        whitening, white, self._scales, self._noises, self._evidence = _fit(kernels(apart), z)
        precision = (whitening**2).sum(1)
        missed = np.einsum("eij,ei->ej", whitening, white) / precision
        self.trials = self._figures(z - missed, np.sqrt(self._scales[:, None] / precision))
        self._points, self._ordered, self._kernels = points.astype(np.float32), ordered, kernels.single()
        self._whitening, self._white = whitening.astype(np.float32), white.astype(np.float32)

    def about(self, points: Float[Array, "point parameter"]) -> Float[Array, "point figure"]:
        """Figures of every expert about new points: mean, log deviation of the mean, evidence, log noise.

        In single precision, which is exact to about 1e-4 of the signal's variance, and twice as fast.
        """
        cross = self._kernels(distances(points.astype(np.float32), self._points, self._ordered))
        whitened = cross @ self._whitening.swapaxes(1, 2)
        with np.errstate(invalid="ignore"):  # OpenBLAS 0.3.31 on AVX-512 reads stale stack next to vectors of five
            mean = (whitened @ self._white[:, :, None])[..., 0].astype(np.float64)
        explained = np.einsum("ept,ept->ep", whitened, whitened).astype(np.float64)
        deviation = np.sqrt(self._scales[:, None] * np.maximum(1.0 - explained, 1e-6))
        return self._figures(mean, deviation)

    def _figures(self, mean: Array, deviation: Array) -> Float[Array, "point figure"]:
        """Experts' figures side by side; evidence is per trial, over the best expert's."""
        shape = mean.shape
        evidence = np.broadcast_to((self._evidence - self._evidence.max())[:, None], shape)
        noise = np.broadcast_to(np.log10(self._noises * self._scales + 1e-9)[:, None], shape)
        figures = np.stack([mean, np.log(deviation + 1e-6), evidence * 10, noise], axis=-1)
        return np.ascontiguousarray(figures.transpose(1, 0, 2)).reshape(shape[1], -1)


def _fit(
    covariance: Float[Array, "expert trial trial"], z: Float[Array, " trial"]
) -> tuple[Array, Array, Array, Array, Array]:
    """Choose each expert's noise by its marginal likelihood, of those with which its covariance is one.

    Where only some trials have a parameter, the smooth kernels' are not quite: no point has the same distance from all
    others on a line, squared. The kernels that are not squared are sound with any noise.

    Returns:
        The inverse of the lower Cholesky factor of each covariance with its noise, its product with ``z``, the signal's
        variance, the noise over it, and the log evidence per trial.
    """
    n, noises = len(z), torch.tensor(NOISES, dtype=torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    noisy = torch.from_numpy(covariance)[:, None] + (noises + JITTER)[:, None, None] * eye
    factors, flaw = torch.linalg.cholesky_ex(noisy)
    factors[flaw > 0] = eye
    white = torch.linalg.solve_triangular(factors, torch.from_numpy(z)[:, None], upper=False).squeeze(-1)
    scales = (white**2).mean(-1) + 1e-9
    evidence = -0.5 * scales.log() - factors.diagonal(dim1=-2, dim2=-1).log().mean(-1)
    evidence = torch.where(flaw > 0, -torch.inf, evidence)
    best = evidence.argmax(-1, keepdim=True)
    each = torch.arange(len(factors))
    whitening = torch.linalg.solve_triangular(factors[each, best[:, 0]], eye, upper=False).numpy()
    scale, most = (one.gather(-1, best).squeeze(-1).numpy() for one in (scales, evidence))
    return whitening, white[each, best[:, 0]].numpy(), scale, noises[best[:, 0]].numpy(), most
