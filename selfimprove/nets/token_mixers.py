"""Token mixers: three forms of attention, and a gated short convolution.

Names of parameters and taps are TransformerLens's wherever it has one, so a copy of a model whose taps have become hook
points is readable by its tools.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from selfimprove.genome.architecture import Block
from selfimprove.nets.primitives import Norm, Tap, causal_conv, conv_taps

ROPE_BASE = 10_000.0
LINEAR_EPS = 1e-6  # features of very negative numbers underflow, and a row of zeros has no average
VALUE_MIX = 0.5  # share of the first block's values that a value residual starts with


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


def attention_bias(block: Block, context: int, *, alibi: bool) -> Float[Tensor, "head query key"]:
    """What is added to the scores: minus infinity where a position is not seen, ALiBi's distances elsewhere, or 0.

    The first axis has length 1 unless heads differ, which they do by ALiBi's slopes ``2 ** (-8 h / heads)``.
    """
    position = torch.arange(context)
    distance = position[:, None] - position
    reach = block.window if block.mixer == "sliding_attention" else context
    bias = torch.zeros(1, context, context)
    if alibi:
        slopes = 2.0 ** (-8 * torch.arange(1, block.heads + 1) / block.heads)
        bias = -slopes[:, None, None] * distance
    return bias.masked_fill((distance < 0) | (distance >= reach), float("-inf"))


class Attention(nn.Module):
    """Causal multi-head attention: softmax over all or the last positions, or linear (Katharopoulos et al. 2020).

    Linear attention weighs values by ``f(q) . f(k)``, ``f(x) = elu(x) + 1``, over their sum; ALiBi is a decay there. It
    is computed over the full square as well, which at the contexts of this project is the cheaper way.

    Keys and values may have fewer heads, each shared by as many queries. ``hook_q/k/v`` see what the projections (and
    convolutions and the value residual) give; QK-norm and rotation come after them, and with rotation ``hook_rot_q/k``
    see what enters the dot product. Scores are tapped after masking, as in TransformerLens. ``hook_gate`` sees the
    sigmoid gate, ``hook_z`` what enters ``W_O``, gated.
    """

    bias: Tensor
    rope: Tensor

    def __init__(self, block: Block, width: int, context: int, *, positions: str, blends_values: bool) -> None:
        super().__init__()
        self.explicit = False
        heads, shared, d_head = block.heads, block.key_heads, block.d_head(width)
        self.linear, self.plain = block.mixer == "linear_attention", block.mixer == "attention" and positions != "alibi"
        self.conv, self.qk_norm, self.rotary = block.conv_qkv, block.qk_norm, positions == "rope"
        self.gate, self.blends_values = block.gate, blends_values
        self.W_Q = nn.Parameter(torch.empty(heads, width, d_head))
        self.W_K, self.W_V = (nn.Parameter(torch.empty(shared, width, d_head)) for _ in range(2))
        self.W_O = nn.Parameter(torch.empty(heads, d_head, width))
        if self.conv:
            self.conv_Q, self.conv_K, self.conv_V = (conv_taps(n, d_head) for n in (heads, shared, shared))
        if self.gate != "none":
            self.W_G = nn.Parameter(torch.empty(*((width, heads) if self.gate == "head" else (heads, width, d_head))))
            self.hook_gate = Tap()
        if self.blends_values:
            self.value_mix = nn.Parameter(torch.full((1,), VALUE_MIX))
        if self.qk_norm:
            self.q_norm, self.k_norm = Norm("rmsnorm", d_head), Norm("rmsnorm", d_head)
        if self.rotary:
            self.register_buffer("rope", rope_table(context, d_head), persistent=False)
            self.hook_rot_q, self.hook_rot_k = Tap(), Tap()
        bias = attention_bias(block, context, alibi=positions == "alibi")
        self.register_buffer("bias", bias.exp() if self.linear else bias, persistent=False)
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = Tap(), Tap(), Tap(), Tap()
        self.hook_attn_scores, self.hook_pattern = Tap(), Tap()

    def forward(
        self, x: Float[Tensor, "batch pos d_model"], first_values: Float[Tensor, "batch pos channels"] | None = None
    ) -> tuple[Float[Tensor, "batch pos d_model"], Float[Tensor, "batch pos channels"]]:
        """What the heads write, and the values they averaged, heads side by side.

        Args:
            x: the input.
            first_values: those of the first block that attends, for a value residual.
        """
        q, k, v = self._project(x)
        if self.blends_values and first_values is not None:
            v = v + self.value_mix * (first_values.view_as(v) - v)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        values = v.flatten(2)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary:
            q, k = self.hook_rot_q(rotate(q, self.rope)), self.hook_rot_k(rotate(k, self.rope))
        k, v = self._shared(k), self._shared(v)
        if self.linear:
            q, k = F.elu(q) + 1, F.elu(k) + 1
        z = self._explicit(q, k, v) if self.explicit else self._fused(q, k, v)
        z = self.hook_z(z * self._gate(x) if self.gate != "none" else z)
        return z.flatten(2) @ self.W_O.flatten(0, 1), values

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, each ``[batch pos head d_head]``, by one matrix product over all of them."""
        d_head = self.W_Q.shape[-1]
        qkv = x @ rearrange(torch.cat((self.W_Q, self.W_K, self.W_V)), "n d k -> d (n k)")
        if self.conv:
            qkv = causal_conv(qkv, torch.cat((self.conv_Q, self.conv_K, self.conv_V), 1).flatten(1))
        sizes = [weight.shape[0] for weight in (self.W_Q, self.W_K, self.W_V)]
        return torch.split(qkv.view(*x.shape[:2], sum(sizes), d_head), sizes, 2)

    def _shared(self, x: Float[Tensor, "batch pos shared d_head"]) -> Float[Tensor, "batch pos head d_head"]:
        """Each head of keys or values once for every query that shares it."""
        times = self.W_Q.shape[0] // x.shape[2]
        return x if times == 1 else x.unsqueeze(3).expand(-1, -1, -1, times, -1).flatten(2, 3)

    def _gate(self, x: Tensor) -> Tensor:
        if self.gate == "head":
            by_head: Tensor = self.hook_gate((x @ self.W_G).sigmoid())
            return by_head.unsqueeze(-1)
        projected = x @ rearrange(self.W_G, "n d k -> d (n k)")
        gate: Tensor = self.hook_gate(projected.view(*x.shape[:2], *self.W_O.shape[:2]).sigmoid())
        return gate

    def _fused(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        n = q.shape[2]
        if self.linear:
            weights = (q @ k.transpose(2, 3)) * self.bias[:, :n, :n]
            return (weights @ v / (weights.sum(-1, keepdim=True) + LINEAR_EPS)).transpose(1, 2)
        if self.plain:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        mask = self.bias[:, :n, :n].to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "batch pos head d_head"]:
        n = q.shape[1]
        bias: Float[Tensor, "head query key"] = self.bias[:, :n, :n]
        products = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
        if self.linear:
            scores = self.hook_attn_scores(products * bias)
            pattern: Tensor = self.hook_pattern(scores / (scores.sum(-1, keepdim=True) + LINEAR_EPS))
        else:
            scores = self.hook_attn_scores(products / q.shape[-1] ** 0.5 + bias)
            pattern = self.hook_pattern(scores.softmax(-1))
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
