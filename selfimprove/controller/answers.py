"""What the sandboxed worker answers, read with suspicion. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from selfimprove.controller.grammar import Grammar, Walk
from selfimprove.errors import InvalidEdit
from selfimprove.genome.genome import Genome

ENTRY = "selfimprove.controller.worker"
"""The module that answers."""


def rows(answer: object, limit: int) -> list[Any]:
    """The proposals of an untrusted answer: a list of at most ``limit``.

    Raises:
        InvalidEdit: it is none.
    """
    found: list[Any] = field(answer, "proposals", list)
    if len(found) > limit:
        raise InvalidEdit("read the controller's proposals", f"{len(found)} of them", f"at most {limit}")
    return found


def chosen(grammar: Grammar, item: object, parents: Sequence[Genome]) -> tuple[int, Walk]:
    """The parent that a proposal of an untrusted answer names, and what its tokens make of it.

    Raises:
        InvalidEdit: there is no such parent, or the tokens are no edits of it.
    """
    parent = field(item, "parent", int)
    if not 0 <= parent < len(parents):
        raise InvalidEdit("read the controller's parent", parent, f"0 to {len(parents) - 1}")
    return parent, grammar.decode(field(item, "ids", list), parents[parent])


def field(value: object, name: str, kind: type) -> Any:
    """One field of an untrusted JSON object, of exactly this type; numbers must be finite.

    Raises:
        InvalidEdit: it is not there, or something else.
    """
    found = value.get(name) if isinstance(value, Mapping) else None
    if type(found) is not kind or (isinstance(found, float) and not math.isfinite(found)):
        raise InvalidEdit(f"read the controller's {name}", type(found).__name__, f"a (finite) {kind.__name__}")
    return found
