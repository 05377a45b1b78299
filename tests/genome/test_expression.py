"""What an objective can say, how it is written, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import MAX_DEPTH, MAX_NODES, Expression, const, cross_entropy, kind, parse, validate
from selfimprove.genome.operations import OPERATIONS


def test_cross_entropy_reads_as_it_computes() -> None:
    assert str(cross_entropy()) == "mul(-1, dot(onehot(1), log_softmax(logits(0))))"
    validate(cross_entropy())


@given(number=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_text_round_trip_gives_the_same_tree(walk: Any, number: int) -> None:
    tree = walk(number).objective.expression
    assert parse(str(tree)) == tree
    assert parse(tree.canonical).canonical == tree.canonical


@given(value=st.floats(-100, 100))
@settings(deadline=None)
def test_constants_round_trip_exactly(value: float) -> None:
    assert parse(const(value).text) == const(value)


@given(text=st.text(alphabet="logits(0),mul-1_.e+ onehtadv", max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        tree = parse(text)
    except InvalidGenome:
        return
    assert parse(str(tree)) == tree


def test_spaces_do_not_matter() -> None:
    assert parse(" mul( -1 ,dot(onehot( 1 ),log_softmax(logits(0))) ) ") == cross_entropy()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mul(1,",
        "mul(1)",
        "mul(1, 2, 3)",
        "mul(1 2)",
        "mul(1, 2) mul",
        "sum(1)",
        "add(logits(0), 1)",
        "scale(logits(0), progress)",
        "logits(4)",
        "logits(-1)",
        "onehot(5)",
        "logits(0.0)",
        "onehot(0)",
        "logits",
        "progress(1)",
        "const(1)",
        "mul(_, 1)",
        "mul(1e999, progress)",
        "mul(1_0, progress)",
        "mul(101, progress)",
        "__import__(progress)",
        "exp(" * 2000 + "1" + ")" * 2000,
        "exp(" * 300 + "1" + ")" * 300,
        "add(1, " * 11 + "1" + ")" * 11,
    ],
)
def test_text_that_is_no_typed_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidGenome):
        parse(text)


def test_a_refusal_names_the_place_and_the_operations() -> None:
    with pytest.raises(InvalidGenome, match=r"'focal' at character 8 .* log_softmax"):
        parse("mul(-1, focal(logits(0)))")
    with pytest.raises(InvalidGenome, match=r"objective\.expression\.args\.1: got logits\(0\) \(a vector\)"):
        parse("mul(-1, logits(0))")


def test_a_hole_stands_for_the_given_tree() -> None:
    tree = cross_entropy()
    assert parse("add(_, 1)", hole=tree) == Expression("add", (tree, const(1)))


def test_every_operation_has_its_kind() -> None:
    for op, signature in OPERATIONS.items():
        leaves = {
            "vector": Expression("logits", (), 0),
            "scalar": Expression("progress"),
            "const": const(1),
        }
        value = 1.0 if op == "const" else signature.indices[0] if signature.indices else None
        node = Expression(op, tuple(leaves[argument] for argument in signature.arguments), value)
        assert kind(node) == signature.result
        assert parse(str(node)) == node


def test_a_loss_must_be_a_scalar_that_depends_on_the_logits() -> None:
    for text in ("logits(0)", "progress", "mul(-1, sum(onehot(1)))"):
        with pytest.raises(InvalidGenome):
            validate(parse(text))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("add(sum(onehot(1)), progress)", r"logits\(0\)"),
        ("mul(-1, dot(onehot(1), log_softmax(logits(1))))", r"logits\(0\)"),
        ("logsumexp(logits(0))", r"onehot\(1\)"),
        ("mul(-1, dot(onehot(2), log_softmax(logits(0))))", r"onehot\(1\)"),
    ],
)
def test_a_loss_without_the_scored_prediction_or_its_target_is_refused_with_path_value_and_remedy(
    text: str, limit: str
) -> None:
    tree = parse(text)
    with pytest.raises(InvalidGenome, match=limit) as refusal:
        validate(tree)
    assert (refusal.value.operation, refusal.value.value) == ("objective.expression", tree.text)
    assert refusal.value.remedy


def test_an_expression_knows_its_heads_and_how_far_it_looks_ahead() -> None:
    tree = parse("add(dot(onehot(3), logits(2)), add(dot(onehot(1), logits(0)), dot(onehot(3), logits(0))))")
    assert (tree.indices("logits"), tree.indices("onehot"), tree.indices("progress")) == ((0, 2), (1, 3), ())


def test_size_and_depth_are_limited() -> None:
    wide = cross_entropy()
    while wide.size <= MAX_NODES:
        wide = Expression("add", (wide, wide))
    with pytest.raises(InvalidGenome, match="nodes"):
        validate(wide)
    deep = cross_entropy()
    while deep.depth <= MAX_DEPTH:
        deep = Expression("exp", (deep,))
    with pytest.raises(InvalidGenome, match="depth"):
        validate(deep)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 101.0, None, True, "1"])
def test_a_constant_is_a_bounded_number(value: Any) -> None:
    with pytest.raises(InvalidGenome, match="value"):
        kind(Expression("const", (), value))


def test_the_canonical_form_keeps_order_where_order_has_a_meaning() -> None:
    assert parse("sub(1, progress)").canonical != parse("sub(progress, 1)").canonical
    assert parse("add(1, progress)").canonical == parse("add(progress, 1)").canonical
