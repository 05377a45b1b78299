"""How large the steps of a training are: batch and sequences may grow, by doubling, over its first half.

Growing batches: Smith et al. 2018, arXiv 1711.00489. Growing sequences: Li et al. 2022, arXiv 2108.06084.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, log2
from typing import Final

from selfimprove.genome.recipe import Recipe

GROWN: Final = Fraction(1, 2)  # part of the steps by whose end everything has its full size


@dataclass(frozen=True)
class Size:
    """What one step sees."""

    rows: int
    """Sequences."""
    length: int
    """Tokens of each, counted from its first."""

    @property
    def tokens(self) -> int:
        """Positions of one step."""
        return self.rows * self.length


@dataclass(frozen=True)
class Phase:
    """Steps of one size: from ``first`` to before ``last``."""

    first: int
    last: int
    size: Size

    @property
    def steps(self) -> int:
        """How many steps it has."""
        return self.last - self.first

    def overlap(self, first: int, last: int) -> int:
        """How many of its steps lie from ``first`` to before ``last``."""
        return max(0, min(last, self.last) - max(first, self.first))


def sizes(recipe: Recipe, context: int) -> dict[Fraction, Size]:
    """The sizes of a training in their order, by the part of its steps that is over when each begins.

    Neither rows nor length ever falls; two sizes in a row differ.
    """
    batch, length = _shares(recipe.first_batch), _shares(recipe.context_start)
    found: dict[Fraction, Size] = {}
    last: Size | None = None
    for begin in sorted({*batch, *length}):
        rows, part = (shares[max(at for at in shares if at <= begin)] for shares in (batch, length))
        size = Size(max(1, round(recipe.batch * rows)), max(1, round(context * recipe.context * part)))
        if size != last:
            found[begin] = last = size
    return found


def phases(recipe: Recipe, context: int, steps: int) -> tuple[Phase, ...]:
    """The steps of a training by their size, in order; phases without a step are left out."""
    planned = sizes(recipe, context)
    firsts = [ceil(begin * steps) for begin in planned]
    ends = zip(firsts, [*firsts[1:], steps], planned.values(), strict=True)
    return tuple(Phase(first, last, size) for first, last, size in ends if first < last)


@dataclass(frozen=True)
class PricedPhase(Phase):
    """A phase, and what one of its steps costs."""

    flops_per_step: int


def longest_plan(
    recipe: Recipe, context: int, price: Mapping[Size, int], allowance_flops: int
) -> tuple[PricedPhase, ...]:
    """The phases of the longest training that an allowance pays for; none if it does not pay for a step.

    The length is found by bisection: one more step always costs more. For it, each size begins at most one step later,
    and no size is cheaper than one before it, so that the total rises by the cost of a first step at least.

    Args:
        recipe: of the training.
        context: positions of a sequence.
        price: FLOPs of a step of each size; larger sizes cost more.
        allowance_flops: what all steps may cost.
    """

    def cost(steps: int) -> int:
        return sum(part.steps * price[part.size] for part in phases(recipe, context, steps))

    low, high = 0, max(allowance_flops, 0) // min(price.values())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= allowance_flops else (low, middle - 1)
    found = phases(recipe, context, low)
    return tuple(PricedPhase(part.first, part.last, part.size, price[part.size]) for part in found)


def _shares(start: float) -> dict[Fraction, float]:
    """Parts of the full size by when they begin: ``start`` doubles at equal intervals, and is 1 from ``GROWN`` on."""
    doublings = round(log2(1 / start))
    return {Fraction(0): start} | {GROWN * i / doublings: min(1.0, start * 2**i) for i in range(1, doublings + 1)}
