"""What each baseline makes of its history: better proposals than random ones, and what its method says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.landscape import Landscape
from benchmarks.proposers import InProcess, Simulation
from selfimprove.controller import optuna_search
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.local_search import PATIENCE
from selfimprove.controller.optuna_search import Menu
from selfimprove.controller.proposer import Experience, Price, Proposer, Update
from selfimprove.controller.random_search import RandomProposer
from selfimprove.controller.registry import make
from selfimprove.controller.reinforce import FrozenProposer, ReinforceProposer
from selfimprove.controller.variation import extended, mutated, replayed
from selfimprove.controller.worth import standings, worths
from selfimprove.genome.edits import Edit, apply, parse_edit
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import Space, SpaceConfig, apply_all

SEED = seed_genome()
RATE, OPTIMIZER, CLIP = map(parse_edit, ("recipe.learning_rate=0.002", "recipe.optimizer=lion", "recipe.clip=3"))
WARMUP, BATCH = map(parse_edit, ("recipe.warmup=0.1", "recipe.batch=32"))


@pytest.fixture(scope="module")
def recipes() -> Space:
    """The real space's recipe arm: its few edits are listed fast."""
    return Space(SpaceConfig(architecture=False, objective=False))


def experience(
    *edits: Edit, gain: float | None, outcome: str = "better", generation: int = 1, parent: Genome = SEED
) -> Experience:
    return Experience(generation, parent.sha256, edits, outcome, gain)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lived(recipes: Space) -> list[Simulation]:
    """Three landscapes on which a generation of random proposals was tried."""
    found = [
        Simulation(Landscape(recipes, seed), SEED, candidates=60, seed=seed, noise=0.005, kept=1.0) for seed in range(3)
    ]
    for simulation in found:
        simulation.run(RandomProposer(recipes), 1)
    return found


def quality(proposer: Proposer, simulation: Simulation) -> float:
    """Mean true skill of what is proposed next for the seed genome."""
    space = simulation.landscape.space
    proposals = proposer.ask([SEED], simulation.history, 20, 7)
    return fmean(simulation.landscape.skill(apply_all(proposal.edits, SEED, space)) for proposal in proposals)


