"""Loss expressions as torch functions, and the size that a gradient of theirs is brought to.

Vectors are ``[tokens vocab]``, scalars ``[tokens]``, constants plain numbers. A few operations are protected, so that
no expression divides by zero or overflows in one step; ``e`` is ``EPS`` and ``b`` is ``EXP_BOUND``:

    div(x, y)   x / (y + e) for y >= 0, x / (y - e) otherwise
    log(x)      log(|x| + e)
    sqrt(x)     sqrt(|x| + e)
    exp(x)      exp(min(x, b))
    pow(x, y)   exp(min(y * log(|x| + e), b))

The bounded ones have gradient zero beyond the bound. Everything else is torch's operation of that name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import Expression, cross_entropy
from selfimprove.seeds import derive

EPS: Final = 1e-7
EXP_BOUND: Final = 20.0

Value: TypeAlias = Tensor | float


@dataclass(frozen=True)
class _Inputs:
    """What the leaves read."""

    logits: Tensor
    targets: Tensor
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
_LEAVES: dict[str, _Operation] = {
    "logits": lambda env: env.logits,
    "onehot": lambda env: F.one_hot(env.targets, env.logits.shape[-1]).to(env.logits.dtype),
    "progress": lambda env: env.progress,
}


@final
class CompiledObjective:
    """A loss expression as a function of logits; common subexpressions are computed once.

    Call it with logits ``[tokens vocab]``, int64 targets ``[tokens]`` (the scored tokens only) and the progress of
    training in [0, 1] (a tensor where the step is captured once and replayed); it returns the loss of each token,
    ``[tokens]``, differentiable in the logits.

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
        logits: Float[Tensor, "tokens vocab"],
        targets: Int[Tensor, " tokens"],
        progress: float | Float[Tensor, ""],
    ) -> Float[Tensor, " tokens"]:
        env = _Inputs(logits, targets, progress)
        values: list[Value] = []
        for operation, arguments in self._steps:
            values.append(operation(env, *(values[i] for i in arguments)))
        loss = _lift(env, values[self._root])
        return loss.expand(logits.shape[0])

    def _add(self, node: Expression) -> int:
        """Append what computes ``node`` and return its slot."""
        if node in self._slots:
            return self._slots[node]
        operation: _Operation
        operands: tuple[Expression, ...]
        target = _target_of(node)
        if target is not None:  # read one column instead of multiplying by a matrix of zeros
            operation, operands = _gather, (target,)
        else:
            operation, operands = _operation(node), node.args
        arguments = tuple(self._add(operand) for operand in operands)
        self._steps.append((operation, arguments))
        self._slots[node] = len(self._steps) - 1
        return self._slots[node]


def compile_objective(expression: Expression) -> CompiledObjective:
    """Compile an expression; see ``CompiledObjective``."""
    return CompiledObjective(expression)


def _target_of(node: Expression) -> Expression | None:
    """The other vector of a dot product with the target's one-hot."""
    if node.op == "dot":
        for index, argument in enumerate(node.args):
            if argument.op == "onehot":
                return node.args[1 - index]
    return None


def _gather(env: _Inputs, vector: Tensor) -> Tensor:
    return vector.gather(-1, env.targets.unsqueeze(-1)).squeeze(-1)


def _lift(env: _Inputs, value: Value) -> Tensor:
    return value if isinstance(value, Tensor) else env.logits.new_full((), value)


def _operation(node: Expression) -> _Operation:
    """The function of one node, called with the inputs and the values of its arguments."""
    if node.op == "const":
        value = float(node.value or 0.0)
        return lambda env: value
    if node.op in _LEAVES:
        return _LEAVES[node.op]
    if node.op in _ARITHMETIC:
        plain = _ARITHMETIC[node.op]
        return lambda env, *values: plain(*values)
    if node.op in _TENSOR:
        function = _TENSOR[node.op]
        return lambda env, *values: function(*(_lift(env, value) for value in values))
    known = ("const", *_LEAVES, *_ARITHMETIC, *_TENSOR)
    raise InvalidGenome("compile objective.expression", node.op, ", ".join(known), "use a listed operation")


def gradient_of(
    objective: CompiledObjective, logits: Tensor, targets: Tensor, progress: float
) -> tuple[Tensor, Tensor]:
    """Loss of each token, and the gradient of their sum in the logits (zero where it does not depend on them)."""
    leaf = logits.detach().requires_grad_()
    loss = objective(leaf, targets, progress)
    if not loss.requires_grad:
        return loss, torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


REFERENCE_TOKENS: Final = 8
REFERENCE_VOCAB: Final = 16
REFERENCE_POINTS: Final = ((0.5, 0.1), (1.0, 0.5), (2.0, 0.9))  # scale of the logits, progress
SMALLEST_NORM: Final = 1e-12
LARGEST_NORM: Final = 1e30  # so that its inverse is a normal number in single precision


def reference_gradients(objective: CompiledObjective, seed: int) -> Float[Tensor, "tokens vocab"]:
    """Gradients at predictions drawn from a seed, at every reference point.

    In double precision, so that algebraically equal forms agree far beyond any rounding.
    """
    generator = torch.Generator().manual_seed(derive(seed, "reference"))
    gradients = []
    for scale, progress in REFERENCE_POINTS:
        logits = scale * torch.randn(REFERENCE_TOKENS, REFERENCE_VOCAB, generator=generator, dtype=torch.float64)
        targets = torch.randint(REFERENCE_VOCAB, (REFERENCE_TOKENS,), generator=generator)
        gradients.append(gradient_of(objective, logits, targets, progress)[1])
    return torch.cat(gradients)


@lru_cache(maxsize=1024)
def gradient_scale(expression: Expression) -> float:
    """The constant that training multiplies a loss by, so that no edit sets its size against the fixed constraint.

    The norm of cross-entropy's gradient over that of this expression's, at the same fixed predictions: a pure function
    of the expression, exactly 1 for cross-entropy itself. Expressions that differ by a positive factor therefore train
    alike, for every optimizer and with clipping, beside a constraint whose weight no factor reaches.

    Not covered: the size is fixed at the reference predictions only. A loss whose gradient grows elsewhere, with
    training progress or with the logits, can still outweigh the constraint; the gate's retention test is what holds it.

    Raises:
        InvalidGenome: the gradient is zero there, or not finite, or beyond single precision.
    """
    norm = _reference_norm(expression)
    if not SMALLEST_NORM < norm < LARGEST_NORM:
        raise InvalidGenome(
            "scale objective.expression", f"a gradient of norm {norm:g}", f"{SMALLEST_NORM:g} to {LARGEST_NORM:g}"
        )
    return _reference_norm(cross_entropy()) / norm


def _reference_norm(expression: Expression) -> float:
    norm = float(reference_gradients(compile_objective(expression), 0).norm())
    return norm if math.isfinite(norm) else math.inf
