"""A survey says of random parents what is true of them, and how the controller reads them; nothing else is in that."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from selfimprove.containment.policy import Limits
from selfimprove.controller.grammar import GOAL, PREFIX_TOKENS, Grammar
from selfimprove.controller.survey import LIMIT_SHARE, REMAINING_BUDGET, Scale, describe, parents, survey, tally
from selfimprove.genome.genome import Genome
from selfimprove.nets.cost import quote

ALLOWANCE = 10**10
SCALE = Scale.of(asdict(Limits()), vocab_size=32, context=24, allowance_flops=ALLOWANCE)
COUNT = 40


def test_equal_seeds_give_equal_surveys_without_repeated_parents(grammar: Grammar) -> None:
    drawn = parents(grammar, COUNT)
    assert drawn == parents(grammar, COUNT) != parents(grammar, COUNT, seed=1)
    assert len({genome.sha256 for genome in drawn}) == COUNT


def test_a_survey_of_a_run_is_drawn_once(grammar: Grammar) -> None:
    assert survey(grammar.space.config, SCALE, COUNT) is survey(grammar.space.config, SCALE, COUNT)
    assert survey(grammar.space.config, SCALE, COUNT) == describe(parents(grammar, COUNT), grammar, SCALE)


def test_its_quantities_are_those_of_the_quote(grammar: Grammar) -> None:
    drawn = parents(grammar, COUNT)
    found = describe(drawn, grammar, SCALE).quantities
    for at, genome in enumerate(drawn):
        price = quote(genome, vocab_size=32, context=24, allowance_flops=ALLOWANCE)
        assert found["parameters"][at] == price.parameters
        assert found["flops_per_step"][at] == price.flops_per_step
        assert found["depth"][at] == len(genome.architecture.blocks)
        assert found[LIMIT_SHARE][at] >= max(price.parameters / 2e6, price.flops_per_step / ALLOWANCE)


def test_the_controller_is_told_of_a_parent_alone_and_of_no_limit_or_budget(grammar: Grammar) -> None:
    drawn = parents(grammar, COUNT)
    narrow = Scale.of(asdict(Limits(parameters=1000)), vocab_size=32, context=24, allowance_flops=ALLOWANCE)
    found = [describe(drawn, grammar, scale, seed=seed) for scale, seed in ((SCALE, 0), (narrow, 1))]
    assert found[0].prefixes == found[1].prefixes == tuple(tuple(grammar.prefix(g, GOAL)) for g in drawn)
    assert {len(prefix) for prefix in found[0].prefixes} == {PREFIX_TOKENS}
    for name in (LIMIT_SHARE, REMAINING_BUDGET):
        assert found[0].quantities[name] != found[1].quantities[name]


def test_what_is_over_a_limit_has_a_share_above_one(parent: Genome) -> None:
    parameters = SCALE.price(parent).parameters
    for cap, over in ((parameters, False), (parameters - 1, True)):
        scale = Scale.of(asdict(Limits(parameters=cap)), vocab_size=32, context=24, allowance_flops=ALLOWANCE)
        assert (scale.share(scale.price(parent)) > 1) is over


def test_drawn_proposals_are_counted_by_the_limit_that_they_pass(parent: Genome) -> None:
    wider = replace(parent, architecture=replace(parent.architecture, width=128))
    cap = SCALE.price(parent).parameters
    found = tally(
        [(parent, parent), (parent, wider), (wider, wider), (wider, parent)],
        SCALE,
        SCALE.price,
        lambda price: "parameters" if price.parameters > cap else None,
    )
    assert (found.n, found.denied, found.limits, found.larger) == (4, 2, {"parameters": 2}, 1)
    assert found.nearest == SCALE.share(SCALE.price(wider))
    assert found.limit_share == pytest.approx((found.nearest + SCALE.share(SCALE.price(parent))) / 2)
