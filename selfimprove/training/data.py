"""Training batches of the task suite, as tensors on the engine's device."""

from __future__ import annotations

import torch

from selfimprove.genome.recipe import EVEN, Recipe
from selfimprove.seeds import derive
from selfimprove.tasks.suite import TaskSuite
from selfimprove.training.engine import BatchSource

CHUNK = 64  # steps generated at a time: vectorized generation without holding a long run's data


def training_batches(suite: TaskSuite, recipe: Recipe, *, seed: int, device: str = "cpu") -> BatchSource:
    """A batch source over the training split, in a recipe's mixture; batch ``step`` depends on (seed, step) alone.

    A favored family takes places from the others: a chunk has fewer sequences of each. Most families draw other ones
    then, and not fewer of the same, since what they draw depends on how many they draw at once.
    """
    batch, weights = recipe.batch, {} if recipe.mixture == EVEN else {recipe.mixture: recipe.mixture_weight}
    held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        chunk, row = divmod(step, CHUNK)
        if chunk not in held:
            held.clear()
            pool = suite.training_pool(batch * CHUNK, derive(seed, "chunk", chunk), weights)
            held[chunk] = torch.from_numpy(pool.tokens).to(device), torch.from_numpy(pool.targets).to(device)
        tokens, targets = held[chunk]
        return tokens[row * batch : (row + 1) * batch], targets[row * batch : (row + 1) * batch]

    return next_batch
