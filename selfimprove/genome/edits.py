"""One typed change to a genome: its text, its tokens, applying it and taking it back.

An edit prints the way a Hydra override is written, so that a person can read and replay it:

=============================================================== ====================================================
``architecture.blocks.0.conv_qkv=true``                          set a value
``objective.expression.args.0.op=sub``                           set an operation (same kinds in and out)
``objective.expression.args.0.index=2``                          set which head or token a leaf reads
``+architecture.blocks.1=copy(0)``                               insert a copy of an existing block
``architecture.blocks.1=copy(0)``                                replace a block by a copy of another
``~architecture.blocks.1``                                       remove a block
``~objective.expression.args.1``                                 remove an operation, keeping an argument of its kind
``architecture.blocks.0<->architecture.blocks.1``                swap two blocks, or two subtrees of one kind
``objective.expression=add(_, mul(0.1, logsumexp(logits(0))))``  wrap a node, which the ``_`` stands for
=============================================================== ====================================================
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Protocol

from selfimprove.errors import InvalidEdit, InvalidGenome
from selfimprove.genome.architecture import Block
from selfimprove.genome.expression import MAX_TEXT, Expression
from selfimprove.genome.fields import ALLOCATING, SECTIONS, Field, Value, format_value
from selfimprove.genome.genome import Genome
from selfimprove.genome.operations import CONST, OPERATIONS
from selfimprove.genome.paths import block_index, path_tokens, position, value_at, with_value
from selfimprove.genome.rewrites import alternatives, kept_argument, node_at, put, swap, wrap

OPS = ("set", "insert", "remove", "swap", "wrap", "copy")


class Rules(Protocol):
    """What applying an edit must know of the space."""

    def describe(self, path: str) -> Field:
        """What is known of a path; raises InvalidEdit for one that cannot be edited."""

    def validate(self, genome: Genome) -> None:
        """Raise InvalidGenome for a genome outside the space."""


@dataclass(frozen=True)
class Edit:
    """One change. A plain value: whether it can be applied depends on the genome and the space."""

    op: str
    """One of ``OPS``."""
    path: str
    """Where, dotted."""
    value: Value | None = None
    """Set: the new value. Insert, copy: ``copy(i)``. Swap: the other path. Wrap: text with a ``_``. Remove: None."""

    @property
    def kind(self) -> str:
        """``architecture``, ``objective`` or ``recipe``; ``forbidden`` for a path that lies in none of them."""
        section = self.path.split(".")[0]
        return section if section in SECTIONS else "forbidden"

    @property
    def allocates(self) -> bool:
        """Whether it moves the fixed FLOP allowance between width, depth, batch, context and steps."""
        if self.op == "set":
            return self.path in ALLOCATING
        return self.op in ("insert", "remove") and self.kind == "architecture"

    def __str__(self) -> str:
        value = format_value(self.value)
        return {
            "insert": f"+{self.path}={value}",
            "remove": f"~{self.path}",
            "swap": f"{self.path}<->{value}",
        }.get(self.op, f"{self.path}={value}")

    def tokens(self) -> tuple[str, ...]:
        """The edit as at most eight words for a sequence model: operation, path, value.

        Edits of one genome never share a spelling, but one may begin another: a model of them needs an end token.
        """
        start = (self.op, *path_tokens(self.path))
        if self.op == "swap":
            return (*start, "<->", *path_tokens(str(self.value)))
        return start if self.value is None else (*start, format_value(self.value))

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict."""
        return {"op": self.op, "path": self.path, "value": self.value}

    @classmethod
    def from_json(cls, data: object) -> Edit:
        """Read what ``to_json`` wrote.

        Raises:
            InvalidEdit: unknown or missing keys, or a value that no edit has.
        """
        if not isinstance(data, dict) or set(data) != {"op", "path", "value"}:
            raise InvalidEdit("read edit", data, "an object with op, path, value")
        op, path, value = data["op"], data["path"], data["value"]
        if op not in OPS or not isinstance(path, str) or not isinstance(value, (bool, int, float, str, type(None))):
            raise InvalidEdit("read edit", data, f"op of {', '.join(OPS)}; path text; value text, number, flag or null")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidEdit("read edit", value, "finite numbers")
        if max(len(path), len(value) if isinstance(value, str) else 0) > MAX_TEXT:
            raise InvalidEdit("read edit", "a longer text", f"at most {MAX_TEXT} characters")
        return cls(op, path, value)


