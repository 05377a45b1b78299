"""The frozen description of one model: architecture, objective and recipe.

A genome is data.  It is written as JSON, read back strictly, and identified by the hash of its canonical form, which
leaves out whatever has no effect (the head count of a block without attention, the second beta of SGD), and the order
of arguments where it means nothing (``add``, ``mul``, ``dot``). Two genomes with one hash build the same model and
follow the same loss: they train and score the same, up to the rounding of sums, which are taken in the written order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
import types
import typing
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from selfimprove.canonical import canonical
from selfimprove.errors import InvalidGenome
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.genome.expression import Expression, cross_entropy, parse
from selfimprove.genome.recipe import OMITTED, Recipe

SCHEMA = 1


@dataclass(frozen=True)
class Objective:
    """The training loss. Never the score."""

    expression: Expression
    """Loss of one token."""


@dataclass(frozen=True)
class Genome:
    """One model, completely described."""

    architecture: Architecture
    objective: Objective
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """JSON-ready dict with the schema version; the expression is its text."""
        return {"schema": SCHEMA, **_encode(self)}

    @classmethod
    def from_json(cls, data: object) -> Genome:
        """Read what ``to_json`` wrote.

        Strict about structure and types, and about what identity and price rest on: there is a block; heads, batch and
        ``context_start`` are above 0. All other choices and bounds are the space's: see ``Space.validate``.

        Raises:
            InvalidGenome: naming the path, the value, and what belongs there.
        """
        if not isinstance(data, dict):
            raise InvalidGenome("genome", type(data).__name__, "an object")
        body = dict(data)
        schema = body.pop("schema", None)
        if schema != SCHEMA or isinstance(schema, bool):
            raise InvalidGenome("schema", schema, str(SCHEMA), "this version reads no other schema")
        genome = _decode(cls, body, "")
        assert isinstance(genome, Genome)
        _check_divisors(genome)
        return genome

    @property
    def heads(self) -> tuple[int, ...]:
        """Prediction heads that the objective trains beside head 0, which every model has."""
        return tuple(index for index in self.objective.expression.indices("logits") if index > 0)

    @cached_property
    def effective(self) -> dict[str, Any]:
        """``to_json`` without what has no effect; equal for two that train and score the same up to rounding."""
        return {
            "schema": SCHEMA,
            "architecture": self.architecture.effective(),
            "objective": _encode(self.objective) | {"expression": self.objective.expression.canonical},
            "recipe": self.recipe.effective(),
        }

    def canonical(self) -> str:
        """RFC 8785 JSON of ``effective``: what the hash is taken over."""
        return canonical(self.effective).decode()

    @cached_property
    def sha256(self) -> str:
        """Identity of the genome, 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def short(self) -> str:
        """First ten digits of ``sha256``, for people."""
        return self.sha256[:10]


def seed_genome(learning_rate: float = 1e-3, batch: int = 16) -> Genome:
    """The standard pre-norm GPT that every search starts from: two layers, width 64, RoPE, GELU, AdamW, cross-entropy.

    Args:
        learning_rate: peak learning rate, from a tuning sweep.
        batch: sequences per step, from the same sweep.
    """
    return Genome(
        architecture=Architecture(blocks=(Block(), Block())),
        objective=Objective(cross_entropy()),
        recipe=Recipe(learning_rate=learning_rate, batch=batch),
    )


@cache
def _members(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {member.name: hints[member.name] for member in dataclasses.fields(cls)}


@cache
def _omitted(cls: type) -> dict[str, Any]:
    """Defaults of the members that JSON leaves out at their default."""
    return {member.name: member.default for member in dataclasses.fields(cls) if member.metadata == OMITTED}


def _encode(value: Any) -> Any:
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Expression):
        return value.text
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    omitted, written = _omitted(value.__class__), {}
    for name in _members(value.__class__):
        held = getattr(value, name)
        if name not in omitted or held != omitted[name]:
            written[name] = _encode(held)
    return written


def _decode(wanted: Any, data: object, path: str) -> object:
    """Build a value of the annotated type ``wanted`` from JSON, or name the path where it does not fit."""
    if wanted is Expression:
        return parse(_scalar(str, data, path))
    if isinstance(wanted, types.GenericAlias):
        if not isinstance(data, list):
            raise InvalidGenome(path, type(data).__name__, "a list")
        return tuple(_decode(wanted.__args__[0], item, f"{path}.{index}") for index, item in enumerate(data))
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        members = _members(wanted)
        if not isinstance(data, dict):
            raise InvalidGenome(path or "genome", type(data).__name__, f"an object with {', '.join(members)}")
        if unknown := sorted(set(map(str, data)) - set(members)):
            raise InvalidGenome(f"{path or 'genome'} key", unknown[0], ", ".join(members), "remove the unknown key")
        data = _omitted(wanted) | data
        if missing := [name for name in members if name not in data]:
            raise InvalidGenome(f"{path or 'genome'} key", f"no {missing[0]}", ", ".join(members), "add the key")
        prefix = f"{path}." if path else ""
        return wanted(**{name: _decode(members[name], data[name], prefix + name) for name in members})
    return _scalar(wanted, data, path)


def _check_divisors(genome: Genome) -> None:
    if not genome.architecture.blocks:
        raise InvalidGenome("architecture.blocks", "no block", "one block or more")
    divisors = {
        f"architecture.blocks.{index}.heads": block.heads for index, block in enumerate(genome.architecture.blocks)
    }
    divisors |= {f"recipe.{name}": getattr(genome.recipe, name) for name in ("batch", "context_start")}
    for path, value in divisors.items():
        if value <= 0:
            raise InvalidGenome(path, value, "a number above 0")


def _within_a_float(number: int, path: str) -> int:
    if abs(number) > sys.float_info.max:
        raise InvalidGenome(path, f"an integer of {len(str(abs(number)))} digits", "a finite number")
    return number


_T = typing.TypeVar("_T", bool, int, float, str)


def _scalar(wanted: type[_T], data: object, path: str) -> _T:
    if wanted is float and isinstance(data, int) and not isinstance(data, bool):
        return wanted(_within_a_float(data, path))
    # exact types: bool is an int in Python, and a flag must not pass for a number
    if type(data) is not wanted:
        raise InvalidGenome(path, data, f"a value of type {wanted.__name__}")
    if isinstance(data, float) and not math.isfinite(data):
        raise InvalidGenome(path, data, "a finite number")
    return data
