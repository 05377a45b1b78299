"""The second final objectives: families that neither half has, written down after the final half had been looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from benchmarks.black_box import Function, Instance, categorical, floats, integers, rng_of
from benchmarks.black_box_binary import all_bits

RATIO = 1 / 6.931  # of the gear train
REDUCER_OPTIMUM = math.log10(2994.4710662)
REDUCER_BOUNDS = ((17, 28), (2.6, 3.6), (0.7, 0.8), (7.3, 8.3), (7.3, 8.3), (2.9, 3.9), (5.0, 5.5))
SHEKEL_HEIGHTS = (0.1, 0.2, 0.2, 0.4, 0.4, 0.6, 0.3, 0.7, 0.5, 0.5)
SHEKEL_CENTERS = (
    (4, 4, 4, 4),
    (1, 1, 1, 1),
    (8, 8, 8, 8),
    (6, 6, 6, 6),
    (3, 7, 3, 7),
    (2, 9, 2, 9),
    (5, 5, 3, 3),
    (8, 1, 8, 1),
    (6, 2, 6, 2),
    (7, 3.6, 7, 3.6),
)


def hiff(seed: int, *, levels: int = 4) -> Instance:
    """What is missing to the best hierarchical if-and-only-if: blocks of 2, 4, 8, ... equal bits count their size."""
    n = 2**levels
    scattered = _scattered(rng_of(seed, "hiff"), n)

    def value(x: Sequence[int]) -> float:
        bits, missing = scattered(x), 0
        for size in (2**level for level in range(1, levels + 1)):
            missing += sum(size for at in range(0, n, size) if len(set(bits[at : at + size])) > 1)
        return float(missing)

    return Instance(categorical(n), value, 0.0)


def royal_road(seed: int, *, blocks: int = 8, length: int = 3) -> Instance:
    """Bits of the royal road's blocks that are not complete; masked and scattered."""
    n = blocks * length
    scattered = _scattered(rng_of(seed, "royal road"), n)

    def value(x: Sequence[int]) -> float:
        bits = scattered(x)
        return float(sum(length for at in range(0, n, length) if not all(bits[at : at + length])))

    return Instance(categorical(n), value, 0.0)


def _scattered(rng: np.random.Generator, n: int) -> Callable[[Sequence[int]], list[bool]]:
    """What a hidden mask and a hidden order make of ``n`` bits."""
    mask, order = rng.integers(0, 2, n).tolist(), rng.permutation(n).tolist()
    return lambda x: [x[i] != mask[i] for i in order]


def independent_set(seed: int, *, n: int = 18, share: float = 0.25) -> Instance:
    """Minus the weight of the chosen vertices, plus that of the heavier end of each edge inside; enumerated."""
    rng = rng_of(seed, "independent set")
    weights = rng.integers(1, 10, n, endpoint=True).tolist()
    edges = [(i, j) for i in range(n) for j in range(i) if rng.random() < share]
    bits = all_bits(n).astype(np.int64)
    totals = -(bits @ np.array(weights))
    for i, j in edges:
        totals += max(weights[i], weights[j]) * (bits[:, i] & bits[:, j])

    def value(x: Sequence[int]) -> float:
        inside = sum(max(weights[i], weights[j]) for i, j in edges if x[i] and x[j])
        return float(inside - sum(weight for weight, bit in zip(weights, x, strict=True) if bit))

    return Instance(categorical(n), value, float(totals.min()))


def set_cover(seed: int, *, n: int = 18, elements: int = 30, share: float = 0.2) -> Instance:
    """Cost of the chosen sets, and the greatest cost for each element that none of them has; enumerated."""
    rng = rng_of(seed, "set cover")
    costs, members = rng.integers(1, 10, n, endpoint=True).tolist(), rng.random((elements, n)) < share
    lacking, bits = max(costs), all_bits(n).astype(bool)
    totals = bits @ np.array(costs)
    for having in members:
        totals += lacking * ~bits[:, having].any(axis=1)
    holders = [np.flatnonzero(having).tolist() for having in members]

    def value(x: Sequence[int]) -> float:
        bare = sum(not any(x[i] for i in having) for having in holders)
        return float(lacking * bare + sum(cost for cost, bit in zip(costs, x, strict=True) if bit))

    return Instance(categorical(n), value, float(totals.min()))


