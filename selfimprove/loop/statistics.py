"""The test behind every promotion: exact, paired, one-sided."""

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
