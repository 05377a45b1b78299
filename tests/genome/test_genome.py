"""What a genome is: its JSON, its identity, and what is refused."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.errors import InvalidGenome
from selfimprove.genome.expression import parse
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import Genome, seed_genome

GOLDEN_SHA256 = "102b109f0258ba02356da20ff6f32fbb5b5e038965b7e5833a636f78d0ad4613"


def changed(path: str, value: object) -> dict[str, Any]:
    """The seed's JSON with one value replaced, or removed if the value is ``...``."""
    data = copy.deepcopy(seed_genome().to_json())
    *parents, last = path.split(".")
    owner: Any = data
    for part in parents:
        owner = owner[int(part)] if isinstance(owner, list) else owner[part]
    if value is ...:
        del owner[last]
    else:
        owner[last] = value
    return data


@given(number=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_json_round_trip_gives_the_same_genome(walk: Any, number: int) -> None:
    genome = walk(number)
    back = Genome.from_json(json.loads(json.dumps(genome.to_json())))
    assert back == genome
    assert back.sha256 == genome.sha256


def test_the_hash_of_the_seed_never_changes() -> None:
    assert seed_genome().sha256 == GOLDEN_SHA256
    assert seed_genome().short == GOLDEN_SHA256[:10]


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    data = seed_genome().to_json()
    backwards = {key: data[key] for key in reversed(data)}
    assert Genome.from_json(backwards).sha256 == seed_genome().sha256


def test_the_hash_does_not_tell_whole_floats_from_integers() -> None:
    assert Genome.from_json(changed("recipe.clip", 1)).sha256 == seed_genome().sha256


def test_the_hash_ignores_the_second_beta_of_sgd_only(seed: Genome) -> None:
    for optimizer, same in (("sgd", True), ("adamw", False), ("lion", False), ("muon", False)):
        one, other = (replace(seed, recipe=replace(seed.recipe, optimizer=optimizer, beta2=b)) for b in (0.9, 0.99))
        assert (one.sha256 == other.sha256) is same, optimizer


def test_the_hash_ignores_a_cooldown_that_the_schedule_does_not_have(seed: Genome) -> None:
    for schedule, same in (("constant", True), ("cosine", True), ("linear", True), ("wsd", False)):
        one, other = (replace(seed, recipe=replace(seed.recipe, schedule=schedule, cooldown=c)) for c in (0.2, 0.5))
        assert (one.sha256 == other.sha256) is same, schedule


def test_the_hash_ignores_a_start_below_the_smallest_batch(seed: Genome) -> None:
    hashes = {
        (batch, start): replace(seed, recipe=replace(seed.recipe, batch=batch, batch_start=start)).sha256
        for batch in (8, 16, 32)
        for start in (0.25, 0.5, 1.0)
    }
    assert hashes[8, 0.25] == hashes[8, 0.5] == hashes[8, 1.0]
    assert hashes[16, 0.25] == hashes[16, 0.5] != hashes[16, 1.0]
    assert len({hashes[32, start] for start in (0.25, 0.5, 1.0)}) == 3


@pytest.mark.parametrize("name", ["ema", "init_scale", "batch_start", "context", "context_start"])
def test_what_changes_the_training_changes_the_hash(seed: Genome, name: str) -> None:
    field = FIELDS[f"recipe.{name}"]
    changes: list[dict[str, Any]] = [{name: choice} for choice in field.choices]
    hashes = {replace(seed, recipe=replace(seed.recipe, batch=64, **change)).sha256 for change in changes}
    assert len(hashes) == len(field.choices)


def test_the_hash_ignores_the_order_of_commutative_arguments(seed: Genome) -> None:
    turned = parse("mul(dot(log_softmax(logits(0)), onehot(1)), -1)")
    assert replace(seed, objective=replace(seed.objective, expression=turned)).sha256 == seed.sha256


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("schema", 2, "schema"),
        ("schema", ..., "schema"),
        ("seed", 1, "seed"),
        ("architecture.widht", 64, "widht"),
        ("architecture.blocks.1.heads", ..., "architecture.blocks.1 key"),
        ("architecture.width", 64.0, "architecture.width"),
        ("architecture.width", True, "architecture.width"),
        ("architecture.blocks", {}, "architecture.blocks"),
        ("architecture.blocks", [], "architecture.blocks"),
        ("architecture.blocks.1.heads", 0, "architecture.blocks.1.heads"),
        ("architecture.blocks.1.heads", -4, "architecture.blocks.1.heads"),
        ("recipe.batch", 0, "recipe.batch"),
        ("recipe.context_start", 0, "recipe.context_start"),
        ("architecture.blocks.0.qk_norm", 1, "architecture.blocks.0.qk_norm"),
        ("recipe.learning_rate", "fast", "recipe.learning_rate"),
        ("recipe.learning_rate", float("nan"), "recipe.learning_rate"),
        ("recipe.learning_rate", 10**400, "recipe.learning_rate"),
        ("recipe.clip", None, "recipe.clip"),
        ("recipe", [], "recipe"),
        ("objective.expression", 3, "objective.expression"),
        ("objective.expression", "mul(-1, ", "objective.expression"),
    ],
)
def test_malformed_json_is_refused_by_path(path: str, value: object, named: str) -> None:
    with pytest.raises(InvalidGenome, match=named.replace(".", r"\.")):
        Genome.from_json(changed(path, value))


def test_json_that_is_no_object_is_refused() -> None:
    refused: tuple[object, ...] = (None, [], "genome", 1)
    for data in refused:
        with pytest.raises(InvalidGenome):
            Genome.from_json(data)


def test_the_genome_package_does_not_import_torch() -> None:
    code = "import sys, selfimprove.genome.space; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
