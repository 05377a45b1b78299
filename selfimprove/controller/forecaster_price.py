"""What the forecaster is, and what asking it costs. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from selfimprove.controller.proposer import Price
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.nets import cost

WEIGHTS = Path(__file__).with_name("forecaster.safetensors")
BINS = 32  # of an outcome, equally likely where the experts' mixture is right
QUERIES = 64  # points that are asked about in one sequence
CONTEXT = 512
EXPERTS, NOISES = 12, 4  # Gaussian processes, and the noises that each is fitted with
KERNEL = 12  # operations on one parameter of one pair of points, over all kernels: differences, powers, exponentials


def forecaster_genome() -> Genome:
    """The genome of the forecaster that comes with the package: the seed genome, blind to the order of trials."""
    seed = seed_genome(learning_rate=2e-3, batch=16)
    blocks = (replace(seed.architecture.blocks[0], heads=4),) * 3
    return replace(
        seed,
        architecture=replace(
            seed.architecture, width=64, blocks=blocks, positions="none", tie_embeddings=False, norm="rmsnorm"
        ),
    )


def forecast_price(trials: int, points: int, parameters: int, times: int) -> Price:
    """Price of forecasts after some trials: the experts' fit, and what they and the transformer say of all points.

    Fitting is a Cholesky factorization of each expert at each noise, and an inverse at the one that is chosen; what an
    expert says of a point is a product with that. The transformer's part is a forward pass, a third of a training step,
    for every sequence of trials and points.

    Args:
        trials: that are known.
        points: that are asked about.
        parameters: of a point.
        times: that all this is done.
    """
    genome, sequences, context = forecaster_genome(), -(-points // QUERIES), trials + QUERIES
    passes = replace(genome, recipe=replace(genome.recipe, batch=max(1, sequences)))
    step = cost.quote(passes, vocab_size=BINS, context=context, allowance_flops=0)
    fit = EXPERTS * (NOISES + 2) * trials**3 // 3
    kernels = KERNEL * parameters * trials * (trials + points)
    said = 2 * EXPERTS * points * trials * (trials + 1)
    flops = times * (fit + kernels + said + -(-step.flops_per_step // 3))
    return Price(
        step.parameters, flops, times * sequences * context, times, step.memory_bytes + _memory(trials, points)
    )


def _memory(trials: int, points: int) -> int:
    """Bytes of the kernels between all trials and points, several of them at once, in double precision."""
    return 8 * 4 * EXPERTS * trials * (trials + points)
