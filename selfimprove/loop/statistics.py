"""The test behind every promotion: exact, paired, one-sided. And what studies say about paired differences.

The unit of replication is a training seed, or a root seed: what was drawn anew. Means over runs and tasks are in
``aggregation``, curves against compute in ``anytime``, proposals in ``improvement``, growth in ``growth``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_PAIRS = 20  # 2**20 sign patterns are enumerated; the gate needs 8 pairs
TIE = 1e-12  # sums closer than this to the observed one count as equal: in favor of the null


def sign_flip_p_value(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Exact one-sided sign-flip (permutation) test that the paired differences have a positive mean.

    Under the null hypothesis each difference is as likely to have the opposite sign. The p-value is the share of the
    ``2**n`` sign patterns whose sum is at least the observed one (Fisher 1935; Good 2005). Its smallest value is
    ``2**-n``.

    >>> sign_flip_p_value([1.0] * 8)
    0.00390625

    Args:
        differences: candidate minus parent, one a training seed: the unit of replication.

    Raises:
        ValueError: no differences, more than 20, or one that is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not 1 <= values.size <= MOST_PAIRS or not np.isfinite(values).all():
        raise ValueError(f"differences: got {list(differences)}; allowed: 1 to {MOST_PAIRS} finite numbers")
    sums = np.zeros(1)
    for value in np.abs(values):
        sums = np.concatenate((sums + value, sums - value))
    return float(np.mean(sums >= values.sum() - TIE))


def two_sided_p_value(differences: Sequence[float]) -> float:
    """The same test of a mean other than zero: twice the smaller of both sides, at most 1.

    >>> two_sided_p_value([1.0] * 8), two_sided_p_value([0.0] * 8)
    (0.0078125, 1.0)

    Raises:
        ValueError: as ``sign_flip_p_value``.
    """
    return min(1.0, 2 * min(sign_flip_p_value(differences), sign_flip_p_value([-value for value in differences])))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the given order.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, most = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = most
    return adjusted


def exact_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Exact interval of the mean paired difference, the counterpart of the sign-flip test (Hartigan 1969).

    The means of all ``2**n - 1`` subsets cut the line into ``2**n`` pieces that hold the center of a symmetric
    distribution equally often, so that the interval is right with any number of pairs. Its level is at least the one
    asked for.

    >>> exact_interval([1.0, 2.0, 3.0, 4.0, 5.0])  # 5 pairs allow 93.75% at most
    >>> exact_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    (1.0, 6.0)

    Returns:
        Its ends; None where so few pairs allow no interval of this level: below 6 for 95%.

    Raises:
        ValueError: as ``sign_flip_p_value``.
    """
    values = np.asarray(differences, dtype=np.float64)
    sign_flip_p_value(values)  # refuses what is no sample
    sums, counts = np.zeros(1), np.zeros(1)
    for value in values:
        sums, counts = np.concatenate((sums, sums + value)), np.concatenate((counts, counts + 1))
    outside = int((1 - level) / 2 * sums.size + TIE)  # pieces on each side
    if outside == 0:
        return None
    means = np.sort(sums[1:] / counts[1:])
    return float(means[outside - 1]), float(means[-outside])


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Exact interval of the median: the narrowest pair of symmetric order statistics, whatever the distribution.

    It is the sign test's (Conover 1999, 3.2). Infinite values are values like others.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0])  # 5 values allow 93.75% at most
    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, math.inf])
    (2.0, 9.0)

    Returns:
        Its ends; None where so few values allow no interval of this level: below 6 for 95%.
    """
    ordered, n = sorted(values), len(values)
    outside = np.cumsum([math.comb(n, below) * 0.5**n for below in range(n // 2)])  # chance of as few on one side
    rank = int(np.searchsorted(outside, (1 - level) / 2, side="right"))  # how many can be left out on each side
    return (ordered[rank - 1], ordered[n - rank]) if rank else None
