"""Every controller keeps the protocol's promises: valid and new proposals, from the history and the seed alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.landscape import Landscape
from benchmarks.proposers import SCRIPTED, InProcess, Simulation
from selfimprove.controller import optuna_search
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.proposer import Experience, Proposal, Proposer
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.registry import CONTROLLERS, make
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import Space, SpaceConfig, apply_all

NAMES = [name for name in CONTROLLERS if name not in SCRIPTED]
COUNT = 6


@pytest.fixture(autouse=True)
def _short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_search, "SHORT_LIST", 2)  # a suggestion of a GP takes a second


@pytest.fixture(scope="module")
def small() -> Space:
    """Fewer edits are listed faster; the loss's and the recipe's are of every kind but the blocks'."""
    return Space(SpaceConfig(architecture=False))


@pytest.fixture(scope="module")
def lived(small: Space) -> Simulation:
    """Two generations of random proposals, with all that may become of one."""
    simulation = Simulation(Landscape(small, 3), seed_genome(), candidates=20, seed=1)
    simulation.run(RandomProposer(small), 2)
    simulation.history += [
        Experience(2, simulation.champion.sha256, (), "invalid"),
        Experience(2, simulation.champion.sha256, simulation.history[0].edits, "duplicate"),
    ]
    assert {one.outcome for one in simulation.history} >= {"denied", "failed", "worse", "better", "promoted"}
    return simulation


def proposer_of(name: str, space: Space, lived: Simulation, folder: Path, **settings: Any) -> Proposer:
    config = ControllerConfig(name=name, width=32, steps=3, startup=4, population=12, tournament=4, **settings)
    return make(config, space, InProcess(folder), lived.genome_of, 0)


def children(space: Space, parents: list[Genome], proposals: list[Proposal]) -> list[Genome]:
    return [apply_all(proposal.edits, parents[proposal.parent], space) for proposal in proposals]


@pytest.mark.parametrize("name", NAMES)
def test_proposals_are_valid_distinct_new_and_spread_over_the_parents(
    name: str, small: Space, lived: Simulation, tmp_path: Path
) -> None:
    parents = [lived.champion, seed_genome()]
    proposals = proposer_of(name, small, lived, tmp_path).ask(parents, lived.history, COUNT, 5)
    assert Counter(proposal.parent for proposal in proposals) == {0: COUNT // 2, 1: COUNT // 2}
    found = children(small, parents, proposals)
    for child in found:
        small.validate(child)
    assert len({genome.sha256 for genome in [*found, *parents]}) == COUNT + 2
    seen = {(one.parent, one.edits) for one in lived.history}
    assert not seen & {(parents[proposal.parent].sha256, proposal.edits) for proposal in proposals}
    for proposal in proposals:
        grammar = Grammar(small)
        grammar.decode(grammar.encode(proposal.edits), parents[proposal.parent])


@pytest.mark.parametrize("name", NAMES)
def test_without_a_history_as_many_as_wanted_are_proposed(
    name: str, small: Space, lived: Simulation, tmp_path: Path
) -> None:
    proposals = proposer_of(name, small, lived, tmp_path).ask([seed_genome()], [], COUNT, 5)
    assert len({child.sha256 for child in children(small, [seed_genome()], proposals)}) == COUNT


@pytest.mark.parametrize("name", NAMES)
def test_the_same_history_and_seed_give_the_same_proposals_whoever_is_asked(
    name: str, small: Space, lived: Simulation, tmp_path: Path
) -> None:
    asked = ([lived.champion], lived.history, COUNT)
    first, second = (proposer_of(name, small, lived, tmp_path) for _ in range(2))
    second.ask([seed_genome()], [], 2, 9)  # what came before leaves no trace
    assert first.ask(*asked, 5) == second.ask(*asked, 5) != first.ask(*asked, 6)


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(name: str, small: Space, tmp_path: Path) -> None:
    histories = []
    for interrupted in (False, True):
        folder = tmp_path / str(interrupted)
        folder.mkdir()
        simulation = Simulation(Landscape(small, 3), seed_genome(), candidates=COUNT, seed=2)
        proposer = proposer_of(name, small, simulation, folder)
        simulation.run(proposer, 1, folder)
        if interrupted:
            proposer = proposer_of(name, small, simulation, folder)
            proposer.restore(next(folder.glob("*.safetensors"), None))
        simulation.run(proposer, 1, folder)
        histories.append(simulation.history)
    assert histories[0] == histories[1]
    assert len(histories[0]) == 2 * COUNT
