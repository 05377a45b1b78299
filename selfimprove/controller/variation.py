"""Edits of one parent tried on another, and changed a little: for evolution, local search and the market. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from selfimprove.controller.grammar import Grammar, edits_after
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import Edit, apply
from selfimprove.genome.genome import Genome

Variant = tuple[tuple[Edit, ...], Genome]
"""Edits, and the genome that they make of a parent."""


def replayed(grammar: Grammar, parent: Genome, edits: Sequence[Edit]) -> Variant:
    """As many of the edits as the grammar allows on ``parent``, in order, and no more than a proposal may have.

    What the parent has already, and what has lost its place, is left out.
    """
    genome, kept = parent, ()  # type: Genome, tuple[Edit, ...]
    for edit in edits:
        if len(kept) < grammar.max_edits and edit in edits_after(grammar.space, genome, kept):
            genome, kept = apply(edit, genome, grammar.space), (*kept, edit)
    return kept, genome


def extended(grammar: Grammar, parent: Genome, edits: Sequence[Edit], rng: random.Random) -> Variant:
    """One more edit after those given, each token drawn evenly from those that the grammar allows.

    Args:
        edits: fewer than a proposal may have, and valid on ``parent``.

    Raises:
        InvalidEdit: nothing can follow them.
    """
    walk = grammar.walk(parent)
    for token in [*grammar.encode(edits)[:-1], grammar.also] if edits else []:
        walk.step(token)
    while options := [token for token in walk.allowed if token != grammar.also]:
        walk.step(rng.choice(options))
    if not walk.finished:
        raise InvalidEdit("add an edit", [str(edit) for edit in edits], "a genome that the space has edits of")
    return walk.edits, walk.genome


def mutated(grammar: Grammar, parent: Genome, edits: Sequence[Edit], rng: random.Random) -> Variant:
    """One mutation of edits that are replayed on ``parent``: one more, or where there is no room, one for another."""
    kept, _ = replayed(grammar, parent, edits)
    if len(kept) == grammar.max_edits:
        dropped = rng.randrange(len(kept))
        kept, _ = replayed(grammar, parent, (*kept[:dropped], *kept[dropped + 1 :]))
    return extended(grammar, parent, kept, rng)
