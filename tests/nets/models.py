"""Models that the tests of this package build, move off their start, and look into."""

from __future__ import annotations

import torch
from torch import Tensor

from selfimprove.genome.architecture import Architecture
from selfimprove.nets.primitives import Tap
from selfimprove.nets.transformer import Transformer, build
from selfimprove.seeds import derive

VOCAB, CONTEXT = 17, 12


def make(architecture: Architecture, seed: int = 0) -> Transformer:
    return build(architecture, vocab_size=VOCAB, context=CONTEXT, seed=seed)


def scramble(model: Transformer) -> None:
    """Move every parameter off its initial value, so that zeros and ones hide nothing.

    What two models share moves alike in both, so that they differ by nothing but what they do not share.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(derive(1, "scramble", name))
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def run_with_taps(model: Transformer, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    seen: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
        for name, module in model.named_modules()
        if isinstance(module, Tap)
    ]
    logits = model(tokens)
    for handle in handles:
        handle.remove()
    return logits, seen
