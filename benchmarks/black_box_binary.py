"""Pseudo-Boolean objectives: NK landscapes, MAX-SAT, LABS, the W-model, deceptive traps, knapsacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.black_box import Instance, categorical, rng_of

LABS_OPTIMA = {3: 1, 4: 2, 5: 2, 6: 7, 7: 3, 8: 8, 9: 12, 10: 13, 11: 5, 12: 10, 13: 6, 14: 19, 15: 15, 16: 24, 20: 26}


def all_bits(n: int) -> NDArray[np.uint8]:
    """Every assignment of ``n`` bits, shape (2**n, n)."""
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.uint8)


def nk_landscape(seed: int, *, n: int = 16, k: int = 3) -> Instance:
    """Mean contribution of ``n`` loci, each a uniform table of its own bit and ``k`` random others; enumerated."""
    rng = rng_of(seed, "nk landscape")
    loci = [[i, *(int(j) for j in rng.choice([j for j in range(n) if j != i], k, replace=False))] for i in range(n)]
    tables = rng.random((n, 2 ** (k + 1)))
    totals, bits = np.zeros(2**n), all_bits(n).astype(np.int64)
    for locus, table in zip(loci, tables, strict=True):
        totals += table[bits[:, locus] @ (1 << np.arange(k + 1))]
    contributions = tables.tolist()

    def value(x: Sequence[int]) -> float:
        found = 0.0
        for locus, table in zip(loci, contributions, strict=True):
            found += table[sum(x[j] << place for place, j in enumerate(locus))]
        return found / n

    return Instance(categorical(n), value, float(totals.min() / n))


def max_sat(seed: int, *, n: int = 18, clauses: int = 80) -> Instance:
    """Weight of the violated clauses of a weighted random 3-SAT formula near the threshold of 4.27; enumerated."""
    rng = rng_of(seed, "max-sat")
    formula = []
    for weight in rng.integers(1, 10, clauses, endpoint=True):
        names, wrong = rng.choice(n, 3, replace=False), rng.integers(0, 2, 3)
        formula.append((int(weight), [(int(i), int(bit)) for i, bit in zip(names, wrong, strict=True)]))
    bits, totals = all_bits(n), np.zeros(2**n)
    for weight, literals in formula:
        totals += weight * np.logical_and.reduce([bits[:, i] == bit for i, bit in literals])

    def value(x: Sequence[int]) -> float:
        return float(sum(w for w, ((a, p), (b, q), (c, r)) in formula if x[a] == p and x[b] == q and x[c] == r))

    return Instance(categorical(n), value, float(totals.min()))


def labs(seed: int, *, n: int = 20) -> Instance:
    """Energy of a binary sequence, the sum of its squared aperiodic autocorrelations; bits masked by the seed."""
    mask = rng_of(seed, "labs").integers(0, 2, n).tolist()

    def value(x: Sequence[int]) -> float:
        spins = [1 if a != b else -1 for a, b in zip(x, mask, strict=True)]
        shifts = (zip(spins, spins[lag:], strict=False) for lag in range(1, n))
        return float(sum(sum(a * b for a, b in pairs) ** 2 for pairs in shifts))

    return Instance(categorical(n), value, float(LABS_OPTIMA[n]))


def w_model(
    seed: int, *, n: int, dummies: int = 0, neutrality: int = 1, epistasis: bool = False, leading: bool = False
) -> Instance:
    """OneMax or LeadingOnes behind layers of the W-model; what is missing to the maximum, so that the optimum is 0.

    Args:
        n: bits.
        dummies: bits without effect.
        neutrality: bits that vote for one bit of the next layer; ties count as one.
        epistasis: whether blocks of 4 bits are replaced by XORs of 3 of them, a bijection.
        leading: LeadingOnes instead of OneMax.
    """
    rng = rng_of(seed, "w-model")
    mask, order = rng.integers(0, 2, n).tolist(), rng.permutation(n)[: n - dummies].tolist()

    def value(x: Sequence[int]) -> float:
        bits = [int(x[i] != mask[i]) for i in order]
        if neutrality > 1:
            groups = [bits[i : i + neutrality] for i in range(0, len(bits) - neutrality + 1, neutrality)]
            bits = [int(2 * sum(group) >= neutrality) for group in groups]
        if epistasis:
            blocks = [bits[i : i + 4] for i in range(0, len(bits), 4)]
            bits = [(sum(block) - block[i - 1]) % 2 for block in blocks for i in range(4)]
        ones = (bits.index(0) if 0 in bits else len(bits)) if leading else sum(bits)
        return float(len(bits) - ones)

    return Instance(categorical(n), value, 0.0)


def traps(seed: int, *, blocks: int = 4, length: int = 5) -> Instance:
    """Concatenated fully deceptive traps over masked, scattered bits; what is missing to the maximum."""
    rng, n = rng_of(seed, "trap"), blocks * length
    mask, order = rng.integers(0, 2, n).tolist(), rng.permutation(n).tolist()

    def value(x: Sequence[int]) -> float:
        bits = [x[i] != mask[i] for i in order]
        counts = (sum(bits[i : i + length]) for i in range(0, n, length))
        return float(sum(0 if ones == length else ones + 1 for ones in counts))

    return Instance(categorical(n), value, 0.0)


def knapsack(seed: int, *, n: int = 20) -> Instance:
    """Minus the profit of a weakly correlated 0/1 knapsack; the excess weight where it does not fit. By dynamic
    programming over the capacity, which is half the weight of all."""
    rng = rng_of(seed, "knapsack")
    weights = [int(w) for w in rng.integers(10, 100, n, endpoint=True)]
    profits = [max(1, w + int(d)) for w, d in zip(weights, rng.integers(-10, 10, n, endpoint=True), strict=True)]
    capacity = sum(weights) // 2
    best = np.zeros(capacity + 1)
    for weight, profit in zip(weights, profits, strict=True):
        best[weight:] = np.maximum(best[weight:], best[: capacity + 1 - weight] + profit)

    def value(x: Sequence[int]) -> float:
        excess = sum(w for w, bit in zip(weights, x, strict=True) if bit) - capacity
        return float(excess if excess > 0 else -sum(p for p, bit in zip(profits, x, strict=True) if bit))

    return Instance(categorical(n), value, -float(best[-1]))
