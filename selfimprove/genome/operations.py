"""The closed list of operations that an objective is made of, and the kinds of value they take and give.

A ``vector`` spans the vocabulary, a ``scalar`` is one number; both exist once per token position.
"""

from __future__ import annotations

from dataclasses import dataclass

VECTOR, SCALAR, CONST = "vector", "scalar", "const"
MOST_HEADS = 4  # prediction heads of a model, and tokens that a loss may look ahead


@dataclass(frozen=True)
class Signature:
    """What an operation takes and gives."""

    arguments: tuple[str, ...]
    """Kind of each argument. ``const`` means that only a constant leaf may stand there."""
    result: str
    """``vector`` or ``scalar``."""
    indices: tuple[int, ...] = ()
    """The integers that a leaf such as ``logits(0)`` may carry as its value."""
    commutative: bool = False
    """Whether the arguments may change places without changing the value."""


_UNARY = Signature((SCALAR,), SCALAR)
_BINARY = Signature((SCALAR, SCALAR), SCALAR)
_COMMUTATIVE = Signature((SCALAR, SCALAR), SCALAR, commutative=True)
_REDUCTION = Signature((VECTOR,), SCALAR)
_MAP = Signature((VECTOR,), VECTOR)

OPERATIONS: dict[str, Signature] = {
    # leaves
    # logits(k): output of prediction head k; head 0 is the one that is scored, others exist where a loss names them
    "logits": Signature((), VECTOR, indices=tuple(range(MOST_HEADS))),
    # onehot(k): the token k ahead; k = 1 is the target, further ones are zero vectors where the task asks for nothing
    "onehot": Signature((), VECTOR, indices=tuple(range(1, MOST_HEADS + 1))),
    "const": Signature((), SCALAR),  # written as a bare number
    "progress": Signature((), SCALAR),  # fraction of training done, in [0, 1]
    # vector -> vector
    "scale": Signature((VECTOR, CONST), VECTOR),
    "softmax": _MAP,
    "log_softmax": _MAP,
    # vector -> scalar
    "sum": _REDUCTION,
    "mean": _REDUCTION,
    "max": _REDUCTION,
    "logsumexp": _REDUCTION,
    "dot": Signature((VECTOR, VECTOR), SCALAR, commutative=True),
    # scalar -> scalar
    "log": _UNARY,
    "sqrt": _UNARY,
    "exp": _UNARY,
    "abs": _UNARY,
    "square": _UNARY,
    "tanh": _UNARY,
    "sigmoid": _UNARY,
    "softplus": _UNARY,
    "add": _COMMUTATIVE,
    "sub": _BINARY,
    "mul": _COMMUTATIVE,
    "div": _BINARY,
    "pow": _BINARY,
    "minimum": _COMMUTATIVE,
    "maximum": _COMMUTATIVE,
}
