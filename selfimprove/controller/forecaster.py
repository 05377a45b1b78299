"""The forecaster: a transformer of our builder that reads trials and tells what others would come out as.

Position by position it reads what the experts (``selfimprove.controller.experts``) say about a trial from all others,
and how it came out; then the same about points that nobody tried, and answers with a distribution of their outcome. So
it sees in context which experts to believe on this objective, where they are too sure of themselves, and how much of an
outcome is noise. It starts as the mixture of the experts by their evidence, exactly: what it has learned is the rest.

It was trained as a prior-data fitted network is (Müller et al. 2022, arXiv 2112.10510; for optimization PFNs4BO, 2023,
arXiv 2305.17535), on synthetic objectives; ``selfimprove study controller`` does that. Training is supervised and per
token, so that a genome's architecture, objective and recipe all apply to it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from selfimprove.controller.experts import FIGURES, NAMES, Experts
from selfimprove.controller.forecaster_price import BINS, CONTEXT, QUERIES, WEIGHTS, forecaster_genome
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import build

Array = NDArray[np.float64]
Blend = tuple[Array, Array]
"""Mean and deviation of the experts' mixture at each point."""

INPUTS = len(NAMES) * FIGURES + 5


def density(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Of a standard normal."""
    return (-0.5 * x**2).exp() / math.sqrt(2 * math.pi)


def _bins() -> tuple[Tensor, Tensor, Tensor]:
    """Inner edges of the bins, in deviations, and the mean and deviation of a standard normal inside each."""
    edges = torch.special.ndtri(torch.arange(1, BINS, dtype=torch.float64) / BINS)
    at, nothing = density(edges), torch.zeros(1, dtype=torch.float64)
    low, high = (torch.cat(ends) for ends in ((nothing, at), (at, nothing)))
    low_moment, high_moment = (torch.cat(ends) for ends in ((nothing, edges * at), (edges * at, nothing)))
    mean = BINS * (low - high)
    return edges, mean, (1 + BINS * (low_moment - high_moment) - mean**2).clamp_min(1e-6).sqrt()


EDGES, CENTERS, SPREADS = _bins()


def mixture(figures: Float[Array, "point figure"]) -> Blend:
    """Mean and deviation of the experts' mixture at each point, weighed by their evidence."""
    by_expert = figures.reshape(len(figures), len(NAMES), FIGURES)
    weights = np.exp(by_expert[..., 2])
    weights = weights / weights.sum(-1, keepdims=True)
    mean = (weights * by_expert[..., 0]).sum(-1)
    spread = (weights * (np.exp(2 * by_expert[..., 1]) + (by_expert[..., 0] - mean[:, None]) ** 2)).sum(-1)
    return mean, np.sqrt(spread)


def inputs(
    figures: Float[Array, "point figure"], blend: Blend, z: Float[Array, " point"] | None, trials: int
) -> Float[Array, "point input"]:
    """What the transformer reads of points: the experts' figures, their mixture, and how they came out, where known."""
    mean, spread = blend
    known = np.zeros((len(figures), 2)) if z is None else np.stack([np.ones(len(z)), (z - mean) / spread], -1)
    rest = np.stack([mean, np.log(spread), np.full(len(figures), math.log(trials + 1) / 5)], -1)
    return np.concatenate([np.clip(figures, -10.0, 10.0), rest, np.clip(known, -6.0, 6.0)], axis=-1)


class Forecaster(nn.Module):
    """The transformer, with a linear map in front of it in place of token embeddings.

    Args:
        genome: whose architecture it has; None: ``forecaster_genome()``.
        seed: of the initial weights.
    """

    def __init__(self, genome: Genome | None = None, *, seed: int = 0) -> None:
        super().__init__()
        genome = genome or forecaster_genome()
        width = genome.architecture.width
        self.body = build(genome.architecture, vocab_size=BINS, context=CONTEXT, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        self.W_front = nn.Parameter(torch.randn(INPUTS, width, generator=generator) / INPUTS**0.5)
        with torch.no_grad():
            self.body.W_U.zero_()

    def forward(self, seen: Float[Tensor, "batch pos input"]) -> Float[Tensor, "batch pos bin"]:
        """Logits of the bins of each position's outcome, in deviations of the experts' mixture from its mean."""
        logits: Tensor = self.body.read(seen @ self.W_front)
        return logits


def load(path: Path = WEIGHTS) -> Forecaster:
    """The forecaster that comes with the package, in evaluation mode."""
    return read_forecaster(path.read_bytes())


def read_forecaster(data: bytes) -> Forecaster:
    """A forecaster with the weights that a safetensors file holds, in evaluation mode."""
    model = Forecaster()
    model.load_state_dict(safetensors.torch.load(data))
    return model.eval()


class Forecast:
    """What is to be expected on one objective, after its trials.

    Args:
        model: the forecaster; None: the mixture of the experts as it is.
        points: encoded trials, ``[trial, parameter]``.
        z: their outcomes as normal scores; less is better.
        ordered: which parameters have an order.

    Attributes:
        experts: fitted to the trials.
        shown: what the forecaster reads of the trials, ``[trial, input]``.
        settled: the trials' own outcomes, less their noise.
        best: the least of them.
    """

    def __init__(self, model: Forecaster | None, points: Array, z: Array, ordered: NDArray[np.bool_]) -> None:
        self._model, self._count = model, len(z)
        self.points, self.experts = points, Experts(points, z, ordered)
        self.shown = inputs(self.experts.trials, mixture(self.experts.trials), z, self._count)
        self.settled = mixture(self.experts.about(points))[0]
        self.best = float(self.settled.min())

    @torch.inference_mode()
    def log_probabilities(self, figures: Float[Array, "point figure"], blend: Blend) -> Float[Tensor, "point bin"]:
        """Log-probability of each bin, at each point."""
        if self._model is None:
            return torch.full((len(figures), BINS), -math.log(BINS), dtype=torch.float64)
        asked = torch.from_numpy(inputs(figures, blend, None, self._count)).float()
        padded = torch.cat([asked, asked[-1:].expand(-len(asked) % QUERIES, -1)]).reshape(-1, QUERIES, INPUTS)
        shown = torch.from_numpy(self.shown).float().expand(len(padded), -1, -1)
        logits: Tensor = self._model(torch.cat([shown, padded], 1))[:, -QUERIES:]
        return logits.reshape(-1, BINS)[: len(figures)].double().log_softmax(-1)

    def improvement(self, points: Float[Array, "point parameter"]) -> Float[Array, " point"]:
        """Expected improvement over the best trial of each point, in normal scores."""
        figures = self.experts.about(points)
        blend = mixture(figures)
        mean, spread = (torch.from_numpy(one)[:, None] for one in blend)
        center, width = mean + spread * CENTERS, spread * SPREADS
        ahead = (self.best - center) / width
        gain = width * (ahead * torch.special.ndtr(ahead) + density(ahead))
        return np.asarray((self.log_probabilities(figures, blend).exp() * gain).sum(-1))
