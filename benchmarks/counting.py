"""What a model really does, counted as torch dispatches it: the check on the formulas of ``selfimprove.nets.cost``.

Matrix products are counted by torch's own ``FlopCounterMode``. Everything else is counted here, one for each number
that an operation gives (for a sum: takes), by prices that name torch's operations and share no table with the quote.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from selfimprove.genome.architecture import Architecture
from selfimprove.nets.primitives import Norm
from selfimprove.nets.transformer import build

COSTLY = 8  # a division, root, exponential, sigmoid, hyperbolic tangent or error function
PER_OUTPUT = {
    "add": 1, "add_": 1, "sub": 1, "mul": 1, "neg": 1, "addcmul_": 2, "relu": 1, "threshold_backward": 1,
    "div": COSTLY, "sqrt": COSTLY, "rsqrt": COSTLY, "exp": COSTLY, "pow": 1,  # only squares occur
    "sigmoid": COSTLY, "sigmoid_backward": 3, "tanh": COSTLY, "tanh_backward": 3,
    "gelu": COSTLY + 4, "gelu_backward": 2 * COSTLY + 6, "silu": COSTLY + 1, "silu_backward": COSTLY + 5,
    "elu": COSTLY + 1, "elu_backward": COSTLY + 2, "_softmax": COSTLY + 4, "_softmax_backward_data": 4,
    "native_layer_norm": 7, "native_layer_norm_backward": 11,
    "embedding_dense_backward": 0,  # adds each gradient once: counted by its input
}  # fmt: skip
PER_INPUT = {"sum": 1, "mean": 1, "embedding_dense_backward": 1}
FREE = frozenset(
    [
        *("_conj", "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "as_strided", "cat", "clone", "copy_"),
        *("constant_pad_nd", "detach", "embedding", "empty_like", "expand", "new_empty_strided", "new_zeros"),
        *("ones_like", "permute", "select", "select_backward", "slice", "slice_backward", "split", "stack"),
        *("split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "view_as_complex"),
        *("view_as_real", "zeros", "zeros_like"),
    ]
)
"""Moves numbers or writes constants."""
PRODUCTS = frozenset(("mm", "bmm", "addmm", "matmul"))


class ElementwiseCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the price of every operation but matrix products.

    Raises:
        KeyError: at an operation without a price.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in FREE and name not in PRODUCTS:
            self.total += _price(name, args, out)
        return out


def _price(name: str, args: Any, out: Any) -> int:
    if name not in PER_OUTPUT and name not in PER_INPUT:
        raise KeyError(f"no price for torch's {name}")
    first = out[0] if isinstance(out, tuple) else out
    each = PER_OUTPUT.get(name, 0)
    if name == "div" and not (isinstance(args[1], Tensor) and args[1].shape == first.shape):
        each = 1  # by one number for many: times its inverse
    if name == "mul" and first.is_complex():
        each = 6
    return int(each * first.numel() + PER_INPUT.get(name, 0) * args[0].numel())


def count(
    architecture: Architecture, *, batch: int, vocab_size: int, context: int, heads: tuple[int, ...] = ()
) -> tuple[int, int]:
    """Matrix product FLOPs and all other FLOPs of one forward and backward pass of all heads on the explicit path.

    Norms take their fused kernels for the second figure, as they do in training: the priced backward pass is theirs.
    """
    model = build(architecture, vocab_size=vocab_size, context=context, seed=0, heads=heads)
    model.explicit = True
    tokens = torch.zeros(batch, context, dtype=torch.long)
    with FlopCounterMode(display=False) as products:
        predicted = model.to("meta").predict(tokens.to("meta")).values()
        torch.autograd.backward([logits.sum() for logits in predicted])
    model = build(architecture, vocab_size=vocab_size, context=context, seed=0, heads=heads)
    model.explicit = True
    for module in model.modules():
        if isinstance(module, Norm):
            module.explicit = False
    gradient = torch.ones(batch, context, vocab_size)
    with ElementwiseCounter() as rest:
        predicted = model.predict(tokens).values()
        torch.autograd.backward(list(predicted), [gradient] * len(predicted))
    return int(products.get_total_flops()), rest.total
