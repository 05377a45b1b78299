"""A loss as a formula that a person reads, in plain text."""

from __future__ import annotations

from collections.abc import Callable

from selfimprove.app.report.text import MINUS
from selfimprove.genome.expression import Expression, const, format_number
from selfimprove.genome.operations import CONST, OPERATIONS

TIMES, DOT = "\N{MULTIPLICATION SIGN}", "\N{MIDDLE DOT}"
_SUM, _DOT, _PRODUCT, _POWER, _ATOM = range(1, 6)  # how strongly a part holds together
_Part = tuple[str, int]


def formula(expression: Expression) -> str:
    """The loss of one token, infix, with the cross-entropies in it by name.

    ``logits`` is the head that is scored and ``target`` the next token; ``logits[k]`` and ``target[k]`` are further
    heads and tokens. Every other name is an operation of the expression.

    Example:
        >>> from selfimprove.genome.expression import parse
        >>> formula(parse("add(mul(-1, dot(onehot(1), log_softmax(logits(0)))), div(max(logits(0)), 2))"))
        'cross_entropy + max(logits) / 2'
    """
    return _part(expression)[0]


def _part(node: Expression) -> _Part:
    if name := _CROSS_ENTROPIES.get(node.canonical):
        return name, _ATOM
    if node.op == CONST:
        return _number(node.value or 0.0)
    if node.op in _LEAVES:
        return _leaf(node), _ATOM
    if node.op in _INFIX:
        return _INFIX[node.op](*node.args)
    arguments = ", ".join(_part(arg)[0] for arg in node.args)
    return (f"{node.op}({arguments})" if arguments else node.op), _ATOM


def _at_least(node: Expression, least: int) -> str:
    """A part as it stands inside another: in brackets where it holds together less than it must."""
    shown, strength = _part(node)
    return shown if strength >= least else f"({shown})"


def _number(value: float) -> _Part:
    shown = format_number(value)
    return (MINUS + shown[1:], _SUM) if shown.startswith("-") else (shown, _ATOM)


def _leaf(node: Expression) -> str:
    name, usual = _LEAVES[node.op]
    return name if node.value == usual else f"{name}[{node.value}]"


def _sum(a: Expression, b: Expression) -> _Part:
    return f"{_at_least(a, _SUM)} + {_at_least(b, _SUM if b.op == 'add' else _DOT)}", _SUM


def _difference(a: Expression, b: Expression) -> _Part:
    return f"{_at_least(a, _SUM)} {MINUS} {_at_least(b, _DOT)}", _SUM


def _product(a: Expression, b: Expression) -> _Part:
    if a.op == CONST and a.value == -1:
        return f"{MINUS}{_at_least(b, _DOT)}", _SUM
    if a.op == CONST and a.value is not None and a.value < 0:
        return f"{MINUS}{_product(const(-a.value), b)[0]}", _SUM
    return f"{_at_least(a, _PRODUCT)} {TIMES} {_at_least(b, _PRODUCT)}", _PRODUCT


def _quotient(a: Expression, b: Expression) -> _Part:
    return f"{_at_least(a, _PRODUCT)} / {_at_least(b, _POWER)}", _PRODUCT


def _inner(a: Expression, b: Expression) -> _Part:
    return f"{_at_least(a, _ATOM)} {DOT} {_at_least(b, _ATOM)}", _DOT


def _scaled(vector: Expression, factor: Expression) -> _Part:
    return _product(factor, vector)


def _square(a: Expression) -> _Part:
    return f"{_at_least(a, _ATOM)}\N{SUPERSCRIPT TWO}", _POWER


def _power(a: Expression, b: Expression) -> _Part:
    return f"{_at_least(a, _ATOM)}^{_at_least(b, _ATOM)}", _POWER


def _cross_entropies() -> dict[str, str]:
    """Canonical text of the cross-entropy of each head and token, and its name."""
    found = {}
    for head in OPERATIONS["logits"].indices:
        for ahead in OPERATIONS["onehot"].indices:
            logits, target = Expression("logits", (), head), Expression("onehot", (), ahead)
            likelihood = Expression("dot", (target, Expression("log_softmax", (logits,))))
            name = "cross_entropy" if (head, ahead) == (0, 1) else f"cross_entropy({_leaf(logits)}, {_leaf(target)})"
            found[Expression("mul", (const(-1), likelihood)).canonical] = name
    return found


_LEAVES = {"logits": ("logits", 0), "onehot": ("target", 1)}
_INFIX: dict[str, Callable[..., _Part]] = {
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "div": _quotient,
    "dot": _inner,
    "scale": _scaled,
    "square": _square,
    "pow": _power,
}
_CROSS_ENTROPIES = _cross_entropies()
