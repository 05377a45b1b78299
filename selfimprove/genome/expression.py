"""The objective as a typed expression tree, its text form, and what makes it valid.

Two kinds of value exist, both per token position: a ``vector`` over the vocabulary and a ``scalar``.  The loss of a
token is the scalar at the root.  Text is functional and reads as it computes:

>>> print(cross_entropy())
mul(-1, dot(onehot(1), log_softmax(logits(0))))
>>> parse("sub(1, dot(onehot(1), softmax(logits(0))))").args[0]
Expression(op='const', args=(), value=1.0)

Text is read by a recursive-descent parser over a closed list of operations; nothing is ever executed.  What an
operation computes (and how ``log``, ``div``, ``sqrt``, ``pow`` and ``exp`` are kept finite) is decided where the tree
is compiled, not here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from selfimprove.errors import InvalidGenome
from selfimprove.genome.operations import CONST, OPERATIONS, SCALAR, Signature

MAX_NODES = 40
MAX_DEPTH = 10
MAX_TEXT = 4000
MAX_CONSTANT = 100.0


@dataclass(frozen=True)
class Expression:
    """One node and what is below it."""

    op: str
    """A key of ``OPERATIONS``."""
    args: tuple[Expression, ...] = ()
    """The operands, in order."""
    value: float | int | None = None
    """The number of a ``const``, the index of ``logits`` and ``onehot``; None elsewhere."""

    def __str__(self) -> str:
        return self.text

    @cached_property
    def text(self) -> str:
        """The functional text form, which ``parse`` reads back."""
        return self._write(tuple(arg.text for arg in self.args))

    @cached_property
    def canonical(self) -> str:
        """Text with the arguments of commutative operations in sorted order: equal for trees of equal meaning."""
        texts = tuple(arg.canonical for arg in self.args)
        signature = OPERATIONS.get(self.op)
        return self._write(tuple(sorted(texts)) if signature and signature.commutative else texts)

    @cached_property
    def size(self) -> int:
        """Number of nodes."""
        return 1 + sum(arg.size for arg in self.args)

    @cached_property
    def depth(self) -> int:
        """Number of nodes on the longest way down; a leaf has depth 1."""
        return 1 + max((arg.depth for arg in self.args), default=0)

    def nodes(self, position: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Expression]]:
        """Every node with its position (the argument index taken at each level), parents first."""
        yield position, self
        for index, arg in enumerate(self.args):
            yield from arg.nodes((*position, index))

    def indices(self, op: str) -> tuple[int, ...]:
        """The indices that the leaves of one operation carry, each once, ascending: the heads of ``logits``."""
        found = {node.value for _, node in self.nodes() if node.op == op}
        return tuple(sorted(index for index in found if isinstance(index, int)))

    @property
    def anchored(self) -> bool:
        """Whether the prediction that is scored, ``logits(0)``, and its target, ``onehot(1)``, both occur."""
        return 0 in self.indices("logits") and 1 in self.indices("onehot")

    def _write(self, args: tuple[str, ...]) -> str:
        if self.op == "const" and self.value is not None:
            return format_number(self.value)
        inside = args if self.value is None else (format_number(self.value), *args)
        return f"{self.op}({', '.join(inside)})" if inside else self.op


def const(value: float) -> Expression:
    """A constant leaf."""
    return Expression("const", (), float(value) + 0.0)  # adding 0.0 turns -0.0 into 0.0


def cross_entropy() -> Expression:
    """Cross-entropy of the next token: the objective of the seed genome, and the metric all objectives are held to."""
    target = Expression("onehot", (), 1)
    return Expression(
        "mul",
        (const(-1), Expression("dot", (target, Expression("log_softmax", (Expression("logits", (), 0),))))),
    )


def format_number(value: float | int) -> str:
    """Shortest text that reads back as the same number; whole numbers carry no ``.0``."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def kind(expression: Expression) -> str:
    """``vector`` or ``scalar``.

    Raises:
        InvalidGenome: an unknown operation, a wrong number or kind of arguments, a value where none belongs.
    """
    return _kind(expression, "objective.expression")


def validate(expression: Expression) -> None:
    """Check types, size, depth and constants, and that a scalar comes out that names the prediction and its target.

    Not covered: whether the loss depends on them in a useful way or can be descended; that is screened numerically
    before any budget is spent.

    Raises:
        InvalidGenome: naming the path of the node, the value and the limit.
    """
    path = "objective.expression"
    if expression.depth > MAX_DEPTH:
        raise InvalidGenome(f"{path} depth", expression.depth, f"at most {MAX_DEPTH}", "remove a level")
    if expression.size > MAX_NODES:
        raise InvalidGenome(f"{path} nodes", expression.size, f"at most {MAX_NODES}", "remove a term")
    found = _kind(expression, path)
    if found != SCALAR:
        raise InvalidGenome(f"{path} kind", found, SCALAR, "reduce it with sum, mean, max, logsumexp or dot")
    for op, index, remedy in (
        ("logits", 0, "a loss must depend on the prediction that is scored: use it where the loss is to push it"),
        ("onehot", 1, "a loss must depend on the target: compare the prediction with it, e.g. by dot"),
    ):
        if index not in expression.indices(op):
            raise InvalidGenome(path, expression.text, f"an expression of {op}({index})", remedy)


