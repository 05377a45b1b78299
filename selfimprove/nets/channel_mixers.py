"""Channel mixers: what a block does to each position by itself.

Names of parameters and taps are TransformerLens's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from selfimprove.genome.architecture import Block
from selfimprove.nets.prices import EXPERTS
from selfimprove.nets.primitives import Tap


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,  # the exact form: the tanh approximation costs four times as much on a CPU
    "silu": F.silu,
    "relu2": _relu2,
    "swiglu": F.silu,
    "geglu": F.gelu,
    "moe": F.gelu,
}
GATED = frozenset({"swiglu", "geglu"})  # arXiv 2002.05202


class MLP(nn.Module):
    """Two-layer channel mixer of inner size ``mlp_ratio * width``; a gated one has a third matrix, ``W_gate``.

    ``hook_pre`` sees the argument of the activation, ``hook_pre_linear`` the branch that it gates, ``hook_post`` the
    input of ``W_out``.
    """

    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        inner = round(block.mlp_ratio * width)
        self.act = ACTIVATIONS[block.channel]
        self.gated = block.channel in GATED
        self.W_in = nn.Parameter(torch.empty(width, inner))
        if self.gated:
            self.W_gate = nn.Parameter(torch.empty(width, inner))
            self.hook_pre_linear = Tap()
        self.W_out = nn.Parameter(torch.empty(inner, width))
        self.hook_pre, self.hook_post = Tap(), Tap()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        if self.gated:
            post = self.act(self.hook_pre(x @ self.W_gate)) * self.hook_pre_linear(x @ self.W_in)
        else:
            post = self.act(self.hook_pre(x @ self.W_in))
        out: Tensor = self.hook_post(post)
        return out @ self.W_out


class Experts(nn.Module):
    """A small mixture of experts, all of them computed: ``W_out(route * gelu(W_in x))``, ``route = softmax(W_r x)``.

    The experts lie side by side in ``W_in`` and ``W_out``, of inner size ``mlp_ratio * width`` together. Routing is
    soft, as in Jacobs et al. 1991: a choice of the best few would jump where two are equally good, and at this size
    would save nothing. ``hook_expert_weights`` sees the route ``[batch pos expert]``; the rest as in `MLP`.
    """

    def __init__(self, block: Block, width: int) -> None:
        super().__init__()
        inner = round(block.mlp_ratio * width)
        self.act = ACTIVATIONS[block.channel]
        self.W_router = nn.Parameter(torch.empty(width, EXPERTS))
        self.W_in = nn.Parameter(torch.empty(width, inner))
        self.W_out = nn.Parameter(torch.empty(inner, width))
        self.hook_expert_weights, self.hook_pre, self.hook_post = Tap(), Tap(), Tap()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        route = self.hook_expert_weights((x @ self.W_router).softmax(-1))
        hidden = rearrange(self.act(self.hook_pre(x @ self.W_in)), "b t (e c) -> b t e c", e=EXPERTS)
        out: Tensor = self.hook_post(rearrange(hidden * route.unsqueeze(-1), "b t e c -> b t (e c)"))
        return out @ self.W_out


def channel_mixer(block: Block, width: int) -> MLP | Experts:
    """The channel mixer of a block that has one."""
    return Experts(block, width) if block.channel == "moe" else MLP(block, width)
