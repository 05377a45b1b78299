"""Loss expressions as torch functions, and the numerical screen they pass before any budget is spent.

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

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import Expression
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


@dataclass(frozen=True)
class ScreenResult:
    """Whether an expression may cost training compute.

    ``reason`` is empty where ``ok``. ``fingerprint`` is a hexadecimal hash, empty where the gradient is zero or not
    finite: equal for expressions whose gradients differ by a positive constant factor only. Rounding makes near misses
    rare, not impossible; the probes' points come from the seed, so compare fingerprints of one seed.
    """

    ok: bool
    reason: str
    fingerprint: str


SCREEN_TOKENS: Final = 32
SCREEN_VOCAB: Final = 16
SCREEN_STEPS: Final = 100
SCREEN_LEARNING_RATE: Final = 0.1
SCREEN_RATIO: Final = 0.8  # the descent must bring cross-entropy to at most this part of where it began
PROBES: Final = ((0.0, 0.5), (0.1, 0.0), (1.0, 0.5), (5.0, 1.0), (30.0, 0.5))  # scale of the logits, progress


def screen(expression: Expression, seed: int) -> ScreenResult:
    """Refuse a loss that cannot train a model, before a FLOP is charged for it.

    On free logits of 32 tokens and 16 words: value and gradient are finite at every probed scale of the logits, the
    gradient is not zero and depends on the targets, and 100 steps of Adam on the loss bring the fixed cross-entropy
    down by at least a fifth (the filter of EvoMAL, Raymond et al. 2022).

    Not covered: a loss that trains free logits but not a network.

    Args:
        expression: a valid expression.
        seed: of the probes; the same seed gives the same result.

    Raises:
        InvalidGenome: for an operation that is not known.
    """
    objective = compile_objective(expression)
    generator = torch.Generator().manual_seed(derive(seed, "screen"))
    logits = torch.randn(SCREEN_TOKENS, SCREEN_VOCAB, generator=generator)
    targets = torch.randint(SCREEN_VOCAB, (SCREEN_TOKENS,), generator=generator)
    for scale, progress in PROBES:
        value, gradient = _gradient(objective, logits * scale, targets, progress)
        if not (value.isfinite().all() and gradient.isfinite().all()):
            return ScreenResult(False, f"value or gradient is not finite at logits of scale {scale:g}", "")
    fingerprint = _fingerprint(objective, generator)
    if not fingerprint:
        return ScreenResult(False, "the gradient in the logits is zero", "")
    if _ignores_targets(objective, logits, targets):
        return ScreenResult(False, "the gradient does not depend on the target", fingerprint)
    before, after = _descend(objective, logits, targets)
    if not after <= SCREEN_RATIO * before:
        reason = f"{SCREEN_STEPS} steps of descent took cross-entropy from {before:.3f} to {after:.3f}"
        return ScreenResult(False, reason, fingerprint)
    return ScreenResult(True, "", fingerprint)


def _gradient(objective: CompiledObjective, logits: Tensor, targets: Tensor, progress: float) -> tuple[Tensor, Tensor]:
    """Loss of each token, and the gradient of their sum in the logits (zero where it does not depend on them)."""
    leaf = logits.detach().requires_grad_()
    loss = objective(leaf, targets, progress)
    if not loss.requires_grad:
        return loss, torch.zeros_like(logits)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def _ignores_targets(objective: CompiledObjective, logits: Tensor, targets: Tensor) -> bool:
    _, gradient = _gradient(objective, logits, targets, 0.5)
    _, other = _gradient(objective, logits, (targets + 1) % SCREEN_VOCAB, 0.5)
    return bool((gradient - other).norm() <= 1e-6 * gradient.norm())


def _fingerprint(objective: CompiledObjective, generator: torch.Generator) -> str:
    """Hash of the gradients at several points, normalized together and rounded; empty if they vanish.

    In double precision, so that algebraically equal forms agree far beyond the rounding. One norm for all points: a
    loss that is scaled by training progress differs from one that is not.
    """
    gradients = []
    for scale, progress in ((0.5, 0.1), (1.0, 0.5), (2.0, 0.9)):
        logits = scale * torch.randn(8, SCREEN_VOCAB, generator=generator, dtype=torch.float64)
        targets = torch.randint(SCREEN_VOCAB, (8,), generator=generator)
        gradients.append(_gradient(objective, logits, targets, progress)[1])
    stacked = torch.cat(gradients)
    norm = stacked.norm()
    if not norm > 1e-12:
        return ""
    rounded: list[float] = ((stacked / norm).mul(1e4).round() + 0.0).flatten().tolist()
    return hashlib.sha256(",".join(str(int(x)) for x in rounded).encode()).hexdigest()


def _descend(objective: CompiledObjective, logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Fixed cross-entropy before and after Adam on the loss; written out, because importing torch's costs a second."""
    leaf = logits.clone().requires_grad_()
    first, second = torch.zeros_like(logits), torch.zeros_like(logits)
    for step in range(1, SCREEN_STEPS + 1):
        loss = objective(leaf, targets, (step - 1) / (SCREEN_STEPS - 1))
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        first.lerp_(gradient, 0.1)
        second.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        denominator = (second / (1 - 0.99**step)).sqrt_().add_(1e-8)
        with torch.no_grad():
            leaf.addcdiv_(first, denominator, value=-SCREEN_LEARNING_RATE / (1 - 0.9**step))
    return F.cross_entropy(logits, targets).item(), F.cross_entropy(leaf.detach(), targets).item()
