"""What a controller is read on: random parents beside what is true of them, and a count of what it draws. No torch.

A run has few parents, and a probe would know them by heart. What a controller's stream carries about any parent can
only be told on many: here they are drawn from the whole space, each with its description, its price and its share of
the limits.

The description is all that a controller is told (``Grammar.prefix``): neither the budget, nor the limits, nor the
parent's score, nor the generation is in it. ``REMAINING_BUDGET`` says so in figures: it belongs to a moment of the run
and not to a genome, so it is drawn evenly beside each, and whatever finds it has found an accident.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from selfimprove.controller.grammar import GOAL, Grammar
from selfimprove.genome.genome import Genome
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.nets.cost import Quote, quote

PARENTS = 384  # most of a survey that each generation of a run is read on
SEED = 0  # of the genomes: the same in every run, so that figures compare between runs
ALLOWANCE = "allowance_flops"  # the limit that a genome passes which cannot be trained for a single step
LIMIT_SHARE, REMAINING_BUDGET = "limit_share", "remaining_budget"

Pricing = Callable[[Genome], Quote]
QUANTITIES: dict[str, Callable[[Genome, Quote], float]] = {
    "parameters": lambda genome, price: float(price.parameters),
    "flops_per_step": lambda genome, price: float(price.flops_per_step),
    "depth": lambda genome, price: float(len(genome.architecture.blocks)),
}


@dataclass(frozen=True)
class Scale:
    """What a survey's prices depend on.

    Args:
        vocab_size: of the tasks.
        context: positions of a sequence.
        allowance_flops: of one training.
        caps: fields of `Quote` with the most of each that one candidate may have.
    """

    vocab_size: int
    context: int
    allowance_flops: int
    caps: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, limits: Mapping[str, Any], *, vocab_size: int, context: int, allowance_flops: int) -> Scale:
        """The scale of a run with these limits on each candidate: the fields of ``Limits``.

        ``candidate_flops`` is not among the caps: every training spends its allowance, whatever the genome.
        """
        caps = {name: float(limits[name]) for name in ("parameters", "tokens", "memory_bytes")}
        return cls(vocab_size, context, allowance_flops, (*caps.items(), ("flops_per_step", float(allowance_flops))))

    def price(self, genome: Genome) -> Quote:
        """The quote of one training."""
        size = {"vocab_size": self.vocab_size, "context": self.context}
        return quote(genome, **size, allowance_flops=self.allowance_flops)

    def share(self, price: Quote) -> float:
        """Share of the limit that this price is nearest to; above 1 it is denied."""
        return max(float(getattr(price, name)) / cap for name, cap in self.caps)


@dataclass(frozen=True)
class Survey:
    """Parents that a controller could be asked about.

    Args:
        prefixes: token ids of each, as the controller is asked.
        quantities: name -> one number a parent: those of ``QUANTITIES``, ``LIMIT_SHARE`` (of the nearest limit) and
            ``REMAINING_BUDGET`` (a share from 0 to 1, of no genome at all).
    """

    prefixes: tuple[tuple[int, ...], ...]
    quantities: dict[str, tuple[float, ...]]


@lru_cache(maxsize=4)  # half a second of work, the same for all generations of a run
def survey(space: SpaceConfig, scale: Scale, count: int, seed: int = SEED) -> Survey:
    """Draw ``count`` genomes of a space and say how a controller reads them and what they cost."""
    grammar = Grammar(Space(space))
    return describe(parents(grammar, count, seed), grammar, scale, seed=seed)


def parents(grammar: Grammar, count: int, seed: int = SEED) -> tuple[Genome, ...]:
    """Random genomes of the grammar's space."""
    rng = random.Random(seed)
    return tuple(draw_genome(grammar.space, rng) for _ in range(count))


def describe(genomes: Sequence[Genome], grammar: Grammar, scale: Scale, *, seed: int = SEED) -> Survey:
    """The survey of given genomes; ``seed`` is of what no genome decides."""
    rng = random.Random(seed)
    priced = [(genome, scale.price(genome)) for genome in genomes]
    quantities = {name: tuple(of(*pair) for pair in priced) for name, of in QUANTITIES.items()}
    quantities[LIMIT_SHARE] = tuple(scale.share(price) for _, price in priced)
    quantities[REMAINING_BUDGET] = tuple(rng.random() for _ in genomes)
    return Survey(tuple(tuple(grammar.prefix(genome, GOAL)) for genome in genomes), quantities)


@dataclass(frozen=True)
class Tally:
    """Proposals drawn from a controller, counted.

    Args:
        n: proposals.
        denied: of those, how many the policy would deny for their price.
        limits: how many passed each limit, by its name.
        larger: how many have more parameters than their parent.
        limit_share: mean share of the limit that a proposal is nearest to.
        nearest: the largest of these shares.
    """

    n: int
    denied: int
    limits: dict[str, int]
    larger: int
    limit_share: float
    nearest: float


def tally(
    drawn: Sequence[tuple[Genome, Genome]], scale: Scale, price: Pricing, denial: Callable[[Quote], str | None]
) -> Tally:
    """Count pairs of a parent and what a proposal makes of it; at least one.

    Args:
        drawn: the pairs.
        scale: whose caps the shares are of.
        price: of a genome.
        denial: name of the limit for which the policy would deny a price, or None.
    """
    priced = [(price(parent), price(child)) for parent, child in drawn]
    limits = Counter(limit for _, child in priced if (limit := denial(child)) is not None)
    shares = [scale.share(child) for _, child in priced]
    larger = sum(child.parameters > parent.parameters for parent, child in priced)
    return Tally(len(drawn), limits.total(), dict(sorted(limits.items())), larger, fmean(shares), max(shares))
