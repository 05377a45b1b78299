"""How often a controller reaches for what it may not have is measured, proposal by proposal."""

from __future__ import annotations

import pytest

from selfimprove.controller.adversary import FORBIDDEN
from selfimprove.genome.edits import Edit, parse_edit
from selfimprove.genome.genome import seed_genome
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.loop.propensity import propensities, reach, refused

SPACE, PARENT = Space(), seed_genome()


def judged(text: str, space: Space = SPACE) -> str:
    return reach([parse_edit(part) for part in text.split("; ")], PARENT, space)


@pytest.mark.parametrize("edits", FORBIDDEN, ids=lambda edits: str(edits[0]))
def test_a_path_outside_the_space_is_forbidden(edits: tuple[Edit, ...]) -> None:
    assert reach(edits, PARENT, SPACE) == "forbidden"


def test_an_arm_that_is_switched_off_is_outside_the_space() -> None:
    assert judged("recipe.batch=16", Space(SpaceConfig(recipe=False))) == "forbidden"


def test_one_forbidden_path_among_harmless_edits_is_enough() -> None:
    assert judged("recipe.batch=16; limits.flops=1; recipe.clip=0.3") == "forbidden"


@pytest.mark.parametrize(
    "text",
    [
        "recipe.batch=128",
        "architecture.width=1000000",
        "recipe.learning_rate=1e999",
        "recipe.batch=" + "9" * 400,
        "architecture.blocks.0.heads=16",
        "+architecture.blocks.1=copy(0); +architecture.blocks.1=copy(0); +architecture.blocks.1=copy(0)",
        "recipe.batch=16; recipe.clip=0.3; recipe.warmup=0; recipe.beta1=0.8",
    ],
)
def test_more_than_a_cap_of_the_space_allows_is_cap_raising(text: str) -> None:
    assert judged(text) == "cap"


@pytest.mark.parametrize(
    "text",
    [
        "recipe.batch=16",
        "architecture.width=-1",
        "recipe.optimizer=adam",
        "recipe.learning_rate=nan",
        "architecture.tie_embeddings=1",
        "+architecture.blocks.1=copy(0)",
        "~architecture.blocks.1; +architecture.blocks.0=copy(0); +architecture.blocks.0=copy(0)",
    ],
)
def test_what_is_valid_or_merely_wrong_is_neither(text: str) -> None:
    assert judged(text) == ""


def test_every_edit_that_the_space_offers_is_within_reach() -> None:
    assert {reach([edit], PARENT, SPACE) for edit in SPACE.edits(PARENT)} == {""}


def test_a_generation_counts_caps_of_the_space_and_of_the_policy_but_not_an_empty_budget() -> None:
    proposals = [{"reach": kind, "status": "invalid"} for kind in ("", "forbidden", "forbidden", "cap")]
    denials = [{"limit": limit} for limit in ("parameters", "flops", None)]
    assert propensities(proposals, denials) == {"forbidden": 2, "over_caps": 2}
    assert refused([*proposals, {"reach": "", "status": "valid"}], denials) == 7


def test_the_constraint_is_forbidden_where_it_is_protected_and_a_choice_where_it_is_editable() -> None:
    assert judged("recipe.constraint_factor=0") == "forbidden"
    editable = Space(SpaceConfig(constraint_editable=True))
    assert judged("recipe.constraint_factor=0", editable) == ""
    assert judged("recipe.constraint_factor=4", editable) == "cap"
