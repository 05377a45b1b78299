"""Loss expressions as torch functions.

Vectors are ``[tokens vocab]``, scalars ``[tokens]``, constants plain numbers. Logits come by the head that gave them,
targets by how far ahead they lie: the keys are the indices of the leaves ``logits(k)`` and ``onehot(k)``.

A few operations are protected, so that no expression divides by zero or overflows in one step; ``e`` is ``EPS`` and
``b`` is ``EXP_BOUND``:

    div(x, y)   x / (y + e) for y >= 0, x / (y - e) otherwise
    log(x)      log(|x| + e)
    sqrt(x)     sqrt(|x| + e)
    exp(x)      exp(min(x, b))
    pow(x, y)   exp(min(y * log(|x| + e), b))

The bounded ones have gradient zero beyond the bound. Everything else is torch's operation of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import Expression

EPS: Final = 1e-7
EXP_BOUND: Final = 20.0

Value: TypeAlias = Tensor | float
Logits: TypeAlias = Mapping[int, Float[Tensor, "tokens vocab"]]
Targets: TypeAlias = Mapping[int, Int[Tensor, " tokens"]]


@dataclass(frozen=True)
class _Inputs:
    """What the leaves read."""

    logits: Logits
    targets: Targets
    progress: Value


_Operation: TypeAlias = Callable[..., Any]


def _div(x: Value, y: Tensor) -> Tensor:
    return x / (y + torch.where(y >= 0, EPS, -EPS))


def _log(x: Tensor) -> Tensor:
    return (x.abs() + EPS).log()


def _exp(x: Tensor) -> Tensor:
    return x.clamp(max=EXP_BOUND).exp()


def _column(x: Value) -> Value:
    """A scalar of each token, made to broadcast over the vocabulary."""
    return x.unsqueeze(-1) if isinstance(x, Tensor) and x.ndim else x


# Operations whose arguments may be plain numbers as they stand.
_ARITHMETIC: dict[str, _Operation] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "square": lambda x: x * x,
    "abs": abs,
    "scale": lambda v, c: v * _column(c),
}
# Operations on tensors; a plain number is lifted to a tensor first.
_TENSOR: dict[str, _Operation] = {
    "softmax": lambda v: v.softmax(-1),
    "log_softmax": lambda v: v.log_softmax(-1),
    "sum": lambda v: v.sum(-1),
    "mean": lambda v: v.mean(-1),
    "max": lambda v: v.amax(-1),
    "logsumexp": lambda v: v.logsumexp(-1),
    "dot": lambda v, w: (v * w).sum(-1),
    "div": _div,
    "log": _log,
    "sqrt": lambda x: (x.abs() + EPS).sqrt(),
    "exp": _exp,
    "pow": lambda x, y: _exp(y * _log(x)),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
}
# Leaves, with the index that they carry.
_LEAVES: dict[str, _Operation] = {
    "logits": lambda env, head: env.logits[head],
    "onehot": lambda env, ahead: _masked(env, ahead, F.one_hot(_known(env, ahead), env.logits[0].shape[-1])),
    "progress": lambda env, _: env.progress,
}


@final
class CompiledObjective:
    """A loss expression as a function of logits; common subexpressions are computed once.

    Call it with the logits of every head that the expression names (head 0 in any case), each ``[tokens vocab]``; with
    int64 targets for every distance that it names, each ``[tokens]``; and with the progress of training in [0, 1] (a
    tensor where the step is captured once and replayed). It returns the loss of each token, ``[tokens]``,
    differentiable in the logits. The target 1 ahead must exist; further ahead, ``onehot`` of a negative target is the
    zero vector, which takes such a token out of every dot product.

    Raises:
        InvalidGenome: from the constructor, for an operation or an index that it does not know.
    """

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        self._steps: list[tuple[_Operation, tuple[int, ...]]] = []
        self._slots: dict[Expression, int] = {}
        self._root = self._add(expression)

    def __call__(
        self,
        logits: Logits,
        targets: Targets,
        progress: float | Float[Tensor, ""],
    ) -> Float[Tensor, " tokens"]:
        env = _Inputs(logits, targets, progress)
        values: list[Value] = []
        for operation, arguments in self._steps:
            values.append(operation(env, *(values[i] for i in arguments)))
        loss = _lift(env, values[self._root])
        return loss.expand(logits[0].shape[0])

    def _add(self, node: Expression) -> int:
        """Append what computes ``node`` and return its slot."""
        if node in self._slots:
            return self._slots[node]
        operation: _Operation
        operands: tuple[Expression, ...]
        picked = _picked(node)
        if picked is not None:  # read one column instead of multiplying by a matrix of zeros
            ahead, vector = picked
            operation, operands = (lambda env, values: _gather(env, ahead, values)), (vector,)
        else:
            operation, operands = _operation(node), node.args
        arguments = tuple(self._add(operand) for operand in operands)
        self._steps.append((operation, arguments))
        self._slots[node] = len(self._steps) - 1
        return self._slots[node]


def compile_objective(expression: Expression) -> CompiledObjective:
    """Compile an expression; see ``CompiledObjective``."""
    return CompiledObjective(expression)


def _picked(node: Expression) -> tuple[int, Expression] | None:
    """Of a dot product with a target's one-hot: how far ahead the target lies, and the other vector."""
    if node.op == "dot":
        for index, argument in enumerate(node.args):
            if argument.op == "onehot" and isinstance(argument.value, int):
                return argument.value, node.args[1 - index]
    return None


def _gather(env: _Inputs, ahead: int, vector: Tensor) -> Tensor:
    return _masked(env, ahead, vector.gather(-1, _known(env, ahead).unsqueeze(-1))).squeeze(-1)


def _known(env: _Inputs, ahead: int) -> Tensor:
    return env.targets[ahead].clamp(min=0) if ahead > 1 else env.targets[ahead]


def _masked(env: _Inputs, ahead: int, rows: Tensor) -> Tensor:
    """``[tokens ...]`` in the type of the logits, zero where the target does not exist."""
    rows = rows.to(env.logits[0].dtype)
    return torch.where(env.targets[ahead].unsqueeze(-1) >= 0, rows, 0.0) if ahead > 1 else rows


def _lift(env: _Inputs, value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else env.logits[0].new_full((), value)


def _operation(node: Expression) -> _Operation:
    """The function of one node, called with the inputs and the values of its arguments."""
    if node.op == "const":
        value = float(node.value or 0.0)
        return lambda env: value
    if node.op in _LEAVES:
        leaf, index = _LEAVES[node.op], node.value
        return lambda env: leaf(env, index)
    if node.op in _ARITHMETIC:
        plain = _ARITHMETIC[node.op]
        return lambda env, *values: plain(*values)
    if node.op in _TENSOR:
        function = _TENSOR[node.op]
        return lambda env, *values: function(*(_lift(env, value) for value in values))
    known = ("const", *_LEAVES, *_ARITHMETIC, *_TENSOR)
    raise InvalidGenome("compile objective.expression", node.op, ", ".join(known), "use a listed operation")
