"""The numerical screen that a loss expression passes before any budget is spent on it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import Expression
from selfimprove.nets.gradients import (
    LARGEST_NORM,
    SMALLEST_NORM,
    draw_points,
    gradient_of,
    gradient_scale,
    reference_gradients,
)
from selfimprove.nets.losses import CompiledObjective, compile_objective
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


SCREEN_TOKENS: Final = 32  # every word twice, so that who does not look at a token can do no better than uniform
SCREEN_VOCAB: Final = 16
SCREEN_STEPS: Final = 100
LEARNING_RATE: Final = 0.1
BLIND_RATE: Final = 3.0  # far moves: where a loss falls without end, however slowly, they show it
SCREEN_RATIO: Final = 0.8  # the descent must bring cross-entropy to at most this part of where it began
LEAK: Final = 0.9  # one prediction for all tokens must not win this part of what telling them apart wins
INFORMATION: Final = 0.05  # part of the targets' entropy that predictions must tell of their tokens
PROBES: Final = ((0.0, 0.5), (0.1, 0.0), (1.0, 0.5), (5.0, 1.0), (30.0, 0.5))  # scale of the logits, progress


def screen(expression: Expression, seed: int) -> ScreenResult:
    """Refuse a loss that cannot train a model, before a FLOP is charged for it.

    On free logits of 32 tokens and 16 words:

    - value and gradient are finite at every probed scale of the logits;
    - the gradient is not zero, and depends on the targets;
    - 100 steps of Adam on the loss do not end in the same prediction for every token (no collapse) and bring the fixed
      cross-entropy down by at least a fifth (the filter of EvoMAL, Raymond et al. 2022);
    - the best prediction that is the same for every token does not lower the loss as that descent does (no leak): what
      falls without telling tokens apart, a model learns to lower without predicting. Other heads are free meanwhile,
      so a loss cannot be talked down by a head that nobody scores.

    Not covered: a loss that trains free logits but not a network, or leaks by less than ``LEAK``.

    Args:
        expression: a valid expression.
        seed: of the probes; the same seed gives the same result.

    Raises:
        InvalidGenome: for an operation that is not known.
    """
    objective = compile_objective(expression)
    points = _points(expression, seed)
    for scale, progress in PROBES:
        logits = {head: values * scale for head, values in points.logits.items()}
        value, gradient = gradient_of(objective, logits, points.targets, progress)
        if not (value.isfinite().all() and gradient.isfinite().all()):
            return ScreenResult(False, f"value or gradient is not finite at logits of scale {scale:g}", "")
    fingerprint = _fingerprint(objective, seed)
    if not fingerprint or not _has_scale(expression):
        return ScreenResult(False, "the gradient in the logits is zero, or beyond single precision", "")
    if _ignores_targets(objective, points):
        return ScreenResult(False, "the gradient does not depend on the target", fingerprint)
    reason = _flaw(points, _descend(objective, points))
    return ScreenResult(not reason, reason, fingerprint)


@dataclass(frozen=True)
class _Points:
    """Where a screen begins: logits of every head, and targets, as a loss takes them."""

    logits: dict[int, Tensor]
    targets: dict[int, Tensor]


@dataclass(frozen=True)
class _Descent:
    """Where it ends.

    Attributes:
        free: logits of head 0, each token on its own.
        losses: mean loss at the beginning, at ``free``, and at the best prediction that is the same for every token.
    """

    free: Tensor
    losses: tuple[float, float, float]


def _points(expression: Expression, seed: int) -> _Points:
    generator = torch.Generator().manual_seed(derive(seed, "screen"))
    logits, targets = draw_points(
        expression, seed, tokens=SCREEN_TOKENS, vocab=SCREEN_VOCAB, generator=generator, dtype=torch.float32
    )
    targets[1] = torch.randperm(SCREEN_TOKENS, generator=generator) % SCREEN_VOCAB
    return _Points(logits, targets)


def _has_scale(expression: Expression) -> bool:
    """Whether training can bring the loss to its reference size: see ``gradient_scale``."""
    try:
        gradient_scale(expression)
    except InvalidGenome:
        return False
    return True


def _ignores_targets(objective: CompiledObjective, points: _Points) -> bool:
    other_targets = points.targets | {1: (points.targets[1] + 1) % SCREEN_VOCAB}
    _, gradient = gradient_of(objective, points.logits, points.targets, 0.5)
    _, other = gradient_of(objective, points.logits, other_targets, 0.5)
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


def _flaw(points: _Points, descent: _Descent) -> str:
    """What is wrong with the end of a descent; empty: nothing."""
    entropy = math.log(SCREEN_VOCAB)
    if not (told := _information(descent.free)) >= INFORMATION * entropy:
        return f"descent ends in one prediction for all tokens: it tells {told:.3f} of {entropy:.3f} nats of them"
    before, after = (F.cross_entropy(x, points.targets[1]).item() for x in (points.logits[0], descent.free))
    if not after <= SCREEN_RATIO * before:
        return f"{SCREEN_STEPS} steps of descent took cross-entropy from {before:.3f} to {after:.3f}"
    start, free, blind = descent.losses
    if not start - blind < LEAK * (start - free):
        return f"one prediction for all tokens lowers it from {start:.3g} to {blind:.3g}, right ones to {free:.3g}"
    return ""


def _information(logits: Tensor) -> float:
    """Mutual information of token and predicted word, in nats: 0 where all tokens get the same prediction."""
    chances = logits.softmax(-1)
    return float(torch.special.entr(chances.mean(0)).sum() - torch.special.entr(chances).sum(-1).mean())


def _descend(objective: CompiledObjective, points: _Points) -> _Descent:
    """Adam on the loss, written out, because importing torch's costs a second.

    Every token stands twice: in the first half with logits of its own, in the second with logits of head 0 that all of
    its half share. Their one gradient is the mean of theirs.
    """
    half = SCREEN_TOKENS
    leaves = [values.repeat(2, 1) for values in points.logits.values()]
    leaves[0][half:] = leaves[0][0].clone()
    targets = {ahead: values.repeat(2) for ahead, values in points.targets.items()}
    rates = torch.full((2 * half, 1), LEARNING_RATE)
    rates[half:] = BLIND_RATE
    first, second = ([torch.zeros_like(leaf) for leaf in leaves] for _ in range(2))

    def loss_at(progress: float) -> Tensor:
        return objective(dict(zip(points.logits, leaves, strict=True)), targets, progress)

    start = loss_at(0.5)[:half].mean().item()
    for leaf in leaves:
        leaf.requires_grad_()
    for step in range(1, SCREEN_STEPS + 1):
        gradients = torch.autograd.grad(
            loss_at((step - 1) / (SCREEN_STEPS - 1)).sum(), leaves, allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            gradients[0][half:] = gradients[0][half:].mean(0)
            for leaf, gradient, one, two in zip(leaves, gradients, first, second, strict=True):
                one.lerp_(gradient, 0.1)
                two.mul_(0.99).addcmul_(gradient, gradient, value=0.01)
                size = (two / (1 - 0.99**step)).sqrt_().add_(1e-8)
                leaf.sub_(one / size * (rates / (1 - 0.9**step)))
    with torch.no_grad():
        losses = loss_at(0.5)
        free, blind = losses[:half].mean().item(), losses[half:].mean().item()
    return _Descent(leaves[0].detach()[:half], (start, free, blind))
