"""Norms that do nothing: how a network without norms is written in a space that has none without.

TransformerLens is not needed here: a training that is measured on another machine uses it, too.
"""

from __future__ import annotations

import torch

from selfimprove.nets.primitives import NORM_EPS, Norm
from selfimprove.nets.transformer import Transformer

WRITING = ("embed.W_E", "pos_embed.W_pos", "attn.W_O", "mlp.W_out")
"""Parameters whose last axis is the stream."""
STREAM = 2.0**-20
"""What the residual stream is multiplied by where norms must do nothing. Against `NORM_EPS` the mean square of a
stream this small vanishes (for values around 10 by 1e-5 of it), and a power of two rounds no weight."""


def silence_norms(model: Transformer, stream: float = STREAM) -> None:
    """Change the weights, in place, so that every norm passes on what it gets: a network without norms, as ours.

    What writes to the stream (embeddings and the outputs of mixers) becomes ``stream`` times as large, and so small
    that an rmsnorm divides by the root of its epsilon alone; its gain undoes that. So the weights before this call are
    read as those of the same network without norms, and its logits are theirs.

    Args:
        model: with rmsnorm before each mixer and before an unembedding of its own.
        stream: much smaller than the root of `NORM_EPS` over the largest value in the stream.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(WRITING):
                parameter.mul_(stream)
        for module in model.modules():
            if isinstance(module, Norm):
                module.w.fill_(NORM_EPS**0.5 / stream)