def _kind(node: Expression, path: str) -> str:
    signature = OPERATIONS.get(node.op)
    if signature is None:
        raise InvalidGenome(f"{path}.op", node.op, ", ".join(OPERATIONS), "use a listed operation")
    if len(node.args) != len(signature.arguments):
        raise InvalidGenome(f"{path} arguments of {node.op}", len(node.args), str(len(signature.arguments)))
    _check_value(node, signature, path)
    for index, (wanted, arg) in enumerate(zip(signature.arguments, node.args, strict=True)):
        below = f"{path}.args.{index}"
        found = _kind(arg, below)
        if wanted == CONST:
            if arg.op != CONST:
                raise InvalidGenome(below, arg.text, "a number", f"{node.op} takes a constant there")
        elif found != wanted:
            raise InvalidGenome(below, f"{arg.text} (a {found})", f"a {wanted}", f"see argument {index} of {node.op}")
    return signature.result


def _check_value(node: Expression, signature: Signature, path: str) -> None:
    value = node.value
    if node.op == CONST:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or value is None or not math.isfinite(value) or abs(value) > MAX_CONSTANT:
            raise InvalidGenome(f"{path}.value", value, f"a number in [-{MAX_CONSTANT:g}, {MAX_CONSTANT:g}]")
    elif signature.indices:
        if isinstance(value, bool) or not isinstance(value, int) or value not in signature.indices:
            raise InvalidGenome(f"{path} index of {node.op}", value, ", ".join(map(str, signature.indices)))
    elif value is not None:
        raise InvalidGenome(f"{path}.value", value, "none", f"{node.op} carries no value")


_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?\d[\w.]*(?:(?<=[eE])[+-]\d+)?)|(?P<name>[a-z]\w*)|(?P<mark>[(),_]))", re.ASCII
)


def parse(text: str, hole: Expression | None = None) -> Expression:
    """Read the text form.

    Args:
        text: e.g. ``"mul(-1, dot(onehot(1), log_softmax(logits(0))))"``.
        hole: what a ``_`` in the text stands for; without it a ``_`` is refused.

    Raises:
        InvalidGenome: text that is not an expression, or one whose types do not fit.
    """
    if len(text) > MAX_TEXT:
        raise InvalidGenome("objective.expression text", f"{len(text)} characters", f"at most {MAX_TEXT}")
    parser = _Parser(text, hole)
    node = parser.node(MAX_DEPTH)
    if parser.kind:
        raise parser.refuse("the end")
    kind(node)
    return node


class _Parser:
    """Reads one expression from left to right with one token of look-ahead."""

    def __init__(self, text: str, hole: Expression | None) -> None:
        self.source = text
        self.hole = hole
        self.end = 0
        self.advance()

    def advance(self) -> None:
        self.start = self.end
        match = _TOKEN.match(self.source, self.end)
        if match is None:
            rest = self.source[self.end :].strip()
            self.kind, self.token = ("unknown" if rest else ""), rest
            return
        self.kind, self.token = match.lastgroup or "", match[match.lastgroup or 0]
        self.end = match.end()

    def node(self, levels: int) -> Expression:
        """``number | _ | name | name(argument, ...)``; ``levels`` bounds the nesting that is still allowed."""
        if levels == 0:
            raise InvalidGenome("parse objective.expression", self.source, f"at most {MAX_DEPTH} levels")
        if self.kind == "number":
            return const(self.number())
        if self.token == "_" and self.hole is not None:
            self.advance()
            return self.hole
        if self.kind != "name":
            raise self.refuse("a number or an operation")
        op = self.token
        if op not in OPERATIONS or op == CONST:
            raise self.refuse(f"one of {', '.join(name for name in OPERATIONS if name != CONST)}")
        self.advance()
        if self.token != "(":
            return Expression(op)
        self.advance()
        if OPERATIONS[op].indices:
            node = Expression(op, (), self.index())
        else:
            node = Expression(op, tuple(self.arguments(levels - 1)))
        self.expect(")")
        return node

    def arguments(self, levels: int) -> Iterator[Expression]:
        yield self.node(levels)
        while self.token == ",":
            self.advance()
            yield self.node(levels)

    def number(self) -> float:
        try:
            value = float(self.token)
        except ValueError:
            raise self.refuse("a number") from None
        if "_" in self.token or not math.isfinite(value):
            raise self.refuse("a finite number")
        self.advance()
        return value

    def index(self) -> int:
        if self.kind != "number" or not self.token.isdecimal():
            raise self.refuse("a whole number")
        value = int(self.token)
        self.advance()
        return value

    def expect(self, token: str) -> None:
        if self.token != token:
            raise self.refuse(f"'{token}'")
        self.advance()

    def refuse(self, wanted: str) -> InvalidGenome:
        where = f"'{self.token}' at character {self.start + 1} of '{self.source}'" if self.kind else "the end of text"
        return InvalidGenome("parse objective.expression", where, wanted)
