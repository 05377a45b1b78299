"""What an expression computes: its leaves, its protected operations, its gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import OPERATIONS, Expression, parse
from selfimprove.nets.losses import EPS, compile_objective

CE = "mul(-1, dot(onehot(1), log_softmax(logits(0))))"
TOKENS, VOCAB = 24, 11


def points(scale: float = 1.5) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Logits of two heads, and targets one and two ahead, of which the last six do not exist."""
    generator = torch.Generator().manual_seed(0)
    logits = {head: scale * torch.randn(TOKENS, VOCAB, generator=generator) for head in range(2)}
    targets = {ahead: torch.randint(VOCAB, (TOKENS,), generator=generator) for ahead in (1, 2)}
    targets[2][-6:] = -1
    return logits, targets


def loss_of(text: str, progress: float | Tensor = 0.5) -> Tensor:
    return compile_objective(parse(text))(*points(), progress)


def test_every_operation_of_the_language_compiles() -> None:
    filler = {"vector": Expression("logits", (), 0), "scalar": parse("logsumexp(logits(0))"), "const": parse("0.5")}
    for op, signature in OPERATIONS.items():
        value = 1.0 if op == "const" else signature.indices[0] if signature.indices else None
        node = Expression(op, tuple(filler[kind] for kind in signature.arguments), value)
        loss = loss_of((Expression("sum", (node,)) if signature.result == "vector" else node).text)
        assert loss.shape == (TOKENS,), op
        assert loss.isfinite().all(), op


def test_an_unknown_operation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidGenome, match="log_softmax"):
        compile_objective(Expression("median", (Expression("logits", (), 0),)))


def test_logits_are_those_of_the_head_that_is_named() -> None:
    logits, _ = points()
    for head in (0, 1):
        torch.testing.assert_close(loss_of(f"logsumexp(logits({head}))"), logits[head].logsumexp(-1))


@pytest.mark.parametrize("vector", ["logits(1)", "scale(logits(1), 1)", "onehot(1)"])
def test_a_one_hot_reads_the_target_of_its_distance_and_is_zero_where_there_is_none(vector: str) -> None:
    logits, targets = points()
    row = F.one_hot(targets[1], VOCAB).float() if vector == "onehot(1)" else logits[1]
    exists = targets[2] >= 0
    wanted = torch.where(exists, row.gather(-1, targets[2].clamp(min=0)[:, None])[:, 0], 0.0)
    torch.testing.assert_close(loss_of(f"dot(onehot(2), {vector})"), wanted)
    torch.testing.assert_close(loss_of("sum(onehot(2))"), exists.float())


def test_a_target_that_does_not_exist_gives_no_gradient() -> None:
    logits, targets = points()
    leaf = logits[1].requires_grad_()
    loss = compile_objective(parse("mul(-1, dot(onehot(2), log_softmax(logits(1))))"))
    loss({0: logits[0], 1: leaf}, targets, 0.0).sum().backward()
    assert leaf.grad is not None
    assert not leaf.grad[targets[2] < 0].any()
    assert leaf.grad[targets[2] >= 0].any(-1).all()


def test_progress_reaches_the_loss() -> None:
    torch.testing.assert_close(loss_of(f"mul(progress, {CE})", 0.25), loss_of(CE) / 4)


def test_progress_may_be_a_tensor() -> None:
    text = f"add(mul(progress, {CE}), tanh(progress))"
    torch.testing.assert_close(loss_of(text, torch.tensor(0.25)), loss_of(text, 0.25))


def test_a_loss_of_a_constant_still_has_one_value_per_token() -> None:
    assert torch.equal(loss_of("exp(0)"), torch.ones(TOKENS))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("div(1, {x})", lambda x: 1 / (x + (EPS if x >= 0 else -EPS))),
        ("log({x})", lambda x: torch.tensor(abs(x) + EPS).log().item()),
        ("sqrt({x})", lambda x: (abs(x) + EPS) ** 0.5),
        ("exp({x})", lambda x: torch.tensor(min(x, 20.0)).exp().item()),
        ("pow({x}, 2)", lambda x: (abs(x) + EPS) ** 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("x", [-3.0, -0.5, 0.0, 2.0, 50.0])
def test_protected_operations_do_what_is_documented(text: str, wanted: Callable[[float], float], x: float) -> None:
    assert loss_of(text.format(x=x))[0].item() == pytest.approx(wanted(x), rel=1e-5)


@given(
    op=st.sampled_from(["div(1, {})", "log({})", "sqrt({})", "exp({})", "pow({}, -3)", "pow({}, 100)"]),
    operand=st.sampled_from(["dot(onehot(1), logits(0))", "dot(onehot(2), softmax(logits(0)))"]),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 100.0]),
)
def test_protected_operations_keep_value_and_gradient_finite(op: str, operand: str, scale: float) -> None:
    logits, targets = points(scale)
    leaf = logits[0].requires_grad_()
    loss = compile_objective(parse(op.format(operand)))({0: leaf}, targets, 0.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