_PATH = r"[A-Za-z_]\w*(?:\.\w+)*"
_COPY = r"copy\(\d{1,4}\)"
_FORMS = (
    ("insert", re.compile(rf"\+(?P<path>{_PATH})=(?P<value>{_COPY})", re.ASCII)),
    ("copy", re.compile(rf"(?P<path>{_PATH})=(?P<value>{_COPY})", re.ASCII)),  # before wrap, which it looks like
    ("remove", re.compile(rf"~(?P<path>{_PATH})", re.ASCII)),
    ("swap", re.compile(rf"(?P<path>{_PATH})\s*<->\s*(?P<value>{_PATH})", re.ASCII)),
    ("wrap", re.compile(rf"(?P<path>{_PATH})=(?P<value>\w+\(.*\))", re.ASCII)),
    ("set", re.compile(rf"(?P<path>{_PATH})=(?P<value>[\w.+-]+)", re.ASCII)),
)


def parse_edit(text: str) -> Edit:
    """Read the text form; the inverse of ``str``.

    Raises:
        InvalidEdit: text of none of the forms. Whether the edit makes sense is for ``apply`` to say.
    """
    stripped = text.strip()
    for op, form in _FORMS if len(stripped) <= MAX_TEXT else ():
        if match := form.fullmatch(stripped):
            groups = match.groupdict()
            return Edit(op, groups["path"], _read_value(op, groups.get("value")))
    shown = text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"
    raise InvalidEdit(
        "parse edit", shown, "path=value, +path=copy(i), path=copy(i), ~path, path<->path, path=op(_, ...)"
    )


def _read_value(op: str, text: str | None) -> Value | None:
    if text is None or op in ("insert", "copy", "swap"):
        return text
    if op == "wrap":  # one spelling for each wrap, whatever spaces were typed
        return "".join(", " if part == "," else part.strip() for part in re.split(r"([(),])", text))
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", text) and math.isfinite(float(text)):
        return float(text)
    return text


def apply(edit: Edit, genome: Genome, space: Rules) -> Genome:
    """The edited genome. Pure: ``genome`` stays as it is.

    Raises:
        InvalidEdit: a path that is unknown, forbidden or not in this genome; an operation or value that does not fit
            there; a result outside the space; an edit that changes neither graph, loss nor schedule.
    """
    field = space.describe(edit.path)
    if edit.op not in field.ops:
        raise InvalidEdit(f"{edit.op} {edit.path}", edit.op, ", ".join(field.ops), "use an operation that it has")
    if edit.op == "swap" and space.describe(str(edit.value)) != field:
        raise InvalidEdit(f"swap {edit.path}", edit.value, "a path of the same kind")
    try:
        edited = change(edit, genome, field)
        space.validate(edited)
    except InvalidGenome as error:
        raise InvalidEdit(f"apply {edit}: {error.operation}", error.value, error.limit, error.remedy) from error
    if edited.effective == genome.effective:
        raise InvalidEdit(f"apply {edit}", "no change", "edits that change the graph, the loss or the schedule")
    return edited


def invert(edit: Edit, genome: Genome) -> Edit:
    """The edit that takes ``edit`` back.

    Args:
        edit: an edit that can be applied to ``genome``.
        genome: the genome before the edit.

    Raises:
        InvalidEdit: no single edit does it (the only block of its kind was removed or replaced), or the path is not in
            the genome.
    """
    if edit.op == "set":
        return replace(edit, value=value_at(genome, edit.path))
    if edit.op == "insert":
        return Edit("remove", edit.path)
    if edit.op == "swap":
        return edit
    if edit.kind == "architecture":
        index, blocks = block_index(edit.path, len(genome.architecture.blocks)), genome.architecture.blocks
        replaced = (blocks[_copied(edit, blocks)],) if edit.op == "copy" else ()
        left = (*blocks[:index], *replaced, *blocks[index + 1 :])
        if blocks[index] not in left:
            raise InvalidEdit(f"invert {edit}", None, "", "no identical block is left to copy: keep the parent genome")
        return Edit("insert" if edit.op == "remove" else "copy", edit.path, f"copy({left.index(blocks[index])})")
    node = node_at(genome.objective.expression, position(edit.path))
    if edit.op == "wrap":
        wrapped = wrap(node, str(edit.value))
        kept = kept_argument(wrapped)
        if kept is None or wrapped.args[kept] != node:
            raise InvalidEdit(f"invert {edit}", None, "", "removing the wrap would keep its other argument")
        return Edit("remove", edit.path)
    kept = _kept(edit.path, node)
    args = ("_" if index == kept else arg.text for index, arg in enumerate(node.args))
    return Edit("wrap", edit.path, f"{node.op}({', '.join(args)})")


