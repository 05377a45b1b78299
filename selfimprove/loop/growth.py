"""The acceleration exponent: whether gains grow faster than what is spent on them, or slower, or nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST = 6  # steps of a run, and of its gains where they are not averaged over many runs
NARROWEST = 2.0  # of the last place over the first
LOWEST, HIGHEST, GRID = 0.0625, 8.0, 512  # exponents that are tried, evenly on a logarithmic scale
MANY = 10  # runs, from which they are drawn anew
TELLING = (0.5, 2.0)  # an interval that holds both of these says neither 'slower' nor 'faster'
RESAMPLES = 1000


@dataclass(frozen=True)
class Exponent:
    """A growth exponent with its interval, or why there is none.

    Attributes:
        value: 1 is growth in proportion; above, it accelerates. None where it is not identifiable.
        interval: 95% bootstrap interval.
        reason: why it is not identifiable; empty where it is.
    """

    value: float | None
    interval: tuple[float, float] | None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None or self.interval is None:
            return f"not identifiable: {self.reason}"
        return f"{self.value:.2f} ({self.interval[0]:.2f} to {self.interval[1]:.2f})"


def acceleration_exponent(places: Array, gains: Array, *, seed: int, resamples: int = RESAMPLES) -> Exponent:
    """Exponent ``b`` of ``total gain = a * place**b``, fitted to the steps by least squares.

    Steps, and not totals, are fitted: errors of totals add up and would pass for curvature. The interval is a
    percentile bootstrap (Efron 1979): from ten runs on over the runs, which are drawn whole; else over the residuals
    of the mean steps, which takes them as exchangeable. Both are widened for their degrees of freedom; simulated with
    normal steps, a 95% interval holds the truth about 92 times in 100. It is read as 'not identifiable', with the
    reason, where

    - a run has fewer than 6 steps, or its places span less than a factor of 2: every power looks the same there,
    - nothing was gained, or, with fewer than ten runs, in fewer than 6 steps: of few gains among steps of nothing the
      residuals are not exchangeable, and the interval would hold the truth only half of the time,
    - the interval reaches the end of the exponents that are tried (1/16 to 8), or holds both 0.5 and 2.

    Args:
        places: ``(steps,)``: charged FLOPs, or generations from 1, at the end of each step; rising, above 0.
        gains: ``(runs, steps)``: what each step added, negative steps included.
        seed: of the resamples.
        resamples: how many.

    Raises:
        ValueError: the shapes do not fit, or the places do not rise from above 0.
    """
    if gains.ndim != 2 or gains.shape[1:] != places.shape or not gains.size:
        raise ValueError(f"gains: got {gains.shape} at {places.shape} places; allowed: runs by steps, a place a step")
    if not (np.diff(places, prepend=0.0) > 0).all() or not np.isfinite(gains).all():
        raise ValueError("places and gains: allowed: places rising from above 0, and finite gains")
    if reason := _unfit(places, gains):
        return Exponent(None, None, reason)
    rng = np.random.Generator(np.random.PCG64(seed))
    shapes = _shapes(places)
    mean = gains.mean(axis=0)
    value, fitted = _fit(mean[None, :], shapes)
    if (runs := len(gains)) >= MANY:
        drawn = gains[rng.integers(0, runs, (resamples, runs))].mean(axis=1)
        again = mean + (drawn - mean) * np.sqrt(runs / (runs - 1))
    else:
        again = fitted + _residuals(mean - fitted[0])[rng.integers(0, places.size, (resamples, places.size))]
    low, high = np.quantile(_fit(again, shapes)[0], [0.025, 0.975])
    return _judged(float(value[0]), float(low), float(high))


def _unfit(places: Array, gains: Array) -> str:
    if places.size < FEWEST:
        return f"{places.size} steps, where at least {FEWEST} are needed"
    if places[-1] < NARROWEST * places[0]:
        return f"the steps span a factor of {places[-1] / places[0]:.2g}, where at least {NARROWEST:g} is needed"
    if gains.sum() <= 0:
        return "nothing was gained"
    if len(gains) < MANY and (some := np.count_nonzero((gains > 0).any(axis=0))) < FEWEST:
        return f"{some} steps of {places.size} gained anything, where at least {FEWEST} are needed"
    return ""


def _judged(value: float, low: float, high: float) -> Exponent:
    said = f"the interval, {low:.2g} to {high:.2g},"
    if low <= LOWEST or high >= HIGHEST:
        return Exponent(None, None, f"{said} reaches the end of what is tried, {LOWEST:g} to {HIGHEST:g}")
    if low <= TELLING[0] and high >= TELLING[1]:
        return Exponent(None, None, f"{said} holds both {TELLING[0]:g} and {TELLING[1]:g}")
    return Exponent(value, (low, high))


def _exponents() -> Array:
    return np.geomspace(LOWEST, HIGHEST, GRID)


def _shapes(places: Array) -> Array:
    """What each exponent says about the steps, to unit length: ``(exponents, steps)``."""
    powers = (places / places[-1])[None, :] ** _exponents()[:, None]
    steps = np.diff(powers, axis=1, prepend=0.0)
    unit: Array = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    return unit


def _fit(steps: Array, shapes: Array) -> tuple[Array, Array]:
    """Least squares over exponents and amplitudes of at least 0: exponents ``(rows,)``, fitted steps."""
    amplitudes = np.maximum(steps @ shapes.T, 0.0)  # the one that explains most leaves least: shapes have unit length
    best = amplitudes.argmax(axis=1)
    fitted: Array = amplitudes[np.arange(len(steps)), best][:, None] * shapes[best]
    return _exponents()[best], fitted


def _residuals(values: Array) -> Array:
    """Centered, and widened for the two figures that were fitted to them."""
    centered: Array = (values - values.mean()) * np.sqrt(values.size / (values.size - 2))
    return centered
