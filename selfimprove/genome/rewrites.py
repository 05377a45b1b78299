"""Local rewrites of an expression tree: where a node is, what may replace it, what may be wrapped around it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from selfimprove.errors import InvalidEdit
from selfimprove.genome.expression import MAX_DEPTH, MAX_NODES, Expression, parse
from selfimprove.genome.operations import CONST, OPERATIONS, SCALAR

Position = tuple[int, ...]
"""Argument indices from the root down; the root is ``()``."""

ATOMS: dict[str, str] = {
    "probability of the target": "dot(onehot(1), softmax(logits(0)))",
    "probability of missing it": "sub(1, dot(onehot(1), softmax(logits(0))))",
    "negative entropy": "dot(softmax(logits(0)), log_softmax(logits(0)))",
    "cross-entropy to uniform": "mul(-1, mean(log_softmax(logits(0))))",
    "cross-entropy of a second head, two ahead": "mul(-1, dot(onehot(2), log_softmax(logits(1))))",
    "square of the log partition function": "square(logsumexp(logits(0)))",
    "fraction of training done": "progress",
    "fraction of training left": "sub(1, progress)",
}
"""Scalars that a term or a factor is made of: ``selfimprove.genome.known_losses`` says what they lead to."""

_TERMS = (
    "probability of missing it",
    "negative entropy",
    "cross-entropy to uniform",
    "cross-entropy of a second head, two ahead",
    "square of the log partition function",
)
_FACTORS = (
    "probability of the target",
    "probability of missing it",
    "fraction of training done",
    "fraction of training left",
)
_WEIGHTS = ("0.001", "0.1", "1")

_UNARY = tuple(op for op, signature in OPERATIONS.items() if signature.arguments == (SCALAR,))
TERMS: tuple[str, ...] = tuple(f"add(_, mul({weight}, {ATOMS[name]}))" for name in _TERMS for weight in _WEIGHTS)
"""What is proposed around the root only: below it, a term is mostly another spelling of a term at the root."""
FACTORS: tuple[str, ...] = (
    *(f"{op}(_)" for op in _UNARY),
    "mul(_, -1)",
    "mul(_, 0.5)",
    "pow(_, 2)",
    "sub(1, _)",
    *(f"mul(_, {ATOMS[name]})" for name in _FACTORS),
)
"""What is proposed around any scalar that is no constant. Any other well-typed wrap can be applied by hand."""
SCALES: tuple[str, ...] = tuple(f"scale(_, {number})" for number in ("0.5", "0.8", "1.25", "2"))
"""What is proposed around logits: an inverse temperature."""

_HOLE = re.compile(r"(?<!\w)_(?!\w)")
_SHAPES = {template: parse(template, hole=Expression("progress")) for template in (*TERMS, *FACTORS)} | {
    template: parse(template, hole=Expression("logits", (), 0)) for template in SCALES
}


def node_at(expression: Expression, position: Position) -> Expression:
    """The node at a position.

    Raises:
        InvalidEdit: no node is there.
    """
    node = expression
    for level, index in enumerate(position):
        if index >= len(node.args):
            path = node_path(position[: level + 1])
            raise InvalidEdit(
                path, f"argument {index}", f"{len(node.args)} arguments of {node.op}", "see the text form"
            )
        node = node.args[index]
    return node


def put(expression: Expression, position: Position, node: Expression) -> Expression:
    """A copy of the tree with ``node`` at ``position``."""
    if not position:
        return node
    index, below = position[0], position[1:]
    args = (*expression.args[:index], put(expression.args[index], below, node), *expression.args[index + 1 :])
    return dataclasses.replace(expression, args=args)


def node_path(position: Position) -> str:
    """``(0, 1)`` as ``objective.expression.args.0.args.1``."""
    return "objective.expression" + "".join(f".args.{index}" for index in position)


def alternatives(op: str) -> tuple[str, ...]:
    """Other operations that take and give the same kinds; none for leaves."""
    here = OPERATIONS[op]
    return tuple(
        name
        for name, there in OPERATIONS.items()
        if name != op and there.arguments and (there.arguments, there.result) == (here.arguments, here.result)
    )


def wrap(node: Expression, template: str) -> Expression:
    """``template`` with ``node`` for its ``_``, which must stand once, as a direct argument of the outer operation.

    Raises:
        InvalidEdit: otherwise.
        InvalidGenome: text that is no expression, or types that do not fit.
    """
    wrapped = parse(template, hole=node)
    if len(_HOLE.findall(template)) != 1 or not any(arg is node for arg in wrapped.args):
        raise InvalidEdit("wrap", template, "one _ as a direct argument of the outer operation", "e.g. mul(_, 0.5)")
    return wrapped


def kept_argument(node: Expression) -> int | None:
    """Which argument stays when ``node`` is removed: the first of its own kind, preferably no constant."""
    result = OPERATIONS[node.op].result
    same = [index for index, arg in enumerate(node.args) if OPERATIONS[arg.op].result == result]
    return min(same, key=lambda index: node.args[index].op == CONST, default=None)


def swap(expression: Expression, first: Position, second: Position) -> Expression:
    """Exchange two subtrees.

    Raises:
        InvalidEdit: one contains the other.
    """
    one, other = node_at(expression, first), node_at(expression, second)
    if not _disjoint(first, second):
        raise InvalidEdit(f"swap {node_path(first)}", node_path(second), "a subtree that does not overlap with it")
    return put(put(expression, first, other), second, one)


def wraps(expression: Expression) -> Iterator[tuple[Position, str]]:
    """Proposed wraps that keep the tree within its size and depth: position and template."""
    for position, node, parent in _with_parents(expression):
        if OPERATIONS[node.op].result == SCALAR:
            templates: tuple[str, ...] = () if node.op == CONST else FACTORS if position else (*TERMS, *FACTORS)
        else:  # a scale of anything but logits is a scalar factor or another constant in disguise
            templates = SCALES if node.op == "logits" and parent != "scale" else ()
        for template in templates:
            shape = _SHAPES[template]
            grown = expression.size + shape.size - 1
            if grown <= MAX_NODES and len(position) + max(shape.depth, 1 + node.depth) <= MAX_DEPTH:
                yield position, template


def swaps(expression: Expression) -> Iterator[tuple[Position, Position]]:
    """Proposed swaps: arguments of one operation, or operations of one kind anywhere, where order has a meaning."""
    places = [
        (position, node, OPERATIONS[node.op].result)
        for position, node, parent in _with_parents(expression)
        if position and not (node.op == CONST and parent == "scale")
    ]
    for index, (first, one, kind) in enumerate(places):
        for second, other, other_kind in places[index + 1 :]:
            siblings = first[:-1] == second[:-1]
            operations = one.args and other.args  # leaves from afar are mostly nonsense: targets for logits
            if kind != other_kind or not (siblings or operations) or not _disjoint(first, second):
                continue
            if one.canonical == other.canonical:
                continue
            if siblings:
                if not OPERATIONS[node_at(expression, first[:-1]).op].commutative:
                    yield first, second
            elif max(len(first) + other.depth, len(second) + one.depth) <= MAX_DEPTH:
                swapped = put(put(expression, first, other), second, one)
                if swapped.canonical != expression.canonical:
                    yield first, second


def _disjoint(first: Position, second: Position) -> bool:
    shorter = min(len(first), len(second))
    return first[:shorter] != second[:shorter]


def _with_parents(
    node: Expression, position: Position = (), parent: str = ""
) -> Iterator[tuple[Position, Expression, str]]:
    yield position, node, parent
    for index, arg in enumerate(node.args):
        yield from _with_parents(arg, (*position, index), node.op)
