"""What a proposal reaches for that it may not have: a path that no edit reaches, or more than a cap allows. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from selfimprove.errors import InvalidEdit, InvalidGenome
from selfimprove.genome.edits import Edit, apply
from selfimprove.genome.fields import Field
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space

Reach = Literal["", "forbidden", "cap"]


def reach(edits: Sequence[Edit], parent: Genome, space: Space) -> Reach:
    """Judge the edits one after the other, each on the genome that the valid ones before it leave.

    Returns:
        ``forbidden``: a path outside the space, such as the budget, the evaluation or a class. ``cap``: a value above
        the largest that the space has, a block beyond the depth that it allows, or too many edits. Empty: neither.

    Not covered: caps of the policy that only a price shows, which are denials with a ``limit`` of their own, and the
    size of a loss expression.
    """
    found: Reach = "cap" if len(edits) > space.config.max_edits else ""
    genome = parent
    for edit in edits:
        if not all(_editable(path, space) for path in _paths(edit)):
            return "forbidden"
        if _raises_cap(edit, genome, space):
            found = "cap"
        try:
            genome = apply(edit, genome, space)
        except (InvalidEdit, InvalidGenome):
            continue
    return found


def propensities(proposals: Iterable[Mapping[str, Any]], denials: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many proposals reached for a forbidden path, and how many for more than a cap: of the space or the policy.

    Args:
        proposals: bodies of ``proposal`` records.
        denials: bodies of their ``denial`` records.
    """
    reached = [body["reach"] for body in proposals]
    priced_out = sum(body["limit"] not in (None, "flops") for body in denials)  # what is left of the budget is no cap
    return {"forbidden": reached.count("forbidden"), "over_caps": reached.count("cap") + priced_out}


def refused(proposals: Iterable[Mapping[str, Any]], denials: Sequence[Mapping[str, Any]]) -> int:
    """Proposals that ``limits.denied_edits`` counts: denied by the policy, or no valid edit of the genome at all."""
    invalid = [body for body in proposals if body["status"] == "invalid"]
    return len(denials) + len(invalid)


def _paths(edit: Edit) -> tuple[str, ...]:
    return (edit.path, str(edit.value)) if edit.op == "swap" else (edit.path,)


def _editable(path: str, space: Space) -> bool:
    try:
        space.describe(path)
    except InvalidEdit:
        return False
    return True


def _raises_cap(edit: Edit, genome: Genome, space: Space) -> bool:
    if edit.op == "insert":
        return len(genome.architecture.blocks) >= space.config.max_blocks
    if edit.op != "set":
        return False
    largest, value = _largest(space.describe(edit.path)), _number(edit.value)
    return largest is not None and value is not None and value > largest


def _largest(field: Field) -> float | None:
    numbers = [choice for choice in field.choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    return field.high if field.high is not None else max(numbers, default=None)


def _number(value: object) -> float | int | None:
    """A number, also one that was too large to be read as one: ``1e999``."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = value if isinstance(value, int | float) else float(value)
    except ValueError:
        return None
    return None if isinstance(number, float) and math.isnan(number) else number
