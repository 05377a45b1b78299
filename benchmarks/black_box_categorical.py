"""Objectives of interacting categories: glasses, QUBO, sequential control, queens, Ehrlich functions, assignment."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, permutations

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from benchmarks.black_box import Instance, Parameter, categorical, rng_of
from benchmarks.black_box_binary import all_bits

SIMULATIONS = 100
THRESHOLD = 0.1  # of contamination, and of pests
PRICES, DISCOUNTS = (0.0, 1.0, 0.8, 0.7, 0.5), (0.0, 0.2, 0.3, 0.3, 0.0)  # of no pesticide and of four
BETAS = (1.0, 2 / 7, 3 / 7, 3 / 7, 5 / 7)  # control rates are Beta(1, b)
TOLERANCES = (0.0, 1 / 7, 2.5 / 7, 2 / 7, 0.5 / 7)  # by which b rises with each use, divided by the stages


def glass(seed: int, *, rows: int, width: int, states: int) -> Instance:
    """Energy of a Potts glass with Gaussian couplings on an open grid: minus the couplings of equal neighbors.

    With two states it is the Edwards-Anderson Ising glass, but for a constant. By transfer matrices, row by row.
    """
    rng = rng_of(seed, "spin glass")
    across, down = rng.normal(size=(rows, width - 1)), rng.normal(size=(rows - 1, width))
    sites = np.arange(rows * width).reshape(rows, width)
    bonds = [*zip(across.flat, sites[:, :-1].flat, sites[:, 1:].flat, strict=True)]
    bonds += zip(down.flat, sites[:-1].flat, sites[1:].flat, strict=True)
    edges = [(float(coupling), int(a), int(b)) for coupling, a, b in bonds]

    def value(x: Sequence[int]) -> float:
        return -sum(coupling for coupling, a, b in edges if x[a] == x[b])

    line = np.arange(states**width)[:, None] // states ** np.arange(width) % states
    inside = -((line[:, :-1] == line[:, 1:]) @ across.T)
    best, same = inside[:, 0], line[:, None] == line[None]
    for row in range(1, rows):
        best = (best[:, None] - same @ down[row - 1]).min(axis=0) + inside[:, row]
    return Instance(categorical(rows * width, states), value, float(best.min()))


def qubo(seed: int, *, n: int = 16, correlation: float = 10.0) -> Instance:
    """Minus a quadratic form of bits with normal entries that decay with distance; enumerated."""
    distance = np.subtract.outer(np.arange(n), np.arange(n))
    matrix = rng_of(seed, "qubo").normal(size=(n, n)) * np.exp(-(distance**2) / correlation**2)
    bits, entries = all_bits(n).astype(np.float64), matrix.tolist()

    def value(x: Sequence[int]) -> float:
        chosen = [i for i, bit in enumerate(x) if bit]
        return float(-sum(entries[i][j] for i in chosen for j in chosen))

    return Instance(categorical(n), value, -float(((bits @ matrix) * bits).sum(axis=1).max()))


def contamination(seed: int, *, stages: int = 15, penalty: float = 0.01) -> Instance:
    """Cost of preventing contamination at each stage of a food chain, in 100 simulations; enumerated as a tree."""
    rng = rng_of(seed, "contamination control")
    start, spread = rng.beta(1, 30, SIMULATIONS), rng.beta(1, 17 / 3, (stages, SIMULATIONS))
    restored = rng.beta(1, 3 / 7, (stages, SIMULATIONS))

    def follow(level: NDArray[np.float64], stage: int, acts: int) -> NDArray[np.float64]:
        return np.asarray((1 - restored[stage]) * level if acts else spread[stage] * (1 - level) + level)

    def price(level: NDArray[np.float64], acts: int) -> NDArray[np.float64]:
        return np.asarray(acts * (1 + penalty) - ((level < THRESHOLD).mean(axis=-1) - 0.95))

    def value(x: Sequence[int]) -> float:
        level, total = start, 0.0
        for stage, acts in enumerate(x):
            level = follow(level, stage, acts)
            total += float(price(level, acts))
        return total

    levels, totals = start[None], np.zeros(1)
    for stage in range(stages):
        branches = [follow(levels, stage, acts) for acts in (0, 1)]
        totals = np.concatenate([totals + price(branch, acts) for acts, branch in enumerate(branches)])
        levels = np.concatenate(branches)
    return Instance(categorical(stages), value, float(totals.min()))


def pest_control(seed: int, *, stages: int = 7) -> Instance:
    """Price of pesticides against which tolerance develops, and the part of simulations above the threshold.

    Its simulations share random numbers, so that an instance is a function; enumerated as a tree.
    """
    rng = rng_of(seed, "pest control")
    start, spread = rng.beta(1, 30, SIMULATIONS), rng.beta(1, 17 / 3, (stages, SIMULATIONS))
    uniform = rng.random((stages, SIMULATIONS))

    def follow(level: NDArray[np.float64], stage: int, choice: int, used: NDArray[np.int64]) -> NDArray[np.float64]:
        if not choice:
            return np.asarray(spread[stage] * (1 - level) + level)
        beta = BETAS[choice] + TOLERANCES[choice] / stages * used
        return np.asarray(uniform[stage] ** (1 / beta) * level)  # one minus a Beta(1, beta) rate

    def paid(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray((np.array(PRICES) * counts * (1 - np.array(DISCOUNTS) / stages * counts)).sum(axis=-1))

    def value(x: Sequence[int]) -> float:
        level, counts, above = start, np.zeros(len(PRICES), np.int64), 0.0
        for stage, choice in enumerate(x):
            above += float((level > THRESHOLD).mean())
            level = follow(level, stage, choice, counts[choice])
            counts[choice] += 1
        return above + float(paid(counts))

    levels, counts, above = start[None], np.zeros((1, len(PRICES)), np.int64), np.zeros(1)
    for stage in range(stages):
        above = np.tile(above + (levels > THRESHOLD).mean(axis=-1), len(PRICES))
        if stage < stages - 1:  # what follows the last choice counts nowhere
            levels = np.concatenate([follow(levels, stage, c, counts[:, [c]]) for c in range(len(PRICES))])
        counts = np.concatenate([counts + one for one in np.eye(len(PRICES), dtype=np.int64)])
    return Instance(categorical(stages, len(PRICES)), value, float((above + paid(counts)).min()))


def queens(seed: int, *, n: int = 8) -> Instance:
    """Pairs of queens, one in each row, that attack each other; each row's columns in an order of its own."""
    rng = rng_of(seed, "queens")
    columns = [rng.permutation(n).tolist() for _ in range(n)]

    def value(x: Sequence[int]) -> float:
        at = [column[choice] for column, choice in zip(columns, x, strict=True)]
        return float(sum(abs(at[i] - at[j]) in (0, i - j) for i in range(n) for j in range(i)))

    return Instance(categorical(n, n), value, 0.0)


