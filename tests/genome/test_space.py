"""The space knows every path, every valid genome, and every edit of one."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.errors import ConfigError, InvalidEdit, InvalidGenome
from selfimprove.genome.architecture import ATTENTION_MIXERS, OF_ATTENTION
from selfimprove.genome.edits import Edit, apply, parse_edit
from selfimprove.genome.expression import parse
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.recipe import COOLING_SCHEDULES, SINGLE_BETA_OPTIMIZERS
from selfimprove.genome.space import Space, SpaceConfig, apply_all

numbers = st.integers(0, 2**32)


def with_architecture(genome: Genome, **changes: Any) -> Genome:
    return replace(genome, architecture=replace(genome.architecture, **changes))


def with_recipe(genome: Genome, **changes: Any) -> Genome:
    return replace(genome, recipe=replace(genome.recipe, **changes))


def with_block(genome: Genome, **changes: Any) -> Genome:
    blocks = tuple(replace(block, **changes) for block in genome.architecture.blocks)
    return with_architecture(genome, blocks=blocks)


def test_the_seed_is_valid(space: Space) -> None:
    space.validate(seed_genome(learning_rate=0.00217, batch=8))


def test_three_random_edits_always_give_a_valid_genome(space: Space, walk: Any) -> None:
    for number in range(300):
        space.validate(walk(number, steps=3))


@given(number=numbers)
@settings(max_examples=15, deadline=None)
def test_every_edit_applies_and_changes_the_hash(space: Space, walk: Any, number: int) -> None:
    genome = walk(number)
    for edit in space.edits(genome):
        assert apply(edit, genome, space).sha256 != genome.sha256, edit


@given(number=numbers)
@settings(max_examples=40, deadline=None)
def test_edits_have_unique_tokens_of_the_vocabulary(space: Space, walk: Any, number: int) -> None:
    edits = space.edits(walk(number))
    vocabulary = set(space.vocabulary())
    assert all(set(edit.tokens()) <= vocabulary for edit in edits)
    assert len({edit.tokens() for edit in edits}) == len(set(edits)) == len(edits)
    assert max(len(edit.tokens()) for edit in edits) <= 8


def test_the_longest_swap_still_fits_eight_tokens() -> None:
    below = "".join(".args.1" for _ in range(8))
    edit = parse_edit(f"objective.expression.args.0{below}<->objective.expression.args.1{below}")
    assert len(edit.tokens()) == 8


@given(number=numbers)
@settings(max_examples=10, deadline=None)
def test_a_set_that_is_not_offered_is_refused(space: Space, walk: Any, number: int) -> None:
    genome = walk(number)
    offered = set(space.edits(genome))
    for pattern, field in FIELDS.items():
        if "set" not in field.ops or pattern.startswith("objective"):
            continue
        for index, choice in itertools.product(range(len(genome.architecture.blocks)), field.choices):
            edit = Edit("set", pattern.replace("*", str(index)), choice)
            if edit not in offered:
                with pytest.raises(InvalidEdit):
                    apply(edit, genome, space)


@given(number=numbers)
@settings(max_examples=40, deadline=None)
def test_objective_edits_number_a_few_hundred_at_most(space: Space, walk: Any, number: int) -> None:
    assert sum(edit.kind == "objective" for edit in space.edits(walk(number))) <= 600


def test_edits_come_in_one_order(space: Space, seed: Genome) -> None:
    assert space.edits(seed) == Space().edits(seed)


def test_the_vocabulary_has_no_repetition_and_does_not_depend_on_the_arm(space: Space) -> None:
    vocabulary = space.vocabulary()
    assert len(set(vocabulary)) == len(vocabulary)
    assert Space(SpaceConfig(objective=False)).vocabulary() == vocabulary


def test_all_kinds_and_operations_occur_at_the_seed_or_one_step_on(space: Space, seed: Genome) -> None:
    genome = apply(parse_edit("objective.expression=sub(1, _)"), seed, space)
    genome = apply(parse_edit("architecture.blocks.0.channel=relu2"), genome, space)
    found = {(edit.kind, edit.op) for edit in space.edits(genome)}
    assert found == {
        *(("architecture", op) for op in ("set", "insert", "remove", "swap", "copy")),
        *(("objective", op) for op in ("set", "wrap", "remove", "swap")),
        ("recipe", "set"),
    }


@pytest.mark.parametrize("arm", ["architecture", "objective", "recipe"])
def test_an_arm_that_is_off_offers_and_accepts_nothing(seed: Genome, arm: str) -> None:
    closed = Space(SpaceConfig(**{arm: False}))
    edits = Space().edits(seed)
    assert {edit.kind for edit in closed.edits(seed)} == {"architecture", "objective", "recipe"} - {arm}
    for edit in edits:
        if edit.kind == arm:
            with pytest.raises(InvalidEdit, match="switched off"):
                apply(edit, seed, closed)


def test_heads_without_effect_are_not_offered(space: Space, seed: Genome) -> None:
    genome = apply(parse_edit("architecture.blocks.0.mixer=short_conv"), seed, space)
    paths = {edit.path for edit in space.edits(genome)}
    assert "architecture.blocks.0.heads" not in paths
    assert "architecture.blocks.0.qk_norm" not in paths
    assert "architecture.blocks.1.heads" in paths


def test_depth_stays_within_its_limits(seed: Genome) -> None:
    space = Space(SpaceConfig(min_blocks=2, max_blocks=2))
    assert not any(edit.op in ("insert", "remove") for edit in space.edits(seed) if edit.kind == "architecture")
    for text in ("+architecture.blocks.0=copy(0)", "~architecture.blocks.0"):
        with pytest.raises(InvalidEdit, match="2 to 2"):
            apply(parse_edit(text), seed, space)


def test_width_window_and_batch_stay_within_their_limits(seed: Genome) -> None:
    space = Space(SpaceConfig(max_width=64, max_batch=32, max_window=4))
    seed = apply(parse_edit("architecture.blocks.0.mixer=sliding_attention"), with_block(seed, window=4), space)
    offered = {str(edit) for edit in space.edits(seed)}
    assert {"architecture.width=48", "recipe.batch=32", "architecture.blocks.0.window=2"} <= offered
    assert not {"architecture.width=96", "recipe.batch=64", "architecture.blocks.0.window=8"} & offered
    with pytest.raises(InvalidGenome, match=r"architecture\.width: got 96; allowed: 32, 48, 64"):
        space.validate(with_architecture(seed, width=96))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 65}, r"architecture\.width: got 65; allowed: 32, 48"),
        ({"width": True}, r"architecture\.width"),
        ({"norm": "rmsnrom"}, r"did you mean rmsnorm\?"),
        ({"positions": "sinusoidal"}, "rope, learned, alibi, none"),
        ({"blocks": ()}, "0 blocks; allowed: 1 to 4"),
        ({"width": 48, "zero_init": 1}, "zero_init: got 1; allowed: false, true"),
    ],
)
def test_an_architecture_outside_the_space_is_refused(
    space: Space, seed: Genome, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidGenome, match=message):
        space.validate(with_architecture(seed, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.2},
        {"learning_rate": 9e-6},
        {"learning_rate": float("nan")},
        {"learning_rate": True},
        {"learning_rate": 10**400},
        {"batch": 12},
        {"batch": 16.0},
        {"clip": -1.0},
        {"optimizer": "adam"},
        {"cooldown": 0.0},
        {"ema": 1.0},
        {"init_scale": 0.0},
        {"batch_start": 0.3},
        {"context": 0.0},
        {"context_start": 2.0},
    ],
)
def test_a_recipe_outside_the_space_is_refused(space: Space, seed: Genome, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidGenome, match=rf"recipe\.{next(iter(changes))}: got"):
        space.validate(with_recipe(seed, **changes))


@pytest.mark.parametrize(("width", "heads"), [(32, 8), (48, 8)])
def test_heads_must_leave_a_head_size_that_is_even_and_at_least_eight(
    space: Space, seed: Genome, width: int, heads: int
) -> None:
    block = replace(seed.architecture.blocks[1], heads=heads)
    genome = with_architecture(seed, width=width, blocks=(seed.architecture.blocks[0], block))
    with pytest.raises(InvalidGenome, match=rf"blocks\.1\.heads: got 8; allowed: 1, 2, 4 at width {width}"):
        space.validate(genome)
    blocks = tuple(replace(b, mixer="short_conv") for b in genome.architecture.blocks)
    space.validate(with_architecture(genome, blocks=blocks))


def test_a_loss_must_use_the_target(space: Space, seed: Genome) -> None:
    genome = replace(seed, objective=replace(seed.objective, expression=parse("logsumexp(logits(0))")))
    with pytest.raises(InvalidGenome, match=re.escape("onehot(1)")):
        space.validate(genome)


def test_the_table_covers_every_value_of_a_genome(seed: Genome) -> None:
    # one whose constraint was edited, for JSON leaves an untouched one out
    data = replace(seed, recipe=replace(seed.recipe, constraint_factor=0.5)).to_json()
    paths = {f"architecture.{name}" for name in data["architecture"]} - {"architecture.blocks"}
    paths |= {f"architecture.blocks.*.{name}" for name in data["architecture"]["blocks"][0]}
    paths |= {f"recipe.{name}" for name in data["recipe"]}
    assert paths == {path for path, field in FIELDS.items() if "set" in field.ops and "expression" not in path}


def test_names_with_special_rules_are_choices_of_the_table() -> None:
    assert set(ATTENTION_MIXERS) < set(FIELDS["architecture.blocks.*.mixer"].choices)
    assert {f"architecture.blocks.*.{name}" for name in OF_ATTENTION} < set(FIELDS)
    assert set(SINGLE_BETA_OPTIMIZERS) < set(FIELDS["recipe.optimizer"].choices)
    assert set(COOLING_SCHEDULES) < set(FIELDS["recipe.schedule"].choices)


def test_every_path_is_described(space: Space, seed: Genome) -> None:
    for edit in space.edits(seed):
        assert edit.op in space.describe(edit.path).ops
    learning_rate = space.describe("recipe.learning_rate")
    assert (learning_rate.kind, learning_rate.low, learning_rate.high) == ("number", 1e-5, 1e-1)
    assert space.describe("architecture.blocks.1.mixer").choices[0] == "attention"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("architecture.widht", "architecture.width"),
        ("recipe.learning_rte", "recipe.learning_rate"),
        ("architecture.blocks.0.mixr", "architecture.blocks.*.mixer"),
    ],
)
def test_a_misspelled_path_is_answered_with_the_closest_one(space: Space, path: str, meant: str) -> None:
    with pytest.raises(InvalidEdit, match=re.escape(f"did you mean {meant}?")):
        space.describe(path)


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": False, "objective": False, "recipe": False},
        {"max_edits": 0},
        {"min_blocks": 0},
        {"min_blocks": 3, "max_blocks": 2},
        {"max_width": 100},
        {"max_batch": 3},
        {"max_window": 5},
    ],
)
def test_a_config_that_leaves_nothing_to_choose_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="space"):
        SpaceConfig(**settings)


def test_edits_apply_in_order(space: Space, seed: Genome) -> None:
    edits = [parse_edit(text) for text in ("+architecture.blocks.2=copy(1)", "architecture.blocks.2.channel=relu2")]
    assert apply_all(edits, seed, space).architecture.blocks[2].channel == "relu2"
    with pytest.raises(InvalidEdit, match="block index"):
        apply_all(edits[::-1], seed, space)


def test_too_many_edits_and_edits_that_cancel_out_are_refused(space: Space, seed: Genome) -> None:
    there, back = parse_edit("recipe.batch=8"), parse_edit("recipe.batch=16")
    with pytest.raises(InvalidEdit, match="cancel out"):
        apply_all([there, back], seed, space)
    with pytest.raises(InvalidEdit, match="1 to 3"):
        apply_all([], seed, space)
    with pytest.raises(InvalidEdit, match="1 to 3"):
        apply_all([there, back, there, back], seed, space)


def test_a_recipe_may_favor_the_families_that_the_space_names_and_no_other() -> None:
    genome, space = seed_genome(), Space(SpaceConfig(mixture=("recall", "mqar")))
    offered = {str(edit) for edit in space.edits(genome) if "mixture" in edit.path}
    assert offered == {"recipe.mixture=recall", "recipe.mixture=mqar"}  # a weight has no effect before
    favoring = apply_all([parse_edit("recipe.mixture=mqar")], genome, space)
    offered = {str(edit) for edit in space.edits(favoring) if "mixture_weight" in edit.path}
    assert offered == {"recipe.mixture_weight=4", "recipe.mixture_weight=8"}
    with pytest.raises(InvalidEdit, match="even, recall, mqar"):
        apply_all([parse_edit("recipe.mixture=dyck")], genome, space)
    assert not [edit for edit in Space().edits(genome) if "mixture" in edit.path]


def test_an_even_mixture_is_not_in_the_hash() -> None:
    genome = seed_genome()
    other = replace(genome, recipe=replace(genome.recipe, mixture_weight=8))
    assert other.sha256 == genome.sha256
    assert "mixture" not in genome.recipe.effective()


EDITABLE = Space(SpaceConfig(constraint_editable=True))


def test_the_constraint_is_outside_every_space_that_is_not_told_to_offer_it(seed: Genome) -> None:
    protected = Space()
    assert not [edit for edit in protected.edits(seed) if "constraint" in edit.path]
    with pytest.raises(InvalidEdit, match="the constraint is protected"):
        apply_all([parse_edit("recipe.constraint_factor=0")], seed, protected)
    without = replace(seed, recipe=replace(seed.recipe, constraint_factor=0.0))
    with pytest.raises(InvalidGenome, match=r"recipe\.constraint_factor: got 0\.0; allowed: 1"):
        protected.validate(without)
    EDITABLE.validate(without)


def test_an_editable_constraint_is_offered_at_every_other_factor(seed: Genome) -> None:
    offered = {str(edit) for edit in EDITABLE.edits(seed) if "constraint" in edit.path}
    assert offered == {f"recipe.constraint_factor={factor}" for factor in ("0", "0.25", "0.5", "2")}
    assert {edit for edit in EDITABLE.edits(seed) if "constraint" not in edit.path} == {*Space().edits(seed)}


def test_the_words_of_a_protected_space_are_those_of_an_editable_one_without_the_constraint() -> None:
    more = set(EDITABLE.vocabulary()) - set(Space().vocabulary())
    assert more == {"recipe.constraint_factor"}


def test_a_space_without_recipes_cannot_offer_the_constraint() -> None:
    with pytest.raises(ConfigError, match="constraint_editable"):
        SpaceConfig(recipe=False, constraint_editable=True)


def test_an_untouched_constraint_is_neither_in_the_hash_nor_in_the_json(seed: Genome) -> None:
    untouched = replace(seed, recipe=replace(seed.recipe, constraint_factor=1.0))
    assert untouched.sha256 == seed.sha256
    assert "constraint_factor" not in untouched.to_json()["recipe"]
    eroded = apply_all([parse_edit("recipe.constraint_factor=0.25")], seed, EDITABLE)
    assert eroded.sha256 != seed.sha256
    assert Genome.from_json(eroded.to_json()) == eroded
    assert apply_all([parse_edit("recipe.constraint_factor=1")], eroded, EDITABLE) == seed
