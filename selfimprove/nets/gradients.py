"""Gradients of a loss in free logits: at reference points, and the size that training brings them to."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import Expression, cross_entropy
from selfimprove.nets.losses import CompiledObjective, Logits, Targets, compile_objective
from selfimprove.seeds import derive


def gradient_of(
    objective: CompiledObjective, logits: Logits, targets: Targets, progress: float
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "rows vocab"]]:
    """Loss of each token, and the gradient of their sum in the logits (zero where it does not depend on them).

    The gradient has one row for each token of each head, the heads one below the other in the order of ``logits``.
    """
    leaves = {head: values.detach().requires_grad_() for head, values in logits.items()}
    loss = objective(leaves, targets, progress)
    if not loss.requires_grad:
        return loss, torch.cat([torch.zeros_like(values) for values in logits.values()])
    gradients = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), torch.cat(gradients)


def draw_points(
    expression: Expression, seed: int, *, tokens: int, vocab: int, generator: torch.Generator, dtype: torch.dtype
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Normal logits for every head of an expression and random targets for every distance, from one point of a stream.

    The scored prediction and its target come from ``generator``, whatever else the expression names; what it names
    beside them has a stream of its own, of which the last quarter of the targets does not exist.
    """
    logits = {0: torch.randn(tokens, vocab, generator=generator, dtype=dtype)}
    targets = {1: torch.randint(vocab, (tokens,), generator=generator)}
    for head in expression.indices("logits"):
        if head > 0:
            own = torch.Generator().manual_seed(derive(seed, "head", head))
            logits[head] = torch.randn(tokens, vocab, generator=own, dtype=dtype)
    for ahead in expression.indices("onehot"):
        if ahead > 1:
            own = torch.Generator().manual_seed(derive(seed, "ahead", ahead))
            targets[ahead] = torch.randint(vocab, (tokens,), generator=own)
            targets[ahead][-tokens // 4 :] = -1
    return logits, targets


REFERENCE_TOKENS: Final = 8
REFERENCE_VOCAB: Final = 16
REFERENCE_POINTS: Final = ((0.5, 0.1), (1.0, 0.5), (2.0, 0.9))  # scale of the logits, progress
SMALLEST_NORM: Final = 1e-12
LARGEST_NORM: Final = 1e30  # so that its inverse is a normal number in single precision


def reference_gradients(objective: CompiledObjective, seed: int) -> Float[Tensor, "rows vocab"]:
    """Gradients at predictions drawn from a seed, at every reference point, in all heads.

    In double precision, so that algebraically equal forms agree far beyond any rounding.
    """
    generator = torch.Generator().manual_seed(derive(seed, "reference"))
    gradients = []
    size = {"tokens": REFERENCE_TOKENS, "vocab": REFERENCE_VOCAB}
    for scale, progress in REFERENCE_POINTS:
        drawn, targets = draw_points(objective.expression, seed, **size, generator=generator, dtype=torch.float64)
        logits = {head: scale * values for head, values in drawn.items()}
        gradients.append(gradient_of(objective, logits, targets, progress)[1])
    return torch.cat(gradients)


@lru_cache(maxsize=1024)
def gradient_scale(expression: Expression) -> float:
    """The constant that training multiplies a loss by, so that no edit sets its size against the fixed constraint.

    The norm of cross-entropy's gradient over that of this expression's, all heads together (else a loss could pour
    itself into a head that the constraint does not see), at the same fixed predictions: a pure function
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
