"""Samplers of the study by name, each with the settings that were chosen on the development half.

The settings of evolution, local search, REINFORCE and the tuned TPE have the least area under the regret, among those
in ``benchmarks/results/samplers/tuning``, on the development half with seeds from 1000 on, which no other rows have:
two seeds, but one alone for TPE.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from benchmarks.sampler_baselines import HillClimbing, RegularizedEvolution, Reinforce
from selfimprove.controller import ControllerSampler
from selfimprove.controller.forecaster import Forecaster
from selfimprove.errors import ConfigError


def _random(*, seed: int, startup: int, noisy: bool) -> BaseSampler:
    return RandomSampler(seed=seed)


def _tpe(*, seed: int, startup: int, noisy: bool) -> BaseSampler:
    return TPESampler(seed=seed)


def _tpe_tuned(
    *, seed: int, startup: int, noisy: bool, multivariate: bool = True, candidates: int = 128
) -> BaseSampler:
    return TPESampler(
        seed=seed,
        n_startup_trials=startup,
        multivariate=multivariate,
        group=multivariate,
        constant_liar=False,
        n_ei_candidates=candidates,
    )


def _gp(*, seed: int, startup: int, noisy: bool) -> BaseSampler:
    sampler = GPSampler(seed=seed, deterministic_objective=not noisy, warn_independent_sampling=False)
    import torch

    torch.set_num_threads(1)
    return sampler


def _evolution(*, seed: int, startup: int, noisy: bool, population: int = 80, tournament: int = 20) -> BaseSampler:
    return RegularizedEvolution(seed=seed, n_startup_trials=startup, population=population, tournament=tournament)


def _local(*, seed: int, startup: int, noisy: bool, patience: int = 40) -> BaseSampler:
    return HillClimbing(seed=seed, n_startup_trials=startup, patience=patience)


def _reinforce(*, seed: int, startup: int, noisy: bool, rate: float = 0.4, bins: int = 10) -> BaseSampler:
    return Reinforce(seed=seed, n_startup_trials=startup, rate=rate, bins=bins)


def _controller(*, seed: int, startup: int, noisy: bool, trained: bool = True) -> BaseSampler:
    """Ours; untrained, it believes its experts by their evidence alone."""
    return ControllerSampler(seed=seed, n_startup_trials=startup, forecaster=None if trained else Forecaster())


SAMPLERS: Mapping[str, Callable[..., BaseSampler]] = {
    "random": _random,
    "tpe": _tpe,
    "tpe-tuned": _tpe_tuned,
    "gp": _gp,
    "evolution": _evolution,
    "local": _local,
    "reinforce": _reinforce,
    "controller": _controller,
}


def build(name: str, *, seed: int, startup: int, noisy: bool) -> BaseSampler:
    """A fresh sampler.

    Args:
        name: one of ``SAMPLERS``, with other settings after a colon: ``local:patience=20``.
        seed: below 2**32.
        startup: random trials that come first.
        noisy: whether the objective has noise, which only the Gaussian process is told.

    Raises:
        ConfigError: an unknown name or setting.
    """
    base, _, words = name.partition(":")
    if base not in SAMPLERS:
        raise ConfigError("choose a sampler", name, ", ".join(SAMPLERS))
    pairs = (word.partition("=") for word in words.split(",") if word)
    settings: dict[str, Any] = {key: _parsed(text) for key, _, text in pairs}
    own = [key for key in inspect.signature(SAMPLERS[base]).parameters if key not in ("seed", "startup", "noisy")]
    if not set(settings) <= set(own):
        raise ConfigError(f"set up the sampler {base}", words, ", ".join(own) or "no settings")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[base](seed=seed, startup=startup, noisy=noisy, **settings)


def _parsed(text: str) -> bool | int | float:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise ConfigError("read a sampler's setting", text, "true, false or a number") from None
