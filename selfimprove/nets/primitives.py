"""What the parts of a model are made of: taps, norms, and operations that look one or two positions back.

Every part keeps one fast path for training (fused kernels) and one explicit path (``explicit = True``) that also calls
the taps which the fused kernels swallow: a norm's ``hook_scale`` and ``hook_normalized``, attention's
``hook_attn_scores`` and ``hook_pattern``. All other taps are called on both paths.

Nothing has a bias except ``layernorm``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfimprove.nets.prices import CONV_TAPS

NORM_EPS = 1e-5


class Tap(nn.Identity):
    """A named position in the forward pass where an observer may read or replace a tensor; here the identity."""


class Norm(nn.Module):
    """Layer or root-mean-square normalization over the last axis, of size ``width``, with a learned gain ``w``.

    ``layernorm`` has a learned bias ``b`` as well. On the explicit path ``hook_scale`` sees the divisor
    (``[..., 1]``) and ``hook_normalized`` the quotient before gain and bias.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.explicit = False
        self.centered = kind == "layernorm"
        self.w = nn.Parameter(torch.ones(width))
        self.b = nn.Parameter(torch.zeros(width)) if self.centered else None
        self.hook_scale = Tap()
        self.hook_normalized = Tap()

    def forward(self, x: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        if not self.explicit:
            if self.centered:
                return F.layer_norm(x, self.w.shape, self.w, self.b, NORM_EPS)
            return F.rms_norm(x, self.w.shape, self.w.to(x.dtype), NORM_EPS)  # mixed types are not fused
        if self.centered:
            x = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((x.square().mean(-1, keepdim=True) + NORM_EPS).sqrt())
        scaled: Tensor = self.hook_normalized(x / scale) * self.w
        return scaled if self.b is None else scaled + self.b


class _CausalConv(torch.autograd.Function):
    """Shift and add: twice as fast on a CPU as ``F.conv1d`` with groups, and without its transposes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        out = x * taps[-1]
        for lag in range(1, min(CONV_TAPS, x.shape[1])):
            out[:, lag:].addcmul_(x[:, :-lag], taps[-1 - lag])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, taps = ctx.saved_tensors
        grad_x = grad * taps[-1]
        grad_taps = torch.zeros_like(taps)
        grad_taps[-1] = (grad * x).sum((0, 1))
        for lag in range(1, min(CONV_TAPS, x.shape[1])):
            grad_x[:, :-lag].addcmul_(grad[:, lag:], taps[-1 - lag])
            grad_taps[-1 - lag] = (grad[:, lag:] * x[:, :-lag]).sum((0, 1))
        return grad_x, grad_taps


def causal_conv(
    x: Float[Tensor, "batch pos channels"], taps: Float[Tensor, "3 channels"]
) -> Float[Tensor, "batch pos channels"]:
    """Depthwise causal convolution of width 3: ``out[t] = taps[2] x[t] + taps[1] x[t-1] + taps[0] x[t-2]``."""
    out: Tensor = _CausalConv.apply(x, taps.to(x.dtype))  # type: ignore[no-untyped-call]
    return out


def conv_taps(*shape: int) -> nn.Parameter:
    """Uninitialized taps ``[3, *shape]``; ``Transformer.reset`` draws them uniformly, as `nn.Conv1d` does.

    Not the identity: from there the convolution gains nothing in the few hundred steps of a candidate.
    """
    return nn.Parameter(torch.empty(CONV_TAPS, *shape))


class TokenShift(nn.Module):
    """Each channel blends its position with the one before: ``x + mix * (previous - x)`` (RWKV, arXiv 2305.13048).

    ``mix [width]`` starts as a ramp from 0 to 1, so that some channels see the present and some the past. Before the
    first position there are zeros. ``hook_out`` sees the result.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.linspace(0, 1, width))
        self.hook_out = Tap()

    def forward(self, x: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos width"]:
        previous = F.pad(x, (0, 0, 1, 0))[:, :-1]
        out: Tensor = self.hook_out(x + self.mix * (previous - x))
        return out
