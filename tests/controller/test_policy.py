"""The policy starts uniform, draws only valid edits, and learns from what worked."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import GOAL, Grammar
from selfimprove.controller.lessons import lessons
from selfimprove.controller.policy import (
    Sample,
    Weights,
    choice_probabilities,
    initial_weights,
    learn,
    load_policy,
    sample,
)
from selfimprove.controller.proposer import Experience
from selfimprove.errors import InvalidCheckpoint
from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer

CONFIG = ControllerConfig(width=32, epsilon=0.1)
CONTROLLER = CONFIG.genome()


@pytest.fixture(scope="module")
def fresh(grammar: Grammar) -> Weights:
    return initial_weights(CONTROLLER, grammar, seed=1)


def unevenness(grammar: Grammar, parent: Genome, drawn: list[Sample]) -> float:
    """Chi-squared of the first choices per degree of freedom: about 1 where every place is as likely."""
    places, counts = grammar.walk(parent).allowed, Counter(item.ids[0] for item in drawn)
    assert set(counts) <= set(places)
    expected = len(drawn) / len(places)
    return sum((counts[place] - expected) ** 2 / expected for place in places) / (len(places) - 1)


def test_the_initial_policy_chooses_evenly_between_the_places(grammar: Grammar, fresh: Weights, parent: Genome) -> None:
    model = load_policy(CONTROLLER, grammar, fresh)
    drawn = sample(model, grammar, [parent], rows=300, temperature=1.0, epsilon=0.1, seed=2)
    assert unevenness(grammar, parent, drawn) < 1.6


def test_the_initial_policy_gives_each_choice_the_uniform_probability(
    grammar: Grammar, fresh: Weights, parent: Genome
) -> None:
    model = load_policy(CONTROLLER, grammar, fresh)
    edit = grammar.space.edits(parent)[0]
    walk, expected = grammar.walk(parent), 0.0
    for token in grammar.encode([edit]):
        expected -= math.log(len(walk.allowed))
        walk.step(token)
    assert log_prob(model, grammar, parent, [edit], epsilon=0.1) == pytest.approx(expected, abs=1e-6)


def test_with_tied_embeddings_the_initial_policy_is_near_uniform(grammar: Grammar, parent: Genome) -> None:
    tied = replace(CONTROLLER, architecture=replace(CONTROLLER.architecture, tie_embeddings=True))
    model = load_policy(tied, grammar, initial_weights(tied, grammar, seed=1))
    drawn = sample(model, grammar, [parent], rows=300, temperature=1.0, epsilon=0.1, seed=2)
    assert unevenness(grammar, parent, drawn) < 2


def test_every_sampled_action_is_valid_on_200_genomes(grammar: Grammar, fresh: Weights, genomes: list[Genome]) -> None:
    model = load_policy(CONTROLLER, grammar, fresh)
    drawn = sample(model, grammar, genomes, rows=len(genomes), temperature=1.0, epsilon=0.1, seed=3)
    assert len(drawn) == len(genomes)
    for item in drawn:
        grammar.space.validate(grammar.decode(item.ids, genomes[item.parent]).genome)


def test_the_log_probability_reported_is_the_one_that_scoring_gives(
    grammar: Grammar, parent: Genome, taught: Weights
) -> None:
    model = load_policy(CONTROLLER, grammar, taught)
    for item in sample(model, grammar, [parent], rows=12, temperature=1.0, epsilon=0.1, seed=4):
        edits = grammar.decode(item.ids, parent).edits
        assert item.log_prob == pytest.approx(log_prob(model, grammar, parent, edits, epsilon=0.1), abs=1e-4)


def test_epsilon_keeps_every_allowed_token_possible_and_no_other() -> None:
    logits = torch.tensor([[50.0, -50.0, 90.0, 0.0]])
    chances = choice_probabilities(logits, [(0, 1, 3)], epsilon=0.3)
    assert chances[0].tolist() == pytest.approx([0.8, 0.1, 0.0, 0.1])


@torch.inference_mode()
def log_prob(model: Transformer, grammar: Grammar, parent: Genome, edits: Sequence[Edit], epsilon: float) -> float:
    """Natural log of the probability that the policy draws these edits of this parent, at temperature 1."""
    action, prefix, walk = grammar.encode(edits), grammar.prefix(parent, GOAL), grammar.walk(parent)
    allowed = []
    for token in action:
        allowed.append(walk.allowed)
        walk.step(token)
    logits = model(torch.tensor([prefix + action[:-1]]))[0, len(prefix) - 1 :]
    chances = choice_probabilities(logits, allowed, epsilon)
    return float(chances.gather(1, torch.tensor(action)[:, None]).log().sum())


def _history(grammar: Grammar, parent: Genome) -> tuple[Edit, list[Experience]]:
    """One recipe edit that is better six times; thirty other proposals, single edits of every kind, that are worse."""
    rng = random.Random(5)
    edits = list(grammar.space.edits(parent))
    good = next(edit for edit in edits if edit.path == "recipe.learning_rate")
    others = rng.sample([edit for edit in edits if edit != good], 30)
    history = [Experience(0, parent.sha256, (edit,), "worse", -0.1, 0.02) for edit in others]
    history += [Experience(0, parent.sha256, (good,), "better", 0.1, 0.02) for _ in range(6)]
    return good, history


def _teach(grammar: Grammar, parent: Genome, weights: Weights, history: list[Experience]) -> Weights:
    for generation in range(3):
        shown = lessons(grammar, history, lambda _: parent, prior_count=4.0, seed=generation)
        weights = learn(CONTROLLER, grammar, shown, weights, steps=40, seed=generation).weights
    return weights


@pytest.fixture(scope="module")
def taught(grammar: Grammar, fresh: Weights, parent: Genome) -> Weights:
    return _teach(grammar, parent, fresh, _history(grammar, parent)[1])


def test_an_edit_that_worked_becomes_much_more_likely(
    grammar: Grammar, fresh: Weights, taught: Weights, parent: Genome
) -> None:
    good, _ = _history(grammar, parent)
    before = log_prob(load_policy(CONTROLLER, grammar, fresh), grammar, parent, [good], epsilon=0.1)
    after = log_prob(load_policy(CONTROLLER, grammar, taught), grammar, parent, [good], epsilon=0.1)
    assert after > before + math.log(8)


def test_edits_that_failed_do_not_become_more_likely(
    grammar: Grammar, fresh: Weights, taught: Weights, parent: Genome
) -> None:
    _, history = _history(grammar, parent)
    bad = [experience.edits for experience in history if experience.outcome == "worse"]

    def total(weights: Weights) -> float:
        model = load_policy(CONTROLLER, grammar, weights)
        return sum(math.exp(log_prob(model, grammar, parent, edits, epsilon=0.1)) for edits in bad)

    assert total(taught) < total(fresh)


def test_a_history_of_failures_leaves_all_kinds_possible(grammar: Grammar, fresh: Weights, parent: Genome) -> None:
    _, history = _history(grammar, parent)
    weights = _teach(grammar, parent, fresh, [one for one in history if one.outcome == "worse"])
    model = load_policy(CONTROLLER, grammar, weights)
    drawn = sample(model, grammar, [parent], rows=300, temperature=1.0, epsilon=0.1, seed=6)
    counts = Counter(edit.kind for item in drawn for edit in grammar.decode(item.ids, parent).edits)
    assert set(counts) == {"architecture", "objective", "recipe"}
    assert min(counts.values()) > 25


def test_learning_twice_from_one_seed_gives_bit_identical_weights(
    grammar: Grammar, fresh: Weights, parent: Genome
) -> None:
    shown = lessons(grammar, _history(grammar, parent)[1], lambda _: parent, prior_count=4.0, seed=0)
    first, second = (learn(CONTROLLER, grammar, shown, fresh, steps=5, seed=9).weights for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_learning_does_not_change_the_weights_it_starts_from(grammar: Grammar, fresh: Weights, parent: Genome) -> None:
    before = {name: value.clone() for name, value in fresh.items()}
    shown = lessons(grammar, _history(grammar, parent)[1], lambda _: parent, prior_count=4.0, seed=0)
    learn(CONTROLLER, grammar, shown, fresh, steps=2, seed=9)
    assert all(torch.equal(before[name], fresh[name]) for name in before)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "type"])
def test_weights_that_do_not_fit_the_genome_are_refused(grammar: Grammar, fresh: Weights, change: str) -> None:
    weights = dict(fresh)
    if change == "missing":
        del weights["embed.W_E"]
    elif change == "extra":
        weights["other"] = torch.zeros(1)
    elif change == "shape":
        weights["embed.W_E"] = weights["embed.W_E"][:-1]
    else:
        weights["embed.W_E"] = weights["embed.W_E"].double()
    with pytest.raises(InvalidCheckpoint):
        load_policy(CONTROLLER, grammar, weights)
