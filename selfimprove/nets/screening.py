"""The numerical screen that a loss expression passes before any budget is spent on it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import Expression
from selfimprove.nets.losses import (
    LARGEST_NORM,
    SMALLEST_NORM,
    CompiledObjective,
    compile_objective,
    gradient_of,
    gradient_scale,
    reference_gradients,
)
from selfimprove.seeds import derive


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
        value, gradient = gradient_of(objective, logits * scale, targets, progress)
        if not (value.isfinite().all() and gradient.isfinite().all()):
            return ScreenResult(False, f"value or gradient is not finite at logits of scale {scale:g}", "")
    fingerprint = _fingerprint(objective, seed)
    if not fingerprint or not _has_scale(expression):
        return ScreenResult(False, "the gradient in the logits is zero, or beyond single precision", "")
    if _ignores_targets(objective, logits, targets):
        return ScreenResult(False, "the gradient does not depend on the target", fingerprint)
    before, after = _descend(objective, logits, targets)
    if not after <= SCREEN_RATIO * before:
        reason = f"{SCREEN_STEPS} steps of descent took cross-entropy from {before:.3f} to {after:.3f}"
        return ScreenResult(False, reason, fingerprint)
    return ScreenResult(True, "", fingerprint)


def _has_scale(expression: Expression) -> bool:
    """Whether training can bring the loss to its reference size: see ``gradient_scale``."""
    try:
        gradient_scale(expression)
    except InvalidGenome:
        return False
    return True


def _ignores_targets(objective: CompiledObjective, logits: Tensor, targets: Tensor) -> bool:
    _, gradient = gradient_of(objective, logits, targets, 0.5)
    _, other = gradient_of(objective, logits, (targets + 1) % SCREEN_VOCAB, 0.5)
    return bool((gradient - other).norm() <= 1e-6 * gradient.norm())


def _fingerprint(objective: CompiledObjective, seed: int) -> str:
    """Hash of the gradients at several points, normalized together and rounded; empty if they vanish.

    One norm for all points: a loss that is scaled by training progress differs from one that is not.
    """
    gradients = reference_gradients(objective, seed)
    norm = gradients.norm()
    if not SMALLEST_NORM < norm < LARGEST_NORM:
        return ""
    rounded: list[float] = ((gradients / norm).mul(1e4).round() + 0.0).flatten().tolist()
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
