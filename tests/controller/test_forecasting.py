"""The forecaster as a controller: genomes as rows, the price of an ask, and an answer that is not believed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.landscape import Landscape
from benchmarks.proposers import Simulation
from selfimprove.controller import experts
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.forecaster import load
from selfimprove.controller.forecaster_price import EXPERTS, NOISES
from selfimprove.controller.forecasting import ForecastProposer
from selfimprove.controller.genome_table import row_of, table
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.market import Market
from selfimprove.controller.proposer import ControlResult, Execute
from selfimprove.controller.random_search import RandomProposer
from selfimprove.errors import InvalidEdit
from selfimprove.genome.edits import parse_edit
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import Space, SpaceConfig, apply_all

SPACE = Space(SpaceConfig(architecture=False))


@pytest.fixture(scope="module")
def lived() -> Simulation:
    simulation = Simulation(Landscape(SPACE, 3), seed_genome(), candidates=30, seed=1)
    simulation.run(RandomProposer(SPACE), 2)
    return simulation


def proposer(lived: Simulation, execute: Execute) -> ForecastProposer:
    return ForecastProposer(ControllerConfig(name="forecaster"), SPACE, execute, lived.genome_of)


def edited(*edits: str) -> Genome:
    return apply_all([parse_edit(edit) for edit in edits], seed_genome(), Space(SpaceConfig()))


def test_what_has_no_effect_in_a_genome_is_not_in_its_row() -> None:
    block = seed_genome().architecture.blocks[0]
    wider = replace(
        seed_genome().architecture, blocks=(replace(block, window=2), *seed_genome().architecture.blocks[1:])
    )
    assert row_of(replace(seed_genome(), architecture=wider)) == row_of(seed_genome())


def test_numbers_are_places_on_their_grid_names_are_kinds_and_what_is_missing_is_nan() -> None:
    genomes = [seed_genome(), edited("recipe.learning_rate=0.03"), edited("recipe.optimizer=sgd")]
    points, ordered = table([row_of(genome) for genome in genomes])
    beta2, rate, optimizer = 0, 1, 2  # the only columns in which they differ, by name
    assert points.shape == (3, 3)
    assert ordered.tolist() == [True, True, False]
    assert np.isnan(points[:, beta2]).tolist() == [False, False, True]  # SGD has one beta
    assert points[:, rate].tolist() == pytest.approx([4 / 9, 1.0, 4 / 9])  # fifth and last of ten
    assert points[0, optimizer] == points[1, optimizer] != points[2, optimizer]


def test_the_loss_is_told_apart_by_what_it_holds() -> None:
    losses = [edit for edit in Space(SpaceConfig()).edits(seed_genome()) if edit.path.startswith("objective")]
    rows = [row_of(apply_all([edit], seed_genome(), Space(SpaceConfig()))) for edit in losses[:20]]
    points, _ = table(rows)
    assert len(np.unique(np.nan_to_num(points, nan=-1.0), axis=0)) == 20


def test_the_experts_are_as_many_as_are_paid_for() -> None:
    assert (len(experts.NAMES), len(experts.NOISES)) == (EXPERTS, NOISES)


def test_an_ask_costs_no_more_than_its_price_and_not_much_less(lived: Simulation) -> None:
    """torch's own count of products is the transformer's part: the experts are few trials' algebra here."""
    parents, wanted = [seed_genome()], 6
    asker = proposer(lived, refuse)
    tried = asker._tried(lived.history)
    with FlopCounterMode(display=False) as counter:
        Market(Grammar(SPACE), parents, tried, random.Random(0), load()).choose(wanted)
    counted, priced = counter.get_total_flops(), asker.price(tried, wanted).flops
    assert counted < priced < 3 * counted


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"proposals": [{"parent": 1, "ids": []}]}, "parent"),
        ({"proposals": [{"parent": 0, "ids": [-1]}]}, "-1"),
        ({"proposals": [{"parent": 0, "ids": []}] * 9}, "at most 5"),
        ({}, "proposals"),
    ],
)
def test_an_answer_that_is_no_proposal_is_refused(lived: Simulation, answer: dict[str, object], said: str) -> None:
    def lie(payload: object, inputs: object, outputs: object, /) -> ControlResult:
        return ControlResult(answer)

    with pytest.raises(InvalidEdit, match=said):
        proposer(lived, lie).ask([seed_genome()], lived.history, 6, 0)


def test_until_two_outcomes_differ_proposals_are_random_and_cost_nothing(lived: Simulation) -> None:
    asked = proposer(lived, refuse).ask([seed_genome()], [], 5, 3)
    assert len(asked) == 5


def refuse(payload: object, inputs: object, outputs: object, /) -> ControlResult:
    raise AssertionError("nothing was to be executed")
