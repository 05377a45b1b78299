"""Objectives with floats, integers and categories: shifted test functions, grids, CoCaBO's, a conditional tree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np

from benchmarks.black_box import Function, Instance, Parameter, categorical, floats, integers, rng_of

STYBLINSKI_TANG_OPTIMUM = -39.16616570377142  # of one float, at -2.903534
VESSEL_OPTIMUM = math.log10(6059.714335048436)
CAMEL_OPTIMUM = -1.031628453489877  # of the six-hump camel function
CAMELS = {2: 0.2, 3: 0.7}  # how much of it Func2C and Func3C add at most; their other terms are not negative
HARTMANN_WEIGHTS = (1.0, 1.2, 3.0, 3.2)
HARTMANN_SCALES = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
HARTMANN_CENTERS = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def ackley(seed: int, *, bits: int = 10, reals: int = 2) -> Instance:
    """Ackley's function of bits, floats in [-1, 1] and one float in [1e-4, 1] on a logarithmic scale, shifted."""
    rng = rng_of(seed, "ackley")
    shifts = [*rng.integers(0, 2, bits).tolist(), *rng.uniform(-0.8, 0.8, reals + 1).tolist()]

    def value(x: Sequence[float]) -> float:
        placed = [*x[:-1], math.log10(x[-1]) / 2 + 1]
        z = [a - b for a, b in zip(placed, shifts, strict=True)]
        root = math.sqrt(sum(v * v for v in z) / len(z))
        wave = sum(math.cos(2 * math.pi * v) for v in z) / len(z)
        return max(0.0, 20 + math.e - 20 * math.exp(-0.2 * root) - math.exp(wave))

    log = floats(1, 1e-4, 1.0, log=True, prefix="log")
    return Instance(categorical(bits) + floats(reals, -1, 1) + log, value, 0.0)


def rosenbrock(seed: int, *, n: int = 3) -> Instance:
    """Logarithm of one plus Rosenbrock's valley through ``n`` integers and ``n`` floats by turns, shifted."""
    rng = rng_of(seed, "rosenbrock")
    return _shifted(rng.integers(-2, 5, n).tolist(), rng.uniform(-2, 5, n).tolist(), -5, 10, _rosenbrock)


def levy(seed: int, *, n: int = 3) -> Instance:
    """Levy's function of ``n`` integers and ``n`` floats by turns, shifted."""
    rng = rng_of(seed, "levy")
    return _shifted(rng.integers(-7, 7, n).tolist(), rng.uniform(-7, 7, n).tolist(), -10, 10, _levy)


def styblinski_tang(seed: int, *, whole: int = 4, reals: int = 3) -> Instance:
    """Styblinski and Tang's separable function of integers and floats in [-5, 5], reflected."""
    signs = rng_of(seed, "styblinski-tang").choice([-1, 1], whole + reals).tolist()

    def one(z: float) -> float:
        return (z**4 - 16 * z**2 + 5 * z) / 2

    def value(x: Sequence[float]) -> float:
        return sum(one(sign * v) for sign, v in zip(signs, x, strict=True))

    optimum = whole * min(map(one, range(-5, 6))) + reals * STYBLINSKI_TANG_OPTIMUM
    return Instance(integers(whole, -5, 5) + floats(reals, -5, 5), value, optimum)


def hartmann(seed: int, *, steps: int = 10) -> Instance:
    """Hartmann's six-dimensional function on a grid, with axes permuted and reflected; all points enumerated."""
    rng = rng_of(seed, "hartmann")
    order, turned = rng.permutation(6).tolist(), rng.integers(0, 2, 6).tolist()

    def value(x: Sequence[int]) -> float:
        z = [(steps - x[i] if turn else x[i]) / steps for i, turn in zip(order, turned, strict=True)]
        found = 0.0
        for weight, scales, centers in zip(HARTMANN_WEIGHTS, HARTMANN_SCALES, HARTMANN_CENTERS, strict=True):
            found -= weight * math.exp(-sum(s * (v - c) ** 2 for s, v, c in zip(scales, z, centers, strict=True)))
        return found

    return Instance(integers(6, 0, steps), value, hartmann_optimum(steps))


@lru_cache
def hartmann_optimum(steps: int) -> float:
    """Least value on the grid: each term is a product over the axes."""
    grid, total = np.arange(steps + 1) / steps, np.zeros((steps + 1,) * 6)
    for weight, scales, centers in zip(HARTMANN_WEIGHTS, HARTMANN_SCALES, HARTMANN_CENTERS, strict=True):
        term = np.full((), -weight)
        for scale, center in zip(scales, centers, strict=True):
            term = np.multiply.outer(term, np.exp(-scale * (grid - center) ** 2))
        total += term
    return float(total.min())


def cocabo(seed: int, *, choices: int) -> Instance:
    """Func2C or Func3C: categories choose which two-dimensional functions are added; categories and axes turned."""
    rng = rng_of(seed, "cocabo")
    sizes = (3, 5, 4)[:choices]
    orders, signs = [rng.permutation(size).tolist() for size in sizes], rng.choice([-1, 1], 2).tolist()

    def value(x: Sequence[float]) -> float:
        chosen = [order[int(c)] for order, c in zip(orders, x, strict=False)]
        a, b = (2 * sign * v for sign, v in zip(signs, x[choices:], strict=True))
        return func(chosen, a, b)

    space = tuple(p for i, size in enumerate(sizes) for p in categorical(1, size, prefix=f"c{i}_"))
    return Instance(space + floats(2, -1, 1), value, CAMELS[choices] * CAMEL_OPTIMUM)


