"""What one element of each operation costs. The tables of ``selfimprove.nets.cost``; imports no torch.

An addition, multiplication or comparison is 1; a division, root, exponential, logarithm, sigmoid or error function is
``COSTLY``. Prices are written forward + backward. What is not in a table cannot be priced and is not trained.
"""

from __future__ import annotations

from typing import Final

FLOAT_BYTES: Final = 4
CONV_TAPS: Final = 3  # a causal convolution sees the token itself and the two before it
NEWTON_SCHULZ_STEPS: Final = 5  # of Muon, priced and done
COSTLY: Final = 8
EXPERTS: Final = 4  # of a mixture of experts

NORM: Final = {
    "layernorm": 7 + 11,  # mean 1, center 1, variance 2, divide 1, gain and bias 2; backward by the fused formula
    "rmsnorm": 4 + 11,  # square 1, mean 1, root mean square 1, gain 1; backward step by step: it is not fused on a CPU
}
NORMS: Final = {"pre": 1, "post": 1, "sandwich": 2}
"""Norms of a mixer, by their placement."""
READ_AGAIN: Final = 1  # a tensor that is read once more gets one more gradient, which is added
RESIDUAL: Final = 1 + READ_AGAIN
RESIDUAL_SCALE: Final = {"one": 0, "depth": 1 + 1, "learned": 1 + 3}
JOIN: Final = 2 + 4  # of an embedding residual or a skip: times a learned number, plus; backward with that number's sum
TOKEN_SHIFT: Final = 3 + 6

_SOFTMAX: Final = (COSTLY + 6) + 5  # scale, mask, max, subtract, exp, sum, divide; backward
_LINEAR: Final = 3 + 7  # mask, sum, divide; backward of a quotient
SCORE: Final = {"attention": _SOFTMAX, "sliding_attention": _SOFTMAX, "linear_attention": _LINEAR}
"""Forms of attention, of one score."""
FEATURE: Final = {"attention": 0, "sliding_attention": 0, "linear_attention": (COSTLY + 2) + (COSTLY + 2)}
"""Of what maps queries and keys before they meet: elu(x) + 1."""
POSITIONS: Final = {"rope": 3 + 3, "learned": 1 + 1, "alibi": 0, "none": 0}
"""Of one channel of queries and keys, or of the stream. ALiBi is in the mask."""
SHARED: Final = 1  # gradients of one head of keys or values, summed over the queries that share it
VALUE_RESIDUAL: Final = 3 + 6
GATE: Final = {"none": (0, 0), "head": (COSTLY + 3, 1 + 3), "channel": (COSTLY + 3, 1 + 2)}
"""Of one number of the gate, and of one channel that it multiplies."""
SHORT_CONV: Final = {"short_conv": 2 + 4, "none": 0}
"""Token mixers without heads, beside the convolution: one product before it and one after."""

_GELU: Final = (COSTLY + 4) + (2 * COSTLY + 6)
_SILU: Final = (COSTLY + 1) + (COSTLY + 5)
_PRODUCT: Final = 1 + 2
ACTIVATION: Final = {
    "relu": 1 + 1,
    "relu2": 2 + 4,
    "gelu": _GELU,
    "silu": _SILU,
    "swiglu": _SILU + _PRODUCT,
    "geglu": _GELU + _PRODUCT,
    "moe": _GELU + _PRODUCT + 1,
    "none": 0,
}
ROUTE: Final = (COSTLY + 4) + 4  # softmax, of one expert
CHANNEL_MATRICES: Final = {
    "relu": 2,
    "relu2": 2,
    "gelu": 2,
    "silu": 2,
    "swiglu": 3,
    "geglu": 3,
    "moe": 2,
    "none": 0,
}
"""Channel mixers, and how many width-by-inner matrices each one has."""
KEPT: Final = {
    "relu": 1,
    "relu2": 2,
    "gelu": 2,
    "silu": 2,
    "swiglu": 4,
    "geglu": 4,
    "moe": 3,
    "none": 0,
}
"""Of one inner number, what is kept for the backward pass: ReLU needs its result alone, which is kept anyway."""
SOFTCAP: Final = (COSTLY + 2) + 5
EMBEDDING: Final = 1  # the look-up is free; its backward pass adds
HEAD: Final = 1  # of each prediction head beside the first: its gradient is added to theirs

OBJECTIVE: Final = {
    "const": 0,
    "progress": 0,
    "logits": 0,
    "onehot": 1,
    "scale": 1 + 2,
    "softmax": (COSTLY + 4) + 4,
    "log_softmax": (COSTLY + 4) + (COSTLY + 3),
    "sum": 1 + 1,
    "mean": 1 + 1,
    "max": 1 + 3,
    "logsumexp": (COSTLY + 3) + (COSTLY + 2),
    "dot": 2 + 2,
    "add": 1 + 1,
    "sub": 1 + 1,
    "mul": 1 + 2,
    "square": 1 + 2,
    "abs": 1 + 2,
    "minimum": 1 + 2,
    "maximum": 1 + 2,
    "div": (COSTLY + 3) + (2 * COSTLY + 2),
    "log": (COSTLY + 2) + (COSTLY + 2),
    "sqrt": (COSTLY + 2) + (COSTLY + 2),
    "exp": (COSTLY + 1) + 2,
    "pow": (2 * COSTLY + 4) + (COSTLY + 6),
    "tanh": COSTLY + 3,
    "sigmoid": COSTLY + 3,
    "softplus": 2 * COSTLY + COSTLY + 2,
}
"""Per element of a vector for what takes or gives a vector, per token otherwise."""
OVER_VOCABULARY: Final = frozenset(
    ("onehot", "scale", "softmax", "log_softmax", "sum", "mean", "max", "logsumexp", "dot")
)

VECTORS: Final = frozenset(("onehot", "scale", "softmax", "log_softmax"))
"""Operations of the objective whose result is kept for every word of the vocabulary."""

CONSTRAINT: Final = OBJECTIVE["log_softmax"]
"""Per word and position: the fixed cross-entropy of the constraint, which stands beside every objective."""

OPTIMIZER: Final = {
    "adamw": 3 * COSTLY + 10,
    "lion": 10,
    "sgd": 8,
    "muon": (2 * 3 + 2 + COSTLY + 3) + NEWTON_SCHULZ_STEPS * 6,  # two averages, norm, divide, update; two sums
}
"""Per parameter. Muon's matrix products come on top; what it does not touch is AdamW's."""
STATE: Final = {"adamw": 2, "lion": 1, "sgd": 1, "muon": 1}
"""Floats of optimizer state per parameter."""
REMEMBERED: Final = {
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "lion": ("momentum",),
    "sgd": ("momentum_buffer",),
    "muon": ("momentum",),
}
"""What an optimizer remembers of each parameter, by its own names; ``step`` is a single number."""
RAW: Final = "weight"
"""Likewise, the parameter itself, where an average of it is what is kept as the model's."""
CLIP: Final = 3
EMA: Final = 3


def causal_conv(channels: int, context: int) -> int:
    """Of a depthwise causal convolution, one of ``context`` positions, rounded down: the first see fewer others."""
    every, lagged = (1 + 1 + 2) * context, sum(max(context - lag, 0) for lag in range(1, CONV_TAPS))
    return channels * (every + (2 + 2 + 2) * lagged) // context
