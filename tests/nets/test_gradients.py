"""The size of a loss: brought to cross-entropy's, so that no factor weakens the constraint beside it."""

from __future__ import annotations

import time

import pytest

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import cross_entropy, parse
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.nets.gradients import gradient_scale
from selfimprove.nets.screening import screen

CE = cross_entropy().text


@pytest.mark.parametrize("text", [CE, "mul(-1, dot(log_softmax(logits(0)), onehot(1)))"])
def test_the_scale_of_cross_entropy_is_exactly_one(text: str) -> None:
    assert gradient_scale(parse(text)) == 1.0


@pytest.mark.parametrize("factor", [1e-3, 0.25, 3.0, 100.0])
@pytest.mark.parametrize("name", KNOWN_LOSSES)
def test_the_scale_undoes_any_positive_factor(name: str, factor: float) -> None:
    text = KNOWN_LOSSES[name].text
    assert factor * gradient_scale(parse(f"mul({factor}, {text})")) == pytest.approx(gradient_scale(parse(text)))


def test_the_gradient_in_every_head_counts_for_the_size_of_a_loss() -> None:
    second = "mul(-1, dot(onehot(1), log_softmax(logits(1))))"
    shrunk = parse(f"add(mul(0.001, {CE}), {second})")
    assert gradient_scale(shrunk) == pytest.approx(1.0, rel=0.5)  # and not a thousand


@pytest.mark.parametrize(
    "text",
    [
        "sum(onehot(1))",
        "mul(0, sum(logits(0)))",
        f"mul(1e-20, {CE})",
        f"exp(mul(100, {CE}))",  # over the bound of exp: flat
        f"square(square(square(square(square(exp({CE}))))))",  # beyond single precision
    ],
)
def test_a_loss_that_cannot_be_brought_to_scale_is_refused_by_the_screen_and_never_trained(text: str) -> None:
    result = screen(parse(text), seed=0)
    assert (result.ok, result.fingerprint) == (False, "")
    with pytest.raises(InvalidGenome, match="gradient of norm"):
        gradient_scale(parse(text))


def test_a_scale_is_found_once_and_quickly() -> None:
    gradient_scale.cache_clear()
    wrapped = parse(f"add(abs({KNOWN_LOSSES['confidence penalty'].text}), mul(0.001, square(logsumexp(logits(0)))))")
    gradient_scale(cross_entropy())  # warm-up
    start = time.process_time()
    first = gradient_scale(wrapped)
    spent = time.process_time() - start
    assert gradient_scale(parse(wrapped.text)) == first
    assert gradient_scale.cache_info().hits == 1
    assert spent < 0.1
