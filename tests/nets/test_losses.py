from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import OPERATIONS, Expression, cross_entropy, parse
from selfimprove.nets.losses import EPS, compile_objective, gradient_scale
from selfimprove.nets.screening import screen

CE = "mul(-1, dot(onehot(1), log_softmax(logits(0))))"
P = "dot(onehot(1), softmax(logits(0)))"

LABEL_SMOOTHING = f"sub(mul(0.9, {CE}), mul(0.1, mean(log_softmax(logits(0)))))"
FOCAL = f"mul(square(sub(1, {P})), {CE})"
FOCAL_POW = f"mul(pow(sub(1, {P}), 1.5), {CE})"
Z_LOSS = f"add({CE}, mul(0.001, square(logsumexp(logits(0)))))"
POLY_1 = f"add({CE}, mul(2, sub(1, {P})))"
TEMPERATURE = "mul(-1, dot(onehot(1), log_softmax(scale(logits(0), 0.5))))"
CONFIDENCE = f"add({CE}, mul(0.1, dot(softmax(logits(0)), log_softmax(logits(0)))))"


def ce(x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(x, y, reduction="none")


def p(x: Tensor, y: Tensor) -> Tensor:
    return x.softmax(-1).gather(-1, y[:, None])[:, 0]


REFERENCES: dict[str, tuple[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cross-entropy": (CE, ce),
    "label smoothing": (LABEL_SMOOTHING, lambda x, y: F.cross_entropy(x, y, reduction="none", label_smoothing=0.1)),
    "focal": (FOCAL, lambda x, y: (1 - p(x, y)) ** 2 * ce(x, y)),
    "focal by power": (FOCAL_POW, lambda x, y: (1 - p(x, y)) ** 1.5 * ce(x, y)),
    "z-loss": (Z_LOSS, lambda x, y: ce(x, y) + 0.001 * x.logsumexp(-1) ** 2),
    "poly-1": (POLY_1, lambda x, y: ce(x, y) + 2 * (1 - p(x, y))),
    "temperature": (TEMPERATURE, lambda x, y: ce(x / 2, y)),
    "confidence penalty": (
        CONFIDENCE,
        lambda x, y: ce(x, y) - 0.1 * torch.distributions.Categorical(logits=x).entropy(),
    ),
}


def points(scale: float = 1.5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(24, 11, generator=generator), torch.randint(11, (24,), generator=generator)


@pytest.mark.parametrize("name", REFERENCES)
def test_an_expression_equals_its_reference_in_value_and_gradient(name: str) -> None:
    text, reference = REFERENCES[name]
    logits, targets = points()
    first, second = (logits.clone().requires_grad_() for _ in range(2))
    value, wanted = compile_objective(parse(text))(first, targets, 0.5), reference(second, targets)
    value.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(value, wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(first.grad, second.grad, atol=1e-6, rtol=1e-6)


def test_every_operation_of_the_language_compiles() -> None:
    logits, targets = points()
    filler = {"vector": Expression("logits", (), 0), "scalar": parse("logsumexp(logits(0))"), "const": parse("0.5")}
    for op, signature in OPERATIONS.items():
        value = 1.0 if op == "const" else signature.indices[0] if signature.indices else None
        node = Expression(op, tuple(filler[kind] for kind in signature.arguments), value)
        root = Expression("sum", (node,)) if signature.result == "vector" else node
        loss = compile_objective(root)(logits, targets, 0.5)
        assert loss.shape == targets.shape, op
        assert loss.isfinite().all(), op


def test_an_unknown_operation_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidGenome, match="log_softmax"):
        compile_objective(Expression("median", (Expression("logits", (), 0),)))


def test_progress_reaches_the_loss() -> None:
    logits, targets = points()
    objective = compile_objective(parse(f"mul(progress, {CE})"))
    torch.testing.assert_close(objective(logits, targets, 0.25), ce(logits, targets) / 4)


def test_progress_may_be_a_tensor() -> None:
    logits, targets = points()
    objective = compile_objective(parse(f"add(mul(progress, {CE}), tanh(progress))"))
    torch.testing.assert_close(objective(logits, targets, torch.tensor(0.25)), objective(logits, targets, 0.25))


def test_a_loss_of_a_constant_still_has_one_value_per_token() -> None:
    logits, targets = points()
    assert torch.equal(compile_objective(parse("exp(0)"))(logits, targets, 0.0), torch.ones(24))


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
    logits, targets = points()
    loss = compile_objective(parse(text.format(x=x)))(logits, targets, 0.0)
    assert loss[0].item() == pytest.approx(wanted(x), rel=1e-5)


@given(
    op=st.sampled_from(["div(1, {})", "log({})", "sqrt({})", "exp({})", "pow({}, -3)", "pow({}, 100)"]),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 100.0]),
)
def test_protected_operations_keep_value_and_gradient_finite(op: str, scale: float) -> None:
    logits, targets = points(scale)
    leaf = logits.requires_grad_()
    loss = compile_objective(parse(op.format("dot(onehot(1), logits(0))")))(leaf, targets, 0.0)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", REFERENCES)
def test_known_losses_pass_the_screen(name: str) -> None:
    result = screen(parse(REFERENCES[name][0]), seed=0)
    assert (result.ok, result.reason) == (True, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mul(0, sum(logits(0)))", "zero"),
        ("sum(softmax(logits(0)))", "zero"),  # always 1
        ("sum(onehot(1))", "zero"),  # no logits
        ("logsumexp(logits(0))", "target"),
        ("mul(-1, dot(softmax(logits(0)), log_softmax(logits(0))))", "target"),  # entropy
        ("dot(onehot(1), log_softmax(logits(0)))", "descent"),  # minus cross-entropy
        (f"square(square(square(square(square(exp({CE}))))))", "not finite"),
    ],
)
def test_losses_that_cannot_train_are_refused_with_the_reason(text: str, reason: str) -> None:
    result = screen(parse(text), seed=0)
    assert not result.ok
    assert reason in result.reason