def func(chosen: Sequence[int], a: float, b: float) -> float:
    """CoCaBO's Func2C (two choices) or Func3C (three), a and b in [-2, 2]."""
    rosen = (100 * (b - a**2) ** 2 + (a - 1) ** 2) / 300
    camel = ((4 - 2.1 * a**2 + a**4 / 3) * a**2 + a * b + (-4 + 4 * b**2) * b**2) / 10
    beale = ((1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2) / 50
    terms = (rosen, camel, beale)
    found = terms[chosen[0]] + terms[min(chosen[1], 2)]
    if len(chosen) < 3:
        return found
    return found + (5 * camel, 2 * rosen, 2 * beale, 3 * beale)[chosen[2]]


def tree(seed: int) -> Instance:
    """A tree of three binary choices with a parabola at each leaf and a float shared by each half; 0.1 at best."""
    rng = rng_of(seed, "tree")
    left = int(rng.integers(0, 2))
    centers = rng.uniform(0.1, 0.9, 4).tolist()
    half = categorical(1, prefix="half")[0]
    space = [half]
    for side, name in ((left, "left"), (1 - left, "right")):
        branch = Parameter(f"{name}0", half.distribution, ("half0", side))
        shared = Parameter(f"shared_{name}0", floats(1, 0, 1)[0].distribution, ("half0", side))
        leaves = [Parameter(f"{name}_leaf{i}", shared.distribution, (branch.name, i)) for i in (0, 1)]
        space += [branch, shared, *leaves]

    def value(x: Sequence[float | None]) -> float:
        shared = x[2] if x[2] is not None else x[6]
        [(center, at)] = [(c, v) for c, v in zip(centers, (*x[3:5], *x[7:9]), strict=True) if v is not None]
        assert shared is not None
        return float((at - center) ** 2 + 0.1 + shared)

    return Instance(tuple(space), value, 0.1)


def michalewicz(seed: int, *, whole: int = 4, reals: int = 3, steps: int = 30, steepness: int = 10) -> Instance:
    """Michalewicz's separable function of integers, a grid over [0, pi], and floats there; some axes reflected."""
    n = whole + reals
    turned = rng_of(seed, "michalewicz").integers(0, 2, n).tolist()

    def value(x: Sequence[float]) -> float:
        z = [*(math.pi * v / steps for v in x[:whole]), *x[whole:]]
        z = [math.pi - v if turn else v for v, turn in zip(z, turned, strict=True)]
        return sum(_michalewicz(i, v, steepness) for i, v in enumerate(z, 1))

    grid = [math.pi * step / steps for step in range(steps + 1)]
    optimum = sum(min(_michalewicz(i, v, steepness) for v in grid) for i in range(1, whole + 1))
    optimum += sum(michalewicz_optimum(i, steepness) for i in range(whole + 1, n + 1))
    return Instance(integers(whole, 0, steps) + floats(reals, 0, math.pi), value, optimum)


@lru_cache
def michalewicz_optimum(i: int, steepness: int) -> float:
    """Least value of axis ``i`` on [0, pi]: a fine grid, then a finer one between the neighbors of its best point."""
    low, high = 0.0, math.pi
    for _ in range(4):
        grid = np.linspace(low, high, 4001)
        best = int(np.argmin(-np.sin(grid) * np.sin(i * grid**2 / math.pi) ** (2 * steepness)))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 4000)])
    return _michalewicz(i, (low + high) / 2, steepness)


def pressure_vessel(seed: int) -> Instance:
    """Decimal logarithm of a vessel's cost; 6 plus the relative violations where it would not hold. Axes reflected.

    The plates' thicknesses are multiples of 1/16 inch, radius and length in inches. No cost reaches 10**6.
    """
    turned = rng_of(seed, "pressure vessel").integers(0, 2, 4).tolist()

    def value(x: Sequence[float]) -> float:
        bounds = ((1, 99), (1, 99), (10, 200), (10, 200))
        shell, head, r, length = (a + b - v if turn else v for (a, b), v, turn in zip(bounds, x, turned, strict=True))
        s, h = shell * 0.0625, head * 0.0625
        volume = math.pi * r**2 * length + 4 / 3 * math.pi * r**3
        broken = (0.0193 * r / s - 1, 0.00954 * r / h - 1, 1 - volume / 1_296_000)
        excess = sum(max(0.0, v) for v in broken)
        if excess > 0:
            return 6 + excess
        cost = 0.6224 * s * r * length + 1.7781 * h * r**2 + 3.1661 * s**2 * length + 19.84 * s**2 * r
        return math.log10(cost)

    return Instance(integers(2, 1, 99) + floats(2, 10, 200), value, VESSEL_OPTIMUM)


def _shifted(whole: list[int], reals: list[float], low: int, high: int, function: Function) -> Instance:
    """A function with its minimum of 0 at ones, shifted so that it lies at the given integers and floats, by turns."""
    n = len(whole)
    shifts = [shift - 1 for pair in zip(whole, reals, strict=True) for shift in pair]

    def value(x: Sequence[float]) -> float:
        by_turns = (v for pair in zip(x[:n], x[n:], strict=True) for v in pair)
        return function([v - shift for v, shift in zip(by_turns, shifts, strict=True)])

    return Instance(integers(n, low, high) + floats(n, low, high), value, 0.0)


def _rosenbrock(z: Sequence[float]) -> float:
    return math.log1p(sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(z)))


def _levy(z: Sequence[float]) -> float:
    w = [1 + (v - 1) / 4 for v in z]
    inner = sum((v - 1) ** 2 * (1 + 10 * math.sin(math.pi * v + 1) ** 2) for v in w[:-1])
    ends = math.sin(math.pi * w[0]) ** 2 + (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return inner + ends


def _michalewicz(i: int, v: float, steepness: int) -> float:
    return -math.sin(v) * math.sin(i * v * v / math.pi) ** (2 * steepness)
