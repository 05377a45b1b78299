"""How good proposals are: the improvement of the best of k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Fresh = Sequence[float | None]


def imp_at_k(gains: Sequence[float | None], k: int, fresh: Fresh | None = None) -> float:
    """imp@k: expected improvement of the best of ``k`` proposals over the parent, unbiased from ``n >= k`` of them.

    Averaged over all subsets of ``k`` by their closed form, as pass@k is (Chen et al. 2021, arXiv 2107.03374): the
    proposal that ranks i-th from below is the best of a subset in ``C(i - 1, k - 1)`` of ``C(n, k)``. Who has nothing
    better than the parent keeps the parent: such a subset counts 0, and so does a proposal that came to nothing.

    The best of many by a noisy score is scored too high. With ``fresh``, the subset's best is still chosen by its
    gain, and counts with what it gained on fresh seeds, where that was measured, below 0 included.

    >>> imp_at_k([0.3, 0.0, None, -0.1], 1), imp_at_k([0.3, 0.0, None, -0.1], 4)
    (0.075, 0.3)
    >>> imp_at_k([0.3, 0.2], 2, fresh=[0.1, None])
    0.1

    Args:
        gains: skill over the parent's, a proposal each; None for one without a score: invalid, denied, failed, known
            already, or stopped early, which makes the figure a lower bound where halving stopped a better one.
        k: size of a subset.
        fresh: gains on seeds that chose nothing; None where there is none.

    Raises:
        ValueError: ``k`` is not from 1 to the number of proposals, or ``fresh`` is of another length.
    """
    n = len(gains)
    if not 1 <= k <= n:
        raise ValueError(f"k of imp@k: got {k}; allowed: 1 to {n}, the number of proposals")
    fresh = [None] * n if fresh is None else fresh
    if len(fresh) != n:
        raise ValueError(f"fresh: got {len(fresh)} gains; allowed: {n}, one a proposal")
    chosen = np.array([max(0.0, gain or 0.0) for gain in gains])
    worth = np.array([g if again is None or g == 0 else again for g, again in zip(chosen, fresh, strict=True)])
    order = np.argsort(chosen, kind="stable")
    weights = np.array([math.comb(i, k - 1) / math.comb(n, k) for i in range(n)])
    return float(_shared(chosen[order], weights) @ worth[order])


def _shared(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights with equal values sharing theirs: which of equals is the best of a subset is a matter of lot."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = (np.bincount(places, weights) / counts)[places]
    return shared
