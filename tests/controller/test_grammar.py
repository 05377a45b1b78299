"""The language of edits spells every edit and accepts nothing else."""

from __future__ import annotations

import random

import pytest

from selfimprove.controller.grammar import DESCRIBED, GOAL, LABELS, PREFIX_TOKENS, Grammar
from selfimprove.controller.random_search import draw_edits
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import apply
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, SpaceConfig


def test_every_edit_of_a_genome_is_one_path_through_its_trie(grammar: Grammar, parent: Genome) -> None:
    edits = grammar.space.edits(parent)
    decoded = [grammar.decode(grammar.encode([edit]), parent).edits for edit in edits]
    assert decoded == [(edit,) for edit in edits]


def test_sequences_of_random_edits_survive_encoding_and_decoding(grammar: Grammar, genomes: list[Genome]) -> None:
    rng = random.Random(3)
    for genome in genomes:
        edits, child = draw_edits(grammar, genome, rng)
        walk = grammar.decode(grammar.encode(edits), genome)
        assert walk.edits == edits
        assert walk.genome == child


def test_decoding_leads_to_the_genome_that_applying_the_edits_gives(grammar: Grammar, parent: Genome) -> None:
    edits, _ = draw_edits(grammar, parent, random.Random(11))
    genome = parent
    for edit in edits:
        genome = apply(edit, genome, grammar.space)
    assert grammar.decode(grammar.encode(edits), parent).genome == genome


def test_every_sequence_fits_the_context(grammar: Grammar, genomes: list[Genome]) -> None:
    rng = random.Random(5)
    for genome in genomes:
        edits, _ = draw_edits(grammar, genome, rng)
        assert len(grammar.prefix(genome, GOAL)) + len(grammar.encode(edits)) <= grammar.context


def test_the_first_choice_is_between_the_places_that_can_be_edited(grammar: Grammar, parent: Genome) -> None:
    """All at once: what stands deep in the genome, as a block's convolution does, is as near as its width."""
    offered = {grammar.tokens[token] for token in grammar.walk(parent).allowed}
    paths = {edit.path for edit in grammar.space.edits(parent)}
    assert {path for path in paths if not path.startswith("objective")} <= offered
    assert {place.split(".")[0] for place in offered} == {"architecture", "objective", "recipe", "args"}


def test_a_switched_off_kind_is_never_allowed(parent: Genome) -> None:
    grammar = Grammar(Space(SpaceConfig(architecture=False, recipe=False)))
    offered = {grammar.tokens[token] for token in grammar.walk(parent).allowed}
    assert offered
    assert all(place.startswith(("objective", "args")) for place in offered)


def test_no_more_edits_are_allowed_than_the_space_says(parent: Genome) -> None:
    grammar = Grammar(Space(SpaceConfig(max_edits=1)))
    walk = grammar.walk(parent)
    for token in grammar.encode([grammar.space.edits(parent)[0]])[:-1]:
        walk.step(token)
    assert grammar.eos in walk.allowed
    assert grammar.also not in walk.allowed


def test_a_choice_is_not_set_twice_in_one_proposal(grammar: Grammar, parent: Genome) -> None:
    edit = next(edit for edit in grammar.space.edits(parent) if edit.op == "set")
    child = apply(edit, parent, grammar.space)
    back = next(other for other in grammar.space.edits(child) if other.op == "set" and other.path == edit.path)
    with pytest.raises(InvalidEdit):
        grammar.decode(grammar.encode([edit, back]), parent)


def test_the_prefix_has_one_length_for_every_genome_and_outcome(grammar: Grammar, genomes: list[Genome]) -> None:
    lengths = {len(grammar.prefix(genome, label)) for genome in genomes for label in LABELS}
    assert lengths == {PREFIX_TOKENS}


def test_the_prefix_describes_the_parent(grammar: Grammar, genomes: list[Genome]) -> None:
    described = {genome: tuple(grammar.prefix(genome, GOAL)) for genome in genomes}
    slots = [set(column) for column in list(zip(*described.values(), strict=True))[2:]]
    assert [path for path, values in zip(DESCRIBED, slots, strict=True) if len(values) < 2] == []


@pytest.mark.parametrize(
    "ids",
    [
        [],
        [-1],
        [10**9],
        [True],
        [2.0],
        ["<eos>"],
        [None],
        [[0]],
        [2],
        [0] * 10_000,
    ],
)
def test_decoding_refuses_what_is_no_path(grammar: Grammar, parent: Genome, ids: list[int]) -> None:
    with pytest.raises(InvalidEdit):
        grammar.decode(ids, parent)


def test_decoding_refuses_a_truncated_a_continued_and_a_corrupted_action(grammar: Grammar, parent: Genome) -> None:
    action = grammar.encode([grammar.space.edits(parent)[0]])
    for ids in (action[:-1], [*action, grammar.eos], [*action[:-1], grammar.pad], action[1:]):
        with pytest.raises(InvalidEdit):
            grammar.decode(ids, parent)


def test_an_edit_of_another_genome_is_refused(grammar: Grammar, parent: Genome) -> None:
    edit = grammar.space.edits(parent)[0]
    child = apply(edit, parent, grammar.space)
    with pytest.raises(InvalidEdit):
        grammar.decode(grammar.encode([edit]), child)
