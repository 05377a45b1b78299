"""A wide prior of synthetic objectives: what the forecaster learned from, and all that it knows before a first trial.

Spaces of 2 to 30 parameters of any kind, and functions of six kinds over them, alone or added, warped, in steps, with
noise. None of them is a benchmark's: they are random networks, random interactions of parameters, random waves, random
trees, random bowls and random prototypes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from selfimprove.controller.encoding import Encoding

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
"""Values of encoded points, ``[point, parameter] -> [point]``."""

SAMPLE = 256  # random points that a function is brought to scale on


@dataclass(frozen=True)
class Synthetic:
    """An objective: its space, its values without noise (variance about 1 over the space), its noise's deviation."""

    encoding: Encoding
    value: Function
    noise: float


def draw(rng: np.random.Generator) -> Synthetic:
    """One objective of the prior."""
    encoding = draw_space(rng)
    function = _draw_function(encoding, rng)
    if rng.random() < 0.3:
        first, second, share = function, _draw_function(encoding, rng), rng.random()

        def function(x: Array) -> Array:
            return share * first(x) + (1 - share) * second(x)

    function = _warped(_scaled(function, encoding, rng), rng)
    noise = float(np.exp(rng.uniform(math.log(0.02), 0.0))) if rng.random() < 0.5 else 0.0
    return Synthetic(encoding, _scaled(function, encoding, rng), noise)


def draw_space(rng: np.random.Generator) -> Encoding:
    """A space whose parameters are all binary, all categorical, all ordered, or of any kind."""
    count = round(math.exp(rng.uniform(math.log(2), math.log(30))))
    kind = rng.choice(["binary", "categorical", "ordered", "mixed"])
    return Encoding({f"p{index:02d}": _draw_parameter(kind, rng) for index in range(count)})


def _draw_parameter(kind: str, rng: np.random.Generator) -> BaseDistribution:
    if kind == "mixed":
        kind = str(rng.choice(["binary", "categorical", "ordered"]))
    if kind == "binary":
        return CategoricalDistribution((0, 1))
    if kind == "categorical":
        return CategoricalDistribution(tuple(range(int(rng.integers(2, 9)))))
    return FloatDistribution(0.0, 1.0) if rng.random() < 0.5 else IntDistribution(0, int(rng.integers(2, 20)))


def _scaled(function: Function, encoding: Encoding, rng: np.random.Generator) -> Function:
    seen = function(encoding.uniform(SAMPLE, rng))
    middle, spread = float(seen.mean()), float(seen.std()) or 1.0
    return lambda x: (function(x) - middle) / spread


def _warped(function: Function, rng: np.random.Generator) -> Function:
    """The same order of points on another scale, or fewer levels."""
    form = rng.choice(["as it is", "power", "exponential", "steps"], p=[0.4, 0.25, 0.15, 0.2])
    power, height = float(rng.uniform(0.4, 2.5)), float(rng.uniform(0.1, 0.6))
    forms: dict[str, Callable[[Array], Array]] = {
        "as it is": lambda y: y,
        "power": lambda y: np.sign(y) * np.abs(y) ** power,
        "exponential": lambda y: np.exp(np.clip(power * y, -8, 8)),
        "steps": lambda y: np.floor(y / height),
    }
    return lambda x: forms[str(form)](function(x))


def _draw_function(encoding: Encoding, rng: np.random.Generator) -> Function:
    kinds: list[Any] = [_network, _interactions, _waves, _trees, _bowl, _prototypes]
    made: Function = kinds[rng.integers(len(kinds))](encoding, rng)
    return made


def _relevances(count: int, rng: np.random.Generator) -> Array:
    """How much each parameter matters: alike, or a few much more than others."""
    weights = rng.gamma(rng.choice([0.3, 1.0, 10.0]), size=count) + 1e-3
    return np.asarray(weights / weights.max())


def _features(encoding: Encoding, rng: np.random.Generator) -> Callable[[Array], Array]:
    """Each parameter as a few numbers, as large as it matters: its place, or a random place for each choice."""
    ordered, levels = encoding.ordered, encoding.levels
    relevance = _relevances(len(ordered), rng)
    places = {
        column: relevance[column] * rng.normal(size=(levels[column], 2)) for column in np.flatnonzero(~ordered).tolist()
    }

    def features(x: Array) -> Array:
        parts = [
            (2 * x[:, column : column + 1] - 1) * relevance[column] * 1.7
            if ordered[column]
            else places[column][x[:, column].astype(int)]
            for column in range(x.shape[1])
        ]
        return np.concatenate(parts, axis=1)

    return features


def _network(encoding: Encoding, rng: np.random.Generator) -> Function:
    features = _features(encoding, rng)
    act: Any = [np.tanh, np.sin, np.abs, lambda y: np.maximum(y, 0)][rng.integers(4)]
    sizes = [features(encoding.uniform(1, rng)).shape[1], *rng.choice([8, 16, 32], rng.integers(1, 4)).tolist(), 1]
    gain = float(rng.uniform(0.7, 2.5))
    layers = [
        (rng.normal(size=(a, b)) * gain / a**0.5 * (sizes[0] ** 0.5 if not at else 1), 0.5 * rng.normal(size=b))
        for at, (a, b) in enumerate(pairwise(sizes))
    ]
    layers[0] = (layers[0][0] / sizes[0] ** 0.25, layers[0][1])

    def value(x: Array) -> Array:
        y = features(x)
        for weights, bias in layers[:-1]:
            y = act(y @ weights + bias)
        return np.asarray((y @ layers[-1][0])[:, 0])

    return value