def folding(seed: int, *, length: int = 12) -> Instance:
    """Minus the contacts of a chain on the square lattice, of two hydrophobic beads that are no neighbors in it; or how
    often a bead lies on another. Each choice is a turn: left, none or right, in an order of its own; all enumerated."""
    rng = rng_of(seed, "folding")
    greasy, turns = rng.random(length) < 0.6, np.array([rng.permutation(3) for _ in range(length - 2)]).T
    greasy[[0, 3, -1]] = True  # there is a contact to be made
    every = np.arange(3 ** (length - 2))[:, None] // 3 ** np.arange(length - 2) % 3

    def energies(choices: NDArray[np.int64]) -> NDArray[np.int64]:
        return _energies(np.take_along_axis(turns, choices, 0), greasy)

    def value(x: Sequence[int]) -> float:
        return float(energies(np.array([x]))[0])

    return Instance(categorical(length - 2, 3), value, float(energies(every).min()))


def _energies(turns: NDArray[np.int64], greasy: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Energies of chains by their turns, ``[chain, bead - 2]``."""
    heading = np.concatenate([np.zeros((len(turns), 1), np.int64), (turns - 1).cumsum(1)], axis=1) % 4
    steps = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[heading]
    places = np.concatenate([np.zeros((len(turns), 1, 2), np.int64), steps.cumsum(1)], axis=1)
    contacts, collisions = np.zeros(len(turns), np.int64), np.zeros(len(turns), np.int64)
    for bead in range(2, len(greasy)):
        apart = np.abs(places[:, bead, None] - places[:, : bead - 1]).sum(-1)
        collisions += (apart == 0).sum(1)
        contacts += (apart[:, greasy[: bead - 1]] == 1).sum(1) * greasy[bead]
    return np.where(collisions > 0, collisions, -contacts)


def mastermind(seed: int, *, n: int = 12, colors: int = 5) -> Instance:
    """Positions at which a code differs from a hidden one."""
    hidden = rng_of(seed, "mastermind").integers(0, colors, n).tolist()

    def value(x: Sequence[int]) -> float:
        return float(sum(a != b for a, b in zip(x, hidden, strict=True)))

    return Instance(categorical(n, colors), value, 0.0)


def tour(seed: int, *, cities: int = 8) -> Instance:
    """Length of a closed tour of random cities in the unit square; each choice is the next of those left, in order."""
    where = rng_of(seed, "tour").random((cities, 2))
    lengths = np.linalg.norm(where[:, None] - where[None], axis=-1)
    orders = np.array([(0, *rest, 0) for rest in permutations(range(1, cities))])
    table = lengths.tolist()

    def value(x: Sequence[int]) -> float:
        left, order = list(range(1, cities)), [0]
        for choice in (*x, 0):
            order.append(left.pop(choice))
        return float(sum(table[a][b] for a, b in zip(order, [*order[1:], 0], strict=True)))

    space = tuple(p for i in range(cities - 2) for p in categorical(1, cities - 1 - i, prefix=f"c{i}_"))
    return Instance(space, value, float(lengths[orders[:, :-1], orders[:, 1:]].sum(1).min()))


def rastrigin(seed: int, *, n: int = 3) -> Instance:
    """Rastrigin's function of ``n`` integers and ``n`` floats, shifted."""

    def value(z: Sequence[float]) -> float:
        return sum(v * v + 10 * (1 - math.cos(2 * math.pi * v)) for v in z)

    return _moved(seed, "rastrigin", n, 5, value)


def griewank(seed: int, *, n: int = 3) -> Instance:
    """Griewank's function of ``n`` integers and ``n`` floats, shifted."""

    def value(z: Sequence[float]) -> float:
        waves = math.prod(math.cos(v / math.sqrt(i)) for i, v in enumerate(z, 1))
        return 1 + sum(v * v for v in z) / 4000 - waves

    return _moved(seed, "griewank", n, 50, value)


def ellipsoid(seed: int, *, n: int = 3, condition: float = 1e4) -> Instance:
    """Logarithm of one plus a rotated ellipsoid of ``n`` integers and ``n`` floats, shifted."""
    rotation, _ = np.linalg.qr(rng_of(seed, "ellipsoid axes").normal(size=(2 * n, 2 * n)))
    scales = condition ** (np.arange(2 * n) / (2 * n - 1))

    def value(z: Sequence[float]) -> float:
        return float(np.log1p(scales @ (rotation @ np.array(z)) ** 2))

    return _moved(seed, "ellipsoid", n, 5, value)


def _moved(seed: int, family: str, n: int, bound: int, function: Function) -> Instance:
    """A function that is 0 at the origin and never less, of integers and floats up to a bound; the origin moved."""
    rng = rng_of(seed, family)
    inner = bound * 4 // 5
    shifts = [*rng.integers(-inner, inner, n, endpoint=True).tolist(), *rng.uniform(-inner, inner, n).tolist()]

    def value(x: Sequence[float]) -> float:
        return function([v - shift for v, shift in zip(x, shifts, strict=True)])

    return Instance(integers(n, -bound, bound) + floats(n, -bound, bound), value, 0.0)


def schwefel(seed: int, *, whole: int = 3, reals: int = 3) -> Instance:
    """Schwefel's separable function of integers and floats in [-500, 500], reflected."""
    signs = rng_of(seed, "schwefel").choice([-1, 1], whole + reals).tolist()

    def value(x: Sequence[float]) -> float:
        return sum(_schwefel(sign * v) for sign, v in zip(signs, x, strict=True))

    found = optimize.minimize_scalar(_schwefel, bounds=(420, 422), method="bounded", options={"xatol": 1e-9})
    optimum = whole * min(map(_schwefel, range(-500, 501))) + reals * float(found.fun)
    return Instance(integers(whole, -500, 500) + floats(reals, -500, 500), value, optimum)


def _schwefel(v: float) -> float:
    return -v * math.sin(math.sqrt(abs(v)))


def gear_train(seed: int) -> Instance:
    """Decimal logarithm of a gear train's squared error, of four numbers of teeth; axes reflected, all enumerated."""
    turned = rng_of(seed, "gear train").integers(0, 2, 4).tolist()

    def value(x: Sequence[int]) -> float:
        a, b, c, d = (72 - v if turn else v for v, turn in zip(x, turned, strict=True))
        return math.log10((RATIO - a * b / (c * d)) ** 2)

    return Instance(integers(4, 12, 60), value, gear_train_optimum())


@lru_cache
def gear_train_optimum() -> float:
    """Of all pairs of products of two gears."""
    teeth = np.arange(12, 61)
    products = np.unique(np.outer(teeth, teeth))
    return float(np.log10(((RATIO - products[:, None] / products[None]) ** 2).min()))


def shekel(seed: int) -> Instance:
    """Shekel's ten foxholes in [0, 10], of two integers and two floats; axes reflected."""
    turned = rng_of(seed, "shekel").integers(0, 2, 4).tolist()

    def value(x: Sequence[float]) -> float:
        return foxholes([10 - v if turn else v for v, turn in zip(x, turned, strict=True)])

    return Instance(integers(2, 0, 10) + floats(2, 0, 10), value, shekel_optimum())


def foxholes(z: Sequence[float]) -> float:
    """Shekel's function with its ten centers."""
    holes = zip(SHEKEL_CENTERS, SHEKEL_HEIGHTS, strict=True)
    return -sum(1 / (sum((v - a) ** 2 for v, a in zip(z, center, strict=True)) + height) for center, height in holes)


@lru_cache
def shekel_optimum() -> float:
    """The bottom of the deepest hole, where the integers are at its center."""
    found = optimize.minimize(lambda z: foxholes((4, 4, *z)), (4, 4), method="Nelder-Mead", options={"xatol": 1e-9})
    return float(found.fun)


def speed_reducer(seed: int) -> Instance:
    """Decimal logarithm of a gearbox's weight; 4 plus the relative violations where it would not hold. Axes reflected.

    One integer, the pinion's teeth, and six lengths. No weight reaches 10**4.
    """
    turned = rng_of(seed, "speed reducer").integers(0, 2, 7).tolist()

    def value(x: Sequence[float]) -> float:
        bounded = zip(REDUCER_BOUNDS, x, turned, strict=True)
        weight, excess = gearbox([low + high - v if turn else v for (low, high), v, turn in bounded])
        return 4 + excess if excess > 0 else math.log10(weight)

    space = integers(1, *REDUCER_BOUNDS[0])
    for i, (low, high) in enumerate(REDUCER_BOUNDS[1:]):
        space += floats(1, low, high, prefix=f"r{i}_")
    return Instance(space, value, REDUCER_OPTIMUM)


def gearbox(x: Sequence[float]) -> tuple[float, float]:
    """Weight and relative violations of a gearbox: teeth, face width, module, lengths and diameters of two shafts."""
    z, b, m, l1, l2, d1, d2 = x
    weight = 0.7854 * b * m**2 * (3.3333 * z**2 + 14.9334 * z - 43.0934) - 1.508 * b * (d1**2 + d2**2)
    weight += 7.4777 * (d1**3 + d2**3) + 0.7854 * (l1 * d1**2 + l2 * d2**2)
    limits = (
        27 / (b * m**2 * z),
        397.5 / (b * m**2 * z**2),
        1.93 * l1**3 / (m * z * d1**4),
        1.93 * l2**3 / (m * z * d2**4),
        math.hypot(745 * l1 / (m * z), math.sqrt(16.9e6)) / (110 * d1**3),
        math.hypot(745 * l2 / (m * z), math.sqrt(157.5e6)) / (85 * d2**3),
        m * z / 40,
        5 * m / b,
        b / (12 * m),
        (1.5 * d1 + 1.9) / l1,
        (1.1 * d2 + 1.9) / l2,
    )
    return weight, sum(max(0.0, limit - 1) for limit in limits)