@pytest.mark.parametrize(
    "text",
    [f"add(0, mul(1, {CE}))", f"mul(3, {CE})", "sub(logsumexp(logits(0)), dot(logits(0), onehot(1)))"],
)
def test_losses_of_equal_gradient_direction_share_a_fingerprint(text: str) -> None:
    assert screen(parse(text), seed=0).fingerprint == screen(cross_entropy(), seed=0).fingerprint


def test_losses_of_different_gradients_have_different_fingerprints() -> None:
    texts = [CE, f"mul(progress, {CE})", LABEL_SMOOTHING, FOCAL, FOCAL_POW, Z_LOSS, POLY_1, TEMPERATURE, CONFIDENCE]
    assert len({screen(parse(text), seed=0).fingerprint for text in texts}) == len(texts)


def test_the_screen_is_a_function_of_its_seed() -> None:
    expression = parse(FOCAL)
    assert screen(expression, 1) == screen(expression, 1)
    assert screen(expression, 1).fingerprint != screen(expression, 2).fingerprint


def test_the_screen_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    screen(cross_entropy(), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_screen_takes_less_than_a_tenth_of_a_second_of_cpu() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        screen(parse(CONFIDENCE), 0)  # warm-up
        spent = []
        for seed in range(3):
            start = time.process_time()
            screen(parse(CONFIDENCE), seed)
            spent.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(spent) < 0.1


@pytest.mark.parametrize("text", [CE, "mul(-1, dot(log_softmax(logits(0)), onehot(1)))"])
def test_the_scale_of_cross_entropy_is_exactly_one(text: str) -> None:
    assert gradient_scale(parse(text)) == 1.0


@pytest.mark.parametrize("factor", [1e-3, 0.25, 3.0, 100.0])
@pytest.mark.parametrize("name", REFERENCES)
def test_the_scale_undoes_any_positive_factor(name: str, factor: float) -> None:
    text = REFERENCES[name][0]
    assert factor * gradient_scale(parse(f"mul({factor}, {text})")) == pytest.approx(gradient_scale(parse(text)))


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
    wrapped = parse(f"add(abs({CONFIDENCE}), mul(0.001, square(logsumexp(logits(0)))))")
    gradient_scale(cross_entropy())  # warm-up
    start = time.process_time()
    first = gradient_scale(wrapped)
    spent = time.process_time() - start
    assert gradient_scale(parse(wrapped.text)) == first
    assert gradient_scale.cache_info().hits == 1
    assert spent < 0.1
