"""The parts of a block: taps, norms, token mixers and channel mixers.

Names of parameters and taps are TransformerLens's wherever it has one, so a copy of a model whose taps have become hook
points is readable by its tools. Every part keeps one fast path for training (fused kernels) and one explicit path
(``explicit = True``) that also calls the taps which the fused kernels swallow: a norm's ``hook_scale`` and
``hook_normalized``, attention's ``hook_attn_scores`` and ``hook_pattern``. All other taps are called on both paths.

Nothing has a bias except ``layernorm``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from selfimprove.genome.genome import Block
from selfimprove.nets.prices import CONV_TAPS

NORM_EPS = 1e-5
ROPE_BASE = 10_000.0


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


def rope_table(context: int, d_head: int) -> Float[Tensor, "pos 1 half 2"]:
    """Cosine and sine by position and frequency (Su et al., arXiv 2104.09864); channels 2i and 2i + 1 are a pair."""
    frequency = ROPE_BASE ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    angle = torch.arange(context, dtype=torch.float64)[:, None] * frequency
    return torch.stack((angle.cos(), angle.sin()), -1).unsqueeze(1).float()


def rotate(
    x: Float[Tensor, "batch pos head d_head"], table: Float[Tensor, "context 1 half 2"]
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotate pairs of channels by position: one complex product, 2 to 3 times faster than the real-valued form."""
    pairs = torch.view_as_complex(x.to(table.dtype).reshape(*x.shape[:-1], -1, 2))  # bfloat16 has no complex kind
    return torch.view_as_real(pairs * torch.view_as_complex(table[: x.shape[1]])).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Causal multi-head attention; with ``conv``, queries, keys and values first pass a depthwise causal convolution.

    ``hook_q/k/v`` see what the projections (and convolutions) give; QK-norm and rotation come after them, and with
    rotation ``hook_rot_q/k`` see what enters the dot product. Scores are tapped after masking, as in TransformerLens.
    """

    causal: Tensor
    rope: Tensor

    def __init__(self, block: Block, width: int, context: int, *, rope: bool) -> None:
        super().__init__()
        self.explicit = False
        heads, d_head = block.heads, width // block.heads
        self.conv, self.qk_norm, self.rotary = block.mixer == "conv_attention", block.qk_norm, rope
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.empty(heads, width, d_head)) for _ in range(3))
        self.W_O = nn.Parameter(torch.empty(heads, d_head, width))
        if self.conv:
            self.conv_Q, self.conv_K, self.conv_V = (conv_taps(heads, d_head) for _ in range(3))
        if self.qk_norm:
            self.q_norm, self.k_norm = Norm("rmsnorm", d_head), Norm("rmsnorm", d_head)
        if rope:
            self.register_buffer("rope", rope_table(context, d_head), persistent=False)
            self.hook_rot_q, self.hook_rot_k = Tap(), Tap()
        self.register_buffer("causal", torch.ones(context, context, dtype=torch.bool).tril(), persistent=False)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = Tap(), Tap(), Tap(), Tap()
        self.hook_attn_scores, self.hook_pattern = Tap(), Tap()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        q, k, v = self._project(x)
        z: Tensor = self.hook_z(self._explicit(q, k, v) if self.explicit else self._fused(q, k, v))
        return z.flatten(2) @ self.W_O.flatten(0, 1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``[batch pos head d_head]``, by one matrix product over all of them."""
        heads, _, d_head = self.W_Q.shape
        weight = rearrange(torch.cat((self.W_Q, self.W_K, self.W_V)), "n d k -> d (n k)")
        qkv = x @ weight
        if self.conv:
            qkv = causal_conv(qkv, torch.cat((self.conv_Q, self.conv_K, self.conv_V), 1).flatten(1))
        q, k, v = qkv.view(*x.shape[:2], 3, heads, d_head).unbind(2)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary:
            q, k = self.hook_rot_q(rotate(q, self.rope)), self.hook_rot_k(rotate(k, self.rope))
        return q, k, v

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        n = q.shape[1]
        seen: Bool[Tensor, "query key"] = self.causal[:n, :n]
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / q.shape[-1] ** 0.5
        scores = self.hook_attn_scores(scores.masked_fill(~seen, float("-inf")))
        pattern: Tensor = self.hook_pattern(scores.softmax(-1))
        return (pattern @ v.transpose(1, 2)).transpose(1, 2)


class ShortConv(nn.Module):
    """Gated short convolution: ``W_out(C * conv(B * x))``, where ``B, C, x`` are three projections of the input.

    The operator of LFM2 (arXiv 2511.23404), after Hyena (arXiv 2302.10866). ``hook_in`` sees the gated input of the
    convolution, ``hook_gate`` the output gate ``C``, ``hook_out`` the gated output before the last projection.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(width, 3 * width))
        self.conv = conv_taps(width)
        self.W_out = nn.Parameter(torch.empty(width, width))
        self.hook_in, self.hook_gate, self.hook_out = Tap(), Tap(), Tap()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        gate_in, gate_out, value = (x @ self.W_in).chunk(3, -1)
        mixed = causal_conv(self.hook_in(gate_in * value), self.conv)
        out: Tensor = self.hook_out(self.hook_gate(gate_out) * mixed)
        return out @ self.W_out


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,  # the exact form: the tanh approximation costs four times as much on a CPU
    "silu": F.silu,
    "relu2": _relu2,
    "swiglu": F.silu,
}
GATED = frozenset({"swiglu"})


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
