"""The random baseline is what the learned controller starts as, valid, and does not repeat itself."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar, Node
from selfimprove.controller.proposer import Experience, Proposal, Update
from selfimprove.controller.random_search import RandomProposer, draw_edits
from selfimprove.controller.registry import CONTROLLERS, make
from selfimprove.errors import ConfigError, InvalidEdit
from selfimprove.genome.edits import Edit, apply, parse_edit
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import Space, SpaceConfig


def _chance(grammar: Grammar, parent: Genome, edits: Sequence[Edit]) -> float:
    """Probability of a proposal where each token is drawn evenly from those that are allowed."""
    walk, chance = grammar.walk(parent), 1.0
    for token in grammar.encode(edits):
        chance /= len(walk.allowed)
        walk.step(token)
    return chance


def test_proposals_are_drawn_as_the_untrained_controller_draws_them(parent: Genome) -> None:
    grammar, rng, draws = Grammar(Space(SpaceConfig(max_edits=1))), random.Random(1), 4000
    options = grammar.space.edits(parent)
    expected: Counter[str] = Counter()
    for edit in options:
        expected[_group(edit)] += draws * _chance(grammar, parent, [edit])
    counts = Counter(_group(draw_edits(grammar, parent, rng)[0][0]) for _ in range(draws))
    assert sum(expected.values()) == pytest.approx(draws)
    assert set(counts) <= set(expected)
    statistic = sum((counts[group] - amount) ** 2 / amount for group, amount in expected.items())
    freedom = len(expected) - 1
    assert freedom > 20
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def _group(edit: Edit) -> str:
    """Field of an edit; what is done to the loss counts as one, by its operation."""
    return f"objective {edit.op}" if edit.kind == "objective" else edit.path


def test_a_genome_without_edits_is_refused_at_once(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Grammar(space)
    monkeypatch.setattr(closed, "trie", lambda *_: Node())
    with pytest.raises(InvalidEdit, match="draw edits"):
        draw_edits(closed, seed_genome(), random.Random(0))


def test_the_number_of_edits_is_geometric_up_to_the_bound(parent: Genome) -> None:
    grammar, rng, draws = Grammar(Space(SpaceConfig(objective=False))), random.Random(3), 800
    counts = Counter(len(draw_edits(grammar, parent, rng)[0]) for _ in range(draws))
    assert set(counts) == set(range(1, grammar.max_edits + 1))
    assert counts[1] / draws == pytest.approx(0.5, abs=0.06)
    assert counts[2] / draws == pytest.approx(0.25, abs=0.06)


def test_every_proposal_is_valid_on_200_genomes(space: Space, genomes: list[Genome]) -> None:
    for proposal in RandomProposer(space).ask(genomes, [], len(genomes), seed=4):
        genome = genomes[proposal.parent]
        for edit in proposal.edits:
            genome = apply(edit, genome, space)
        space.validate(genome)


def test_no_two_proposals_of_one_ask_lead_to_the_same_genome(space: Space, parent: Genome) -> None:
    proposals = RandomProposer(space).ask([parent], [], 100, seed=5)
    assert len({_child(space, parent, proposal) for proposal in proposals}) == 100


def test_what_the_history_holds_is_not_proposed_again(space: Space, parent: Genome) -> None:
    proposer = RandomProposer(space)
    first = proposer.ask([parent], [], 40, seed=6)
    history = [Experience(0, parent.sha256, proposal.edits, "worse") for proposal in first]
    again = proposer.ask([parent], history, 40, seed=6)
    assert not {proposal.edits for proposal in first} & {proposal.edits for proposal in again}


def test_what_leads_to_a_genome_that_the_history_holds_is_not_proposed_again(space: Space, parent: Genome) -> None:
    """The same two edits in another order, or of another parent, are another proposal and no other genome."""
    proposer = RandomProposer(space)
    first = proposer.ask([parent], [], 40, seed=6)
    children = [_child(space, parent, proposal) for proposal in first]
    history = [Experience(0, "another", (), "worse", child=child) for child in children]
    again = proposer.ask([parent], history, 40, seed=6)
    assert not {_child(space, parent, proposal) for proposal in again} & set(children)


def test_a_history_read_back_from_text_is_recognized(space: Space, parent: Genome) -> None:
    proposer = RandomProposer(space)
    first = proposer.ask([parent], [], 40, seed=6)
    texts = [[str(edit) for edit in proposal.edits] for proposal in first]
    history = [Experience(0, parent.sha256, tuple(map(parse_edit, text)), "worse") for text in texts]
    again = proposer.ask([parent], history, 40, seed=6)
    assert not {proposal.edits for proposal in first} & {proposal.edits for proposal in again}


def test_the_same_seed_gives_the_same_proposals(space: Space, parent: Genome) -> None:
    proposer = RandomProposer(space)
    assert proposer.ask([parent], [], 10, seed=8) == proposer.ask([parent], [], 10, seed=8)
    assert proposer.ask([parent], [], 10, seed=8) != proposer.ask([parent], [], 10, seed=9)


def test_proposals_are_spread_evenly_over_the_parents(space: Space, genomes: list[Genome]) -> None:
    proposals = RandomProposer(space).ask(genomes[:3], [], 9, seed=10)
    assert Counter(proposal.parent for proposal in proposals) == {0: 3, 1: 3, 2: 3}


def test_telling_costs_nothing(space: Space) -> None:
    assert RandomProposer(space).tell([], seed=0) == Update(flops=0)


def test_an_unknown_controller_is_refused_with_the_known_ones(space: Space) -> None:
    with pytest.raises(ConfigError, match="transformer, random"):
        make(ControllerConfig(name="tranformer"), space, _unused, _unused, 0)


def test_every_registered_controller_can_be_made(space: Space) -> None:
    for name in CONTROLLERS:
        make(ControllerConfig(name=name), space, _unused, _unused, 0).restore(None)


@pytest.mark.parametrize(
    ("field", "value"), [("steps", 0), ("epsilon", 0.0), ("temperature", float("nan")), ("width", 33), ("batch", 3)]
)
def test_a_setting_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"controller.{field}"):
        replace(ControllerConfig(), **{field: value})  # type: ignore[arg-type]


def _unused(*_: object) -> Any:
    raise AssertionError("making a controller runs nothing")


def _child(space: Space, parent: Genome, proposal: Proposal) -> str:
    for edit in proposal.edits:
        parent = apply(edit, parent, space)
    return parent.sha256
