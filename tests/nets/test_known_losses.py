"""Losses of the literature: as expressions they equal implementations written from the papers, value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfimprove.genome.edits import apply, parse_edit
from selfimprove.genome.expression import cross_entropy, parse
from selfimprove.genome.genome import seed_genome
from selfimprove.genome.known_losses import KNOWN_LOSSES
from selfimprove.genome.space import Space
from selfimprove.nets.losses import compile_objective
from selfimprove.nets.screening import screen

BATCH, LENGTH, VOCAB = 2, 6, 7
Reference = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def ce(x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each token: minus the log-probability of the target."""
    return -(x - x.exp().sum(-1, keepdim=True).log()).gather(-1, y[:, None])[:, 0]


def chance(x: Tensor, y: Tensor) -> Tensor:
    """Probability of the target."""
    return (x.exp() / x.exp().sum(-1, keepdim=True)).gather(-1, y[:, None])[:, 0]


def smoothed(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Cross-entropy to a target that gives ``epsilon`` to all words alike."""
    target = (1 - epsilon) * F.one_hot(y, VOCAB) + epsilon / VOCAB
    return -(target * x.log_softmax(-1)).sum(-1)


def two_tokens(x: Tensor, y: Tensor, second: Tensor, later: Tensor) -> Tensor:
    """A second head predicts the token after the next; where the sequence has no such token, there is no term."""
    exists = later >= 0
    term = torch.zeros(len(y), dtype=x.dtype)
    term[exists] = ce(second[exists], later[exists])
    return ce(x, y) + 0.1 * term


# x: logits [tokens vocab]; y: targets [tokens]; then those of the second head and of one token later
REFERENCES: dict[str, Reference] = {
    "cross-entropy": lambda x, y, *_: ce(x, y),
    "label smoothing": lambda x, y, *_: 1.1 * smoothed(x, y, 1 / 11),
    "focal": lambda x, y, *_: (1 - chance(x, y)) ** 2 * ce(x, y),
    "z-loss": lambda x, y, *_: ce(x, y) + 1e-3 * x.exp().sum(-1).log() ** 2,
    "poly-1": lambda x, y, *_: ce(x, y) + 1.0 * (1 - chance(x, y)),
    "temperature": lambda x, y, *_: ce(x / 2, y),
    "confidence penalty": lambda x, y, *_: ce(x, y) - 0.1 * torch.distributions.Categorical(logits=x).entropy(),
    "multi-token prediction": two_tokens,
}


def later_of(targets: Tensor) -> Tensor:
    """Targets ``[batch pos]`` one token later, -1 at the end of each sequence."""
    return torch.cat([targets[:, 1:], torch.full((len(targets), 1), -1)], dim=1)


logits_of_two_heads = st.lists(
    st.floats(-8, 8), min_size=2 * BATCH * LENGTH * VOCAB, max_size=2 * BATCH * LENGTH * VOCAB
)
words = st.lists(st.integers(0, VOCAB - 1), min_size=BATCH * LENGTH, max_size=BATCH * LENGTH)


@pytest.mark.parametrize("name", KNOWN_LOSSES)
@settings(max_examples=40, deadline=None)
@given(numbers=logits_of_two_heads, right=words)
def test_an_expression_equals_its_reference_in_value_and_gradient(
    name: str, numbers: list[float], right: list[int]
) -> None:
    drawn = torch.tensor(numbers, dtype=torch.float64).reshape(2, BATCH * LENGTH, VOCAB)
    targets = torch.tensor(right).reshape(BATCH, LENGTH)
    first, later = targets.flatten(), later_of(targets).flatten()
    ours, theirs = drawn.clone().requires_grad_(), drawn.clone().requires_grad_()
    value = compile_objective(KNOWN_LOSSES[name].expression)({0: ours[0], 1: ours[1]}, {1: first, 2: later}, 0.5)
    wanted = REFERENCES[name](theirs[0], first, theirs[1], later)
    torch.testing.assert_close(value, wanted, atol=1e-6, rtol=0)
    value.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=0)


def test_every_known_loss_has_a_reference() -> None:
    assert set(REFERENCES) == set(KNOWN_LOSSES)


@pytest.mark.parametrize("name", KNOWN_LOSSES)
def test_a_known_loss_is_at_most_two_offered_edits_from_cross_entropy(name: str) -> None:
    space, genome, known = Space(), seed_genome(), KNOWN_LOSSES[name]
    for text in known.edits:
        edit = parse_edit(text)
        assert edit in space.edits(genome)
        genome = apply(edit, genome, space)
    assert len(known.edits) <= 2
    assert genome.objective.expression.canonical == known.expression.canonical


def test_multi_token_prediction_is_a_single_wrap() -> None:
    [text] = KNOWN_LOSSES["multi-token prediction"].edits
    assert parse_edit(text).op == "wrap"


@pytest.mark.parametrize("name", KNOWN_LOSSES)
def test_a_known_loss_passes_the_screen(name: str) -> None:
    result = screen(KNOWN_LOSSES[name].expression, seed=0)
    assert (result.ok, result.reason) == (True, "")


def test_known_losses_train_in_different_directions() -> None:
    prints = {screen(known.expression, seed=0).fingerprint for known in KNOWN_LOSSES.values()}
    assert len(prints) == len(KNOWN_LOSSES)


def test_other_strengths_of_a_known_loss_are_a_constant_away() -> None:
    x = torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 3, 4])
    focal = parse(f"mul({cross_entropy().text}, pow(sub(1, dot(onehot(1), softmax(logits(0)))), 1.5))")
    value = compile_objective(focal)({0: x}, {1: y}, 0.0)
    torch.testing.assert_close(value, (1 - chance(x, y)) ** 1.5 * ce(x, y), atol=1e-6, rtol=1e-6)