@pytest.mark.parametrize("name", ["evolution", "local_search", "tpe", "tpe_tuned", "gp", "transformer", "forecaster"])
def test_what_it_proposes_after_a_generation_is_better_than_random(
    name: str, recipes: Space, lived: list[Simulation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but REINFORCE, which is level with random proposals here: +0.0006 of skill, where 0.01 is asked for."""
    monkeypatch.setattr(optuna_search, "SHORT_LIST", 4)
    monkeypatch.setattr(optuna_search, "RECENT", 60)
    config = ControllerConfig(name=name, width=32, steps=25, oversample=1, startup=30)
    ahead = []
    for simulation in lived:
        proposer = make(config, recipes, InProcess(tmp_path), simulation.genome_of, 0)
        if (weights := proposer.tell(simulation.history, 3).weights) is not None:
            stored = tmp_path / "stored.safetensors"
            stored.write_bytes(weights)
            proposer.restore(stored)
        ahead.append(quality(proposer, simulation) - quality(RandomProposer(recipes), simulation))
    assert fmean(ahead) > 0.01, ahead
    assert sum(gain > 0 for gain in ahead) >= 2, ahead


# What a proposal was worth


def test_a_denied_or_failed_candidate_is_worth_as_little_as_the_worst_and_of_others_nothing_is_known() -> None:
    history = [
        experience(RATE, gain=0.2),
        experience(CLIP, gain=0.0, outcome="same"),
        experience(WARMUP, gain=-0.3, outcome="worse"),
        experience(BATCH, gain=None, outcome="denied"),
        experience(OPTIMIZER, gain=None, outcome="failed"),
        experience(OPTIMIZER, gain=None, outcome="duplicate"),
        experience(OPTIMIZER, gain=None, outcome="same"),
    ]
    assert worths(history) == [0.2, 0.0, -0.3, -0.3, -0.3, None, None]


def test_gains_add_up_along_the_promotions_that_led_to_a_parent(recipes: Space) -> None:
    second = apply(RATE, SEED, recipes)
    history = [
        experience(RATE, gain=0.2, outcome="promoted"),
        experience(CLIP, gain=0.1),
        experience(CLIP, gain=0.1, parent=second, generation=2),
        experience(BATCH, gain=-0.1, outcome="worse", parent=second, generation=2),
    ]
    by_hash = {genome.sha256: genome for genome in (SEED, second)}
    assert standings(history, by_hash.__getitem__, recipes) == pytest.approx([0.2, 0.1, 0.3, 0.1])


# Evolution and local search


def test_edits_are_replayed_on_another_parent_as_far_as_they_change_it(recipes: Space) -> None:
    grammar, parent = Grammar(recipes), apply(RATE, SEED, recipes)
    kept, genome = replayed(grammar, parent, (RATE, CLIP, BATCH))
    assert kept == (CLIP, BATCH)
    assert genome == apply_all(kept, parent, recipes)


def test_a_mutation_adds_one_edit_and_where_there_is_no_room_takes_one_away_first(recipes: Space) -> None:
    import random

    grammar = Grammar(recipes)
    for seed in range(5):
        grown, _ = mutated(grammar, SEED, (RATE, CLIP), random.Random(seed))
        assert grown[:2] == (RATE, CLIP)
        assert len(grown) == 3
        full, _ = mutated(grammar, SEED, (RATE, CLIP, BATCH), random.Random(seed))
        assert len(full) == 3
        assert len({RATE, CLIP, BATCH} & set(full[:2])) == 2
        alone, genome = extended(grammar, SEED, (), random.Random(seed))
        assert genome == apply_all(alone, SEED, recipes)
        assert len(alone) == 1


def test_evolution_breeds_from_the_young_only(recipes: Space) -> None:
    """The best of all is too old to live; every proposal descends from the one individual that is young enough."""
    history = [experience(OPTIMIZER, gain=0.9), experience(CLIP, BATCH, gain=0.1)]
    config = ControllerConfig(name="evolution", population=1, tournament=3)
    proposals = make(config, recipes, unused, {SEED.sha256: SEED}.__getitem__, 0).ask([SEED], history, 6, 1)
    assert all(proposal.edits[:2] == (CLIP, BATCH) and len(proposal.edits) == 3 for proposal in proposals)


def test_local_search_tries_single_edits_of_a_parent_that_nothing_is_ahead_of(recipes: Space) -> None:
    history = [
        experience(RATE, gain=-0.1, outcome="worse"),
        experience(CLIP, gain=0.2, parent=apply(RATE, SEED, recipes)),
    ]
    proposals = local_search(recipes, history, count=12)
    assert all(len(edits) == 1 and edits != (RATE,) for edits in proposals)


def test_local_search_stays_within_one_change_of_the_best(recipes: Space) -> None:
    history = [experience(CLIP, gain=0.1), experience(RATE, BATCH, gain=0.2), experience(WARMUP, gain=0.05)]
    for edits in local_search(recipes, history, count=30):
        assert len(edits) in (1, 2, 3)
        paths = {edit.path for edit in edits}
        if len(edits) == 3:
            assert edits[:2] == (RATE, BATCH)
        else:
            assert len({RATE, BATCH} & set(edits)) == 1
            assert paths <= {RATE.path, BATCH.path}


def test_local_search_leaves_a_start_that_has_been_of_no_use(recipes: Space) -> None:
    better = [experience(RATE, BATCH, gain=0.2)]
    worse = [experience(WARMUP, CLIP, gain=-0.1, outcome="worse")] * PATIENCE
    elsewhere = local_search(recipes, better + worse, count=20)
    assert not any({RATE, BATCH} <= set(edits) for edits in elsewhere)
    back = local_search(recipes, better + 2 * worse, count=20)
    assert any({RATE, BATCH} <= set(edits) for edits in back)


def local_search(space: Space, history: Sequence[Experience], count: int) -> list[tuple[Edit, ...]]:
    proposer = make(ControllerConfig(name="local_search"), space, unused, unused, 0)  # type: ignore[arg-type]
    return [proposal.edits for proposal in proposer.ask([SEED], history, count, 1)]


# Optuna


@pytest.mark.parametrize("flat", [False, True])
def test_every_edit_is_described_by_parameters_of_its_own(flat: bool, space: Space) -> None:
    menu = Menu(Grammar(space), SEED, flat=flat)
    assert menu.edits == set(space.edits(SEED))
    described = {tuple(sorted(menu.describe(edit).items())) for edit in menu.edits}
    assert len(described) == len(menu.edits)
    assert all(menu.distributions.keys() >= menu.describe(edit).keys() for edit in menu.edits)


def test_numbers_are_ordinal_and_names_are_not(space: Space) -> None:
    distributions = Menu(Grammar(space), SEED, flat=False).distributions
    kinds = {name: type(distributions[f"set recipe.{name}"]).__name__ for name in ("learning_rate", "optimizer")}
    assert kinds == {"learning_rate": "IntDistribution", "optimizer": "CategoricalDistribution"}


# Policy gradient


@pytest.fixture
def reinforced(recipes: Space, tmp_path: Path) -> ReinforceProposer:
    config = ControllerConfig(name="reinforce", width=32, steps=5)
    return ReinforceProposer(config, recipes, InProcess(tmp_path), {SEED.sha256: SEED}.__getitem__, 3)


def test_an_update_is_priced_by_its_proposals_and_paid_for(reinforced: ReinforceProposer) -> None:
    history = [experience(RATE, gain=0.2), experience(CLIP, gain=-0.2, outcome="worse")]
    update = reinforced.tell(history, 1)
    assert update.weights is not None
    assert update.flops == reinforced.gradient_price(2).flops
    assert reinforced.gradient_price(2).steps == 6
    assert reinforced.gradient_price(4).flops > update.flops > reinforced.gradient_price(1).flops


def test_only_the_newest_generation_is_learned_from(reinforced: ReinforceProposer) -> None:
    jobs: list[dict[str, object]] = []
    execute = reinforced._execute
    reinforced._execute = lambda payload, *rest: (jobs.append(payload), execute(payload, *rest))[1]
    old = [experience(RATE, gain=0.2), experience(CLIP, gain=0.4)]
    new = [experience(BATCH, gain=0.1, generation=2), experience(WARMUP, gain=None, outcome="duplicate", generation=2)]
    reinforced.tell(old + new, 1)
    [play] = jobs[0]["plays"]  # type: ignore[misc]
    spread = ((0.2 - 0.7 / 3) ** 2 + (0.4 - 0.7 / 3) ** 2 + (0.1 - 0.7 / 3) ** 2) ** 0.5 / 3**0.5
    assert play["advantage"] == pytest.approx((0.1 - 0.3) / spread)  # the baseline is the mean of the first
    assert play["ids"] == reinforced.grammar.encode([BATCH])


def test_nothing_to_learn_from_costs_nothing(reinforced: ReinforceProposer) -> None:
    assert reinforced.tell([], 1) == Update(flops=0)
    assert reinforced.tell([experience(RATE, gain=None, outcome="duplicate")], 1) == Update(flops=0)


def test_a_frozen_controller_asks_at_the_transformers_price_and_learns_nothing(recipes: Space, tmp_path: Path) -> None:
    config = ControllerConfig(name="frozen", width=32)
    frozen = FrozenProposer(config, recipes, InProcess(tmp_path), {SEED.sha256: SEED}.__getitem__, 3)
    transformer = make(replace(config, name="transformer"), recipes, InProcess(tmp_path), frozen._genome_of, 3)
    history = [experience(RATE, gain=0.2)]
    assert frozen.tell(history, 1) == Update(flops=0)
    assert frozen.ask([SEED], history, 4, 2) == transformer.ask([SEED], history, 4, 2)
    assert isinstance(frozen.ask_price(4), Price)


def unused(*_: object) -> Genome:
    raise AssertionError("neither a worker nor a genome is needed")