def ehrlich(seed: int, *, length: int = 12, states: int = 6, motifs: int = 2, size: int = 4) -> Instance:
    """Minus the product of the best fit of each spaced motif; 0 for a sequence with a banned transition.

    Built round a feasible sequence, which holds all motifs side by side, so that the optimum is -1. Unlike the
    original, whose infeasible sequences have an infinite value.
    """
    rng = rng_of(seed, "ehrlich")
    banned = {(a, int(rng.choice([b for b in range(states) if b != a]))) for a in range(states)}
    whole = [int(rng.integers(states))]
    while len(whole) < length:
        whole.append(int(rng.choice([b for b in range(states) if (whole[-1], b) not in banned])))
    wanted, room = [], length // motifs
    for first in range(0, room * motifs, room):
        places = [0, *sorted(int(p) for p in rng.choice(np.arange(1, room), size - 1, replace=False))]
        wanted.append([(place, whole[first + place]) for place in places])

    def value(x: Sequence[int]) -> float:
        if any(step in banned for step in pairwise(x)):
            return 0.0
        product = 1.0
        for motif in wanted:
            ends = range(length - motif[-1][0])
            product *= max(sum(x[at + place] == state for place, state in motif) for at in ends) / size
        return -product

    return Instance(categorical(length, states), value, -1.0)


def assignment(seed: int, *, n: int = 8) -> Instance:
    """Quadratic assignment of facilities to random places in the plane; permutations enumerated.

    A permutation is written as its Lehmer code: each parameter chooses among the places that are left.
    """
    rng = rng_of(seed, "quadratic assignment")
    places, flow = rng.random((n, 2)), np.triu(rng.integers(0, 10, (n, n)), 1).astype(np.float64)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    every = np.array(list(permutations(range(n))))
    costs = sum(flow[a, b] * distance[every[:, a], every[:, b]] for a in range(n) for b in range(a + 1, n))
    between = distance.tolist()
    pairs = [(a, b, float(flow[a, b])) for a in range(n) for b in range(a + 1, n)]

    def value(x: Sequence[int]) -> float:
        left = list(range(n))
        at = [left.pop(choice) for choice in x] + left
        return float(sum(weight * between[at[a]][at[b]] for a, b, weight in pairs))

    space = tuple(Parameter(f"x{i}", CategoricalDistribution(tuple(range(n - i)))) for i in range(n - 1))
    return Instance(space, value, float(np.min(costs)))
