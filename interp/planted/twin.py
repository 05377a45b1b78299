"""The twin of a planted network that has the same weights in another order."""

from __future__ import annotations

import torch

from selfimprove.nets.transformer import Transformer


def shuffled(model: Transformer, seed: int) -> Transformer:
    """The model itself, the values of each parameter now in random order."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return model
