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

MATRICES: Final = {"attention": 4, "conv_attention": 4, "short_conv": 4}
"""Token mixers, and how many width-by-width matrices each one has."""
CHANNEL_MATRICES: Final = {"relu": 2, "gelu": 2, "silu": 2, "relu2": 2, "swiglu": 3}
"""Channel mixers, and how many width-by-inner matrices each one has."""
NORM: Final = {
    "layernorm": 7 + 11,  # mean 1, center 1, variance 2, divide 1, gain and bias 2; backward by the fused formula
    "rmsnorm": 4 + 8,
}
ACTIVATION: Final = {
    "relu": 1 + 1,
    "relu2": 2 + 3,
    "gelu": (COSTLY + 4) + (2 * COSTLY + 6),
    "silu": (COSTLY + 1) + (COSTLY + 5),
    "swiglu": (COSTLY + 1) + (COSTLY + 5) + 3,
}
POSITIONS: Final = {"rope": 3 + 3, "learned": 1 + 1, "none": 0}
SOFTMAX: Final = (COSTLY + 6) + 5  # of one attention score: scale, mask, max, subtract, exp, sum, divide; backward
CAUSAL_CONV: Final = (2 * CONV_TAPS - 1) * 2 + 2 * CONV_TAPS
GATES: Final = 2 + 4  # of a short convolution: one product before it and one after
RESIDUAL: Final = 1 + 1
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
