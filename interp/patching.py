"""Activation patching head by head, where layers may differ in heads; the library's sweep wants one number of heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

from interp.hooked import HookedModel
from interp.verdict import NotApplicable

Metric = Callable[[Float[Tensor, "batch pos vocab"]], Float[Tensor, ""]]


@dataclass(frozen=True)
class HeadSweep:
    """What putting each head's clean output into a corrupted run does.

    Attributes:
        labels: ``L<layer>H<head>``, in order, one for each head that exists.
        values: the metric of the patched run, one value a head.
    """

    labels: tuple[str, ...]
    values: Float[Tensor, " head"]


def patch_heads(
    model: HookedModel, corrupted: Int[Tensor, "batch pos"], clean: ActivationCache, metric: Metric
) -> HeadSweep:
    """Patch ``hook_z`` of one head after the other, at all positions.

    Args:
        model: the hooked model.
        corrupted: tokens of the run that is patched.
        clean: cache of the run that activations come from.
        metric: of the patched logits.

    Raises:
        NotApplicable: no block has attention.
    """
    weights = {layer: model.get_parameter(f"blocks.{layer}.attn.W_O") for layer in model.attending}
    heads = [(layer, head) for layer, weight in weights.items() for head in range(weight.shape[0])]
    if not heads:
        raise NotApplicable("patch heads", f"{model.cfg.n_layers} blocks", "at least one block with attention")
    values = []
    with torch.no_grad():
        for layer, head in heads:
            name = f"blocks.{layer}.attn.hook_z"
            hook = partial(_put, head=head, source=clean[name])
            values.append(metric(model.run_with_hooks(corrupted, fwd_hooks=[(name, hook)])))
    return HeadSweep(tuple(f"L{layer}H{head}" for layer, head in heads), torch.stack(values))


def _put(z: Tensor, hook: HookPoint, *, head: int, source: Tensor) -> Tensor:
    z[:, :, head] = source[:, :, head]
    return z