def _kept(path: str, node: Expression) -> int:
    kept = kept_argument(node)
    if kept is None:
        raise InvalidEdit(f"remove {path}", node.text, "an operation with an argument of its own kind")
    return kept


def change(edit: Edit, genome: Genome, field: Field) -> Genome:
    """The edited genome, which may lie outside the space; ``field`` describes the edit's path.

    Raises:
        InvalidEdit: an index, copy or value that does not fit.
    """
    if edit.kind == "objective":
        expression = _change_expression(edit, genome.objective.expression, field)
        return replace(genome, objective=replace(genome.objective, expression=expression))
    if edit.op != "set":
        blocks = _change_blocks(edit, genome.architecture.blocks)
        return replace(genome, architecture=replace(genome.architecture, blocks=blocks))
    return with_value(genome, edit.path, _coerce(edit, field))


def _coerce(edit: Edit, field: Field) -> Value:
    value = field.coerce(edit.value)
    if value is None:
        raise InvalidEdit(f"set {edit.path}", edit.value, field.limit, "choose an allowed value")
    return value


def _change_blocks(edit: Edit, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    if edit.op == "insert":
        index = block_index(edit.path, len(blocks) + 1)
        return (*blocks[:index], blocks[_copied(edit, blocks)], *blocks[index:])
    index = block_index(edit.path, len(blocks))
    if edit.op == "remove":
        return (*blocks[:index], *blocks[index + 1 :])
    if edit.op == "copy":
        return (*blocks[:index], blocks[_copied(edit, blocks)], *blocks[index + 1 :])
    other = block_index(str(edit.value), len(blocks))
    order = list(blocks)
    order[index], order[other] = order[other], order[index]
    return tuple(order)


def _copied(edit: Edit, blocks: tuple[Block, ...]) -> int:
    match = re.fullmatch(_COPY, str(edit.value), re.ASCII)
    source = int(match[0][len("copy(") : -1]) if match else len(blocks)
    if source >= len(blocks):
        raise InvalidEdit(f"{edit.op} {edit.path}", edit.value, f"copy(i) with i from 0 to {len(blocks) - 1}")
    return source


def _change_expression(edit: Edit, expression: Expression, field: Field) -> Expression:
    place = position(edit.path)
    node = node_at(expression, place)
    if edit.op == "swap":
        return swap(expression, place, position(str(edit.value)))
    if edit.op == "wrap":
        return put(expression, place, wrap(node, str(edit.value)))
    if edit.op == "remove":
        return put(expression, place, node.args[_kept(edit.path, node)])
    value = _coerce(edit, field)
    if edit.path.endswith(".value"):
        if node.op != CONST or not isinstance(value, float):
            raise InvalidEdit(f"set {edit.path}", node.text, "a constant", "only constants have a value to set")
        return put(expression, place, replace(node, value=value))
    if edit.path.endswith(".index"):
        indices = OPERATIONS[node.op].indices
        if value not in indices or not isinstance(value, int):
            choices = ", ".join(map(str, indices)) or "none"
            raise InvalidEdit(f"set {edit.path}", value, choices, f"{node.op} carries no other index")
        return put(expression, place, replace(node, value=value))
    if value not in alternatives(node.op):
        choices = ", ".join(alternatives(node.op)) or "nothing else"
        raise InvalidEdit(
            f"set {edit.path}", value, choices, f"{node.op} can only become what takes and gives the same"
        )
    return put(expression, place, replace(node, op=str(value)))
