"""Losses that people found, each as the edits that lead to it from cross-entropy: what the space must be able to say.

A loss may be written times a positive factor, because that trains alike: see ``selfimprove.nets.gradients``.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfimprove.genome.expression import Expression, cross_entropy, parse

_ROOT = "objective.expression"
_CROSS_ENTROPY = cross_entropy().text
_CHANCE = "dot(onehot(1), softmax(logits(0)))"


@dataclass(frozen=True)
class KnownLoss:
    """One loss of the literature."""

    paper: str
    """Where it comes from."""
    text: str
    """The expression."""
    edits: tuple[str, ...]
    """From cross-entropy, each one among those that ``Space.edits`` offers."""

    @property
    def expression(self) -> Expression:
        """The expression as a tree."""
        return parse(self.text)


KNOWN_LOSSES: dict[str, KnownLoss] = {
    "cross-entropy": KnownLoss("Good 1952, 'Rational decisions'", _CROSS_ENTROPY, ()),
    # 1.1 times label smoothing of 1/11
    "label smoothing": KnownLoss(
        "Szegedy et al. 2015, arXiv 1512.00567",
        f"add({_CROSS_ENTROPY}, mul(0.1, mul(-1, mean(log_softmax(logits(0))))))",
        (f"{_ROOT}=add(_, mul(0.1, mul(-1, mean(log_softmax(logits(0))))))",),
    ),
    # gamma = 2
    "focal": KnownLoss(
        "Lin et al. 2017, arXiv 1708.02002",
        f"mul({_CROSS_ENTROPY}, square(sub(1, {_CHANCE})))",
        (f"{_ROOT}=mul(_, sub(1, {_CHANCE}))", f"{_ROOT}.args.1=square(_)"),
    ),
    # weight 1e-3 where PaLM has 1e-4
    "z-loss": KnownLoss(
        "Chowdhery et al. 2022 (PaLM), arXiv 2204.02311",
        f"add({_CROSS_ENTROPY}, mul(0.001, square(logsumexp(logits(0)))))",
        (f"{_ROOT}=add(_, mul(0.001, square(logsumexp(logits(0)))))",),
    ),
    # epsilon = 1
    "poly-1": KnownLoss(
        "Leng et al. 2022, arXiv 2204.12511",
        f"add({_CROSS_ENTROPY}, mul(1, sub(1, {_CHANCE})))",
        (f"{_ROOT}=add(_, mul(1, sub(1, {_CHANCE})))",),
    ),
    # temperature 2
    "temperature": KnownLoss(
        "Hinton et al. 2015, arXiv 1503.02531",
        "mul(-1, dot(onehot(1), log_softmax(scale(logits(0), 0.5))))",
        (f"{_ROOT}.args.1.args.1.args.0=scale(_, 0.5)",),
    ),
    # beta = 0.1
    "confidence penalty": KnownLoss(
        "Pereyra et al. 2017, arXiv 1701.06548",
        f"add({_CROSS_ENTROPY}, mul(0.1, dot(softmax(logits(0)), log_softmax(logits(0)))))",
        (f"{_ROOT}=add(_, mul(0.1, dot(softmax(logits(0)), log_softmax(logits(0)))))",),
    ),
    # one further token, weight 0.1
    "multi-token prediction": KnownLoss(
        "Gloeckle et al. 2024, arXiv 2404.19737",
        f"add({_CROSS_ENTROPY}, mul(0.1, mul(-1, dot(onehot(2), log_softmax(logits(1))))))",
        (f"{_ROOT}=add(_, mul(0.1, mul(-1, dot(onehot(2), log_softmax(logits(1))))))",),
    ),
}
