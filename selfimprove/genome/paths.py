"""Dotted paths into a genome: reading them, the words they are made of, and the value at their end."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from selfimprove.errors import InvalidEdit
from selfimprove.genome.fields import Value
from selfimprove.genome.genome import Genome
from selfimprove.genome.operations import CONST
from selfimprove.genome.rewrites import Position, node_at

LEVELS_PER_TOKEN = 3  # three levels of a tree in one token keep every edit within eight tokens
_NODE = re.compile(r"objective\.expression((?:\.args\.\d)*)(?:\.(op|value|index))?", re.ASCII)
_BLOCK = re.compile(r"(architecture\.blocks\.(0|[1-9]\d{0,3}))(?:\.(\w+))?", re.ASCII)


def path_tokens(path: str) -> tuple[str, ...]:
    """The words of a path.

    >>> path_tokens("architecture.blocks.0.mixer")
    ('architecture.blocks.0.mixer',)
    >>> path_tokens("objective.expression.args.0.args.1.args.0.args.0.op")
    ('args.0.args.1.args.0', 'args.0', 'op')
    """
    if match := _NODE.fullmatch(path):
        levels = match[1].split(".args.")[1:]
        chunks = [levels[start : start + LEVELS_PER_TOKEN] for start in range(0, len(levels), LEVELS_PER_TOKEN)]
        words = [".".join(f"args.{level}" for level in chunk) for chunk in chunks] or ["objective.expression"]
        return (*words, match[2]) if match[2] else tuple(words)
    return (path,)


def block_index(path: str, count: int) -> int:
    """The block index in a path.

    Raises:
        InvalidEdit: not the path of a block, or an index of ``count`` or more.
    """
    match = _BLOCK.fullmatch(path)
    if match is None or int(match[2]) >= count:
        raise InvalidEdit(path, match[2] if match else path, f"a block index from 0 to {count - 1}")
    return int(match[2])


def position(path: str) -> Position:
    """Where in the expression tree a path points, a final ``.op``, ``.value`` or ``.index`` left out.

    Raises:
        InvalidEdit: not the path of a node.
    """
    match = _NODE.fullmatch(path)
    if match is None:
        raise InvalidEdit("expression path", path, "objective.expression, then .args.0 or .args.1 at each level")
    return tuple(int(level) for level in match[1].split(".args.")[1:])


def value_at(genome: Genome, path: str) -> Value:
    """The value that a ``set`` at ``path`` would replace.

    Raises:
        InvalidEdit: the genome has no such value.
    """
    found: object
    if match := _NODE.fullmatch(path):
        node = node_at(genome.objective.expression, position(path))
        held = {"op": node.op, "value" if node.op == CONST else "index": node.value}
        found = held.get(match[2] or "")
    elif match := _BLOCK.fullmatch(path):
        blocks = genome.architecture.blocks
        found = getattr(blocks[block_index(path, len(blocks))], match[3] or "", None)
    else:
        section, _, name = path.partition(".")
        found = getattr(getattr(genome, section, None), name, None)
    if not isinstance(found, (bool, int, float, str)):
        raise InvalidEdit(f"read {path}", "no value", "a path that holds a value")
    return found


def with_value(genome: Genome, path: str, value: Value) -> Genome:
    """A copy with one value of the architecture or recipe replaced; the value is not checked.

    Raises:
        InvalidEdit: a block that the genome does not have.
    """
    architecture = genome.architecture
    if match := _BLOCK.fullmatch(path):
        index = block_index(path, len(architecture.blocks))
        changes: dict[str, Any] = {match[3]: value}
        block = replace(architecture.blocks[index], **changes)
        blocks = (*architecture.blocks[:index], block, *architecture.blocks[index + 1 :])
        return replace(genome, architecture=replace(architecture, blocks=blocks))
    section, _, name = path.partition(".")
    changes = {name: value}
    if section == "recipe":
        return replace(genome, recipe=replace(genome.recipe, **changes))
    return replace(genome, architecture=replace(architecture, **changes))
