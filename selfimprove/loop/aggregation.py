"""Scores of several runs on several tasks as one figure, with its interval: the method of rliable.

After Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264).
Scores are matrices of runs by tasks. Runs are the unit of replication; tasks are fixed, not sampled: an interval says
what other runs on the same tasks would give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
RESAMPLES = 2000


def interquartile_mean(scores: Scores) -> Scores:
    """Mean of the middle half of all scores, over the last two axes: runs and tasks together.

    A quarter of the scores, rounded down, is cut off at each end. More robust than a mean, and less wasteful than a
    median.

    Args:
        scores: ``(..., runs, tasks)``.

    Returns:
        ``(...)``.
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    middle: Scores = flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)
    return middle


def probability_of_improvement(ours: Scores, theirs: Scores) -> Scores:
    """How often a run of ours beats a run of theirs on a task drawn by lot; ties count half (Mann and Whitney 1947).

    It says nothing about by how much. 1 where every run of ours is better on every task.

    Args:
        ours: ``(..., runs, tasks)``.
        theirs: ``(..., other runs, tasks)``: the same tasks, in the same order.

    Returns:
        ``(...)``.
    """
    above = ours[..., :, None, :] - theirs[..., None, :, :]
    share: Scores = (0.5 * (np.sign(above) + 1)).mean(axis=(-3, -2, -1))
    return share


def stratified_interval(
    statistic: Callable[..., Scores],
    samples: Sequence[Scores],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Percentile interval of a statistic by the stratified bootstrap: runs are drawn anew within each task.

    Not covered: with fewer than about five runs it is too narrow. Runs that share seeds across samples are treated as
    independent, which makes the interval of a difference wider than it need be.

    Args:
        statistic: of as many arrays ``(resamples, runs, tasks)`` as there are samples; returns ``(resamples,)``.
        samples: matrices of runs by tasks.
        seed: of the resamples.
        level: share of the resampled statistics inside.
        resamples: how many.

    Raises:
        ValueError: a sample is no matrix of finite scores with a run and a task.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = []
    for sample in samples:
        if sample.ndim != 2 or not sample.size or not np.isfinite(sample).all():
            raise ValueError(f"scores: got shape {sample.shape}; allowed: runs by tasks, all finite, at least one each")
        rows = rng.integers(0, sample.shape[0], (resamples, *sample.shape))
        drawn.append(sample[rows, np.arange(sample.shape[1])])
    low, high = np.quantile(statistic(*drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