def _interactions(encoding: Encoding, rng: np.random.Generator) -> Function:
    """Parameters act alone, and in groups of two to four that share a random table or a random product of waves."""
    features, count = _features(encoding, rng), len(encoding.names)
    groups = [[column] for column in range(count)] if rng.random() < 0.8 else []
    for _ in range(rng.integers(0, 2 * count + 1)):
        size = min(count, int(rng.integers(2, 5)))
        groups.append(rng.choice(count, size, replace=False).tolist())
    owner = np.concatenate([
        np.full(1 if has_order else 2, column) for column, has_order in enumerate(encoding.ordered)
    ])  # fmt: skip
    strength, parts = float(rng.uniform(0.3, 2.0)), []
    for group in groups or [[0]]:
        own = np.isin(owner, group)
        weights = np.where(own[:, None], rng.normal(size=(len(owner), 2)) * rng.uniform(0.5, 2.5), 0.0)
        parts.append((weights, rng.uniform(0, 2 * np.pi, 2), rng.normal() * (strength if len(group) > 1 else 1.0)))

    def value(x: Array) -> Array:
        y = features(x)
        return np.asarray(sum(size * np.sin(y @ weights + phase).prod(-1) for weights, phase, size in parts))

    return value


def _waves(encoding: Encoding, rng: np.random.Generator) -> Function:
    """A draw from a Gaussian process, by random Fourier features (Rahimi & Recht 2007)."""
    features = _features(encoding, rng)
    width = features(encoding.uniform(1, rng)).shape[1]
    scale = float(np.exp(rng.uniform(math.log(0.15), math.log(2.0)))) / width**0.5 * 2
    heavy = rng.standard_gamma(1.0, size=(1, 256)) + 0.2 if rng.random() < 0.5 else np.ones((1, 256))
    frequencies, phases = rng.normal(size=(width, 256)) * scale / heavy**0.5, rng.uniform(0, 2 * np.pi, 256)
    weights = rng.normal(size=256)
    return lambda x: np.asarray(np.cos(features(x) @ frequencies + phases) @ weights)


def _trees(encoding: Encoding, rng: np.random.Generator) -> Function:
    """A sum of random oblivious trees: each asks the same question of all points at one depth."""
    count, ordered, levels = len(encoding.names), encoding.ordered, encoding.levels
    relevance = _relevances(count, rng)
    trees = []
    for _ in range(rng.integers(1, 25)):
        depth = int(rng.integers(1, 6))
        columns = rng.choice(count, depth, p=relevance / relevance.sum())
        sides = [
            rng.random(1) if ordered[column] else (rng.random(levels[column]) < 0.5).astype(float) for column in columns
        ]
        trees.append((columns, sides, rng.normal(size=2**depth)))

    def value(x: Array) -> Array:
        total = np.zeros(len(x))
        for columns, sides, leaves in trees:
            leaf = np.zeros(len(x), dtype=int)
            for column, side in zip(columns, sides, strict=True):
                asked = x[:, column]
                leaf = 2 * leaf + (asked > side[0] if ordered[column] else side[asked.astype(int)] > 0.5)
            total += leaves[leaf]
        return total

    return value


def _apart(encoding: Encoding, x: Array, centre: Array) -> Array:
    return np.where(encoding.ordered, np.abs(x - centre), np.abs(x - centre) > 0.5)


def _bowl(encoding: Encoding, rng: np.random.Generator) -> Function:
    """Distance from one point, by a power, with ripples."""
    centre, relevance = encoding.uniform(1, rng), _relevances(len(encoding.names), rng)
    power, ripple, waves = float(rng.uniform(0.5, 3.0)), float(rng.choice([0.0, 0.1, 0.4])), float(rng.uniform(3, 20))

    def value(x: Array) -> Array:
        apart = _apart(encoding, x, centre)
        return np.asarray((relevance * (apart**power - ripple * np.cos(waves * apart))).sum(-1))

    return value


def _prototypes(encoding: Encoding, rng: np.random.Generator) -> Function:
    """The deepest of several funnels, each around a point of its own."""
    count = int(rng.integers(2, 12))
    centres, relevance = encoding.uniform(count, rng), _relevances(len(encoding.names), rng)
    depths, widths = rng.gamma(2.0, size=count), np.exp(rng.uniform(-1.5, 1.0, count)) * relevance.sum() * 0.3
    smooth = rng.random() < 0.5

    def value(x: Array) -> Array:
        apart = np.stack([(relevance * _apart(encoding, x, centre)).sum(-1) for centre in centres], -1)
        funnels = depths * np.exp(-apart / widths)
        return np.asarray(-(funnels.sum(-1) if smooth else funnels.max(-1)))

    return value
