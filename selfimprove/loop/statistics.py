"""The test behind every promotion: exact, paired, one-sided. And what studies say about paired differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_PAIRS = 20  # 2**20 sign patterns are enumerated; the gate needs 8 pairs
TIE = 1e-12  # sums closer than this to the observed one count as equal: in favor of the null


def sign_flip_p_value(differences: Sequence[float]) -> float:
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


def bootstrap_interval(values: Sequence[float], *, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron 1979), from 10,000 resamples of the values.

    Not covered: with fewer than about ten values it is too narrow; the exact test is not.

    Args:
        values: one a unit of replication.
        seed: of the resamples.
        level: share of the resampled means inside.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    held = np.asarray(values, dtype=np.float64)
    if not held.size or not np.isfinite(held).all():
        raise ValueError(f"values: got {list(values)}; allowed: finite numbers, at least one")
    rng = np.random.Generator(np.random.PCG64(seed))
    means = held[rng.integers(0, held.size, (10_000, held.size))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
