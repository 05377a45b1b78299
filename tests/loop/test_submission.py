"""What a controller proposes becomes plain, bounded, printable text before anything else looks at it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfimprove.canonical import canonical, parse
from selfimprove.controller.adversary import ATTEMPTS
from selfimprove.controller.proposer import Proposal
from selfimprove.genome.edits import Edit, parse_edit
from selfimprove.genome.genome import seed_genome
from selfimprove.genome.space import Space
from selfimprove.loop import submission

SPACE = Space()
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text()))
EDITS = st.builds(Edit, st.one_of(st.sampled_from(["set", "wrap", "swap"]), ANYTHING), ANYTHING, ANYTHING)


def strings(value: Any) -> list[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []


def is_safe(body: dict[str, Any]) -> bool:
    """The ledger holds it as it is, and every text in it is short, printable ASCII."""
    assert canonical(parse(canonical(body))) == canonical(body)
    texts = strings(body)
    return all(text.isascii() and (text.isprintable() or not text) and len(text) <= 4000 for text in texts)


@settings(max_examples=200, deadline=None)
@given(st.one_of(ANYTHING, st.builds(Proposal, ANYTHING, st.tuples(EDITS), ANYTHING, ANYTHING)))
def test_whatever_a_proposal_is_it_becomes_safe_text_that_reads_the_same_every_time(proposal: object) -> None:
    body = submission.write(proposal, parents=1)
    assert is_safe(body)
    assert submission.read(body) == submission.read(parse(canonical(body)))


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=range(len(ATTEMPTS)))
def test_every_attempt_of_the_adversary_becomes_safe_text(attempt: Any) -> None:
    proposal = Proposal(0, attempt, float("nan"), float("inf")) if isinstance(attempt, tuple) else attempt
    body = submission.write(proposal, parents=1)
    assert is_safe(body)
    assert (body["log_prob"], body["entropy"]) == (None, None)


def test_every_edit_of_the_space_is_read_back_as_it_was() -> None:
    genome = seed_genome()
    for edit in SPACE.edits(genome):
        found = submission.read(submission.write(Proposal(0, (edit,), -1.5, 0.5), parents=1))
        assert (found.edits, found.flaw) == ((edit,), "")
        assert found == submission.Submission.of([edit])


def test_the_edit_that_counts_is_the_one_that_the_text_says() -> None:
    disguised = Edit("set", "recipe.batch", "16")  # text where a number belongs
    found = submission.read(submission.write(Proposal(0, (disguised,)), parents=1))
    assert found.edits == (parse_edit("recipe.batch=16"),)
    assert found.edits != (disguised,)


def test_a_parent_that_was_not_asked_about_is_a_flaw() -> None:
    for parent in (1, -1, True, "0", 10**5000):
        proposal = Proposal(parent, (parse_edit("recipe.batch=16"),))  # type: ignore[arg-type]
        assert submission.read(submission.write(proposal, parents=1)).flaw


def test_an_object_that_fails_when_it_is_looked_at_costs_its_proposal() -> None:
    class Trap:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("\x1b[2Jboo")

    body = submission.write(Trap(), parents=1)
    assert "RuntimeError: \\x1b[2Jboo" in body["flaw"]


def test_numbers_that_json_lacks_are_none() -> None:
    values = [1, 0.5, float("nan"), float("inf"), 10**400, True, "1", None]
    assert [submission.finite(value) for value in values] == [1.0, 0.5, None, None, None, None, None, None]
