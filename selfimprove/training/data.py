"""Training batches of the task suite, as tensors on the engine's device."""

from __future__ import annotations

import torch

from selfimprove.seeds import derive
from selfimprove.tasks.suite import TaskSuite
from selfimprove.training.engine import BatchSource

CHUNK = 64  # steps generated at a time: vectorized generation without holding a long run's data


def training_batches(suite: TaskSuite, *, batch: int, seed: int, device: str = "cpu") -> BatchSource:
    """A batch source over the training split; batch ``step`` depends on (seed, step) alone."""
    held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        chunk, row = divmod(step, CHUNK)
        if chunk not in held:
            held.clear()
            pool = suite.training_pool(batch * CHUNK, derive(seed, "chunk", chunk))
            held[chunk] = torch.from_numpy(pool.tokens).to(device), torch.from_numpy(pool.targets).to(device)
        tokens, targets = held[chunk]
        return tokens[row * batch : (row + 1) * batch], targets[row * batch : (row + 1) * batch]

    return next_batch
