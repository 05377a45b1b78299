"""The policy denies unless everything about a request is known and within its limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from selfimprove.containment.budget import Budget
from selfimprove.containment.keys import SigningKey
from selfimprove.containment.permit import Claim, Permit, PermitBook
from selfimprove.containment.policy import Denial, Limits, Used, assess, check_run, decide
from selfimprove.errors import LimitReached

GENOME = "cd" * 32
CLAIM = Claim("run", "g001/c00/s0", GENOME, "1/1")
LIMITS = Limits(flops=1000, candidate_flops=500, parameters=100, tokens=300, memory_bytes=2000, checkpoint_bytes=4 * 90)


@dataclass(frozen=True)
class Price:
    """A quote."""

    parameters: int = 50
    flops: int = 400
    tokens: int = 200
    steps: int = 10
    memory_bytes: int = 1000


@pytest.fixture
def budget() -> Budget:
    return Budget(LIMITS.flops, LIMITS.lost_flops)


@pytest.fixture
def ask(budget: Budget) -> Any:
    book = PermitBook("run", SigningKey.generate())

    def ask(quote: Any, claim: Claim = CLAIM, account: str = "search") -> Permit | Denial:
        return decide(claim, quote, account=account, limits=LIMITS, budget=budget, book=book, known_genomes={GENOME})

    return ask


def test_a_request_within_all_limits_gets_a_permit_for_its_whole_quote(ask: Any, budget: Budget) -> None:
    permit = ask(Price())
    assert isinstance(permit, Permit)
    assert (permit.flops, permit.tokens, permit.steps, permit.counter) == (400, 200, 10, 1)
    assert budget.reserved == 400


@pytest.mark.parametrize(
    ("price", "limit"),
    [
        (Price(parameters=101), "parameters"),
        (Price(parameters=91), "checkpoint_bytes"),
        (Price(flops=501), "candidate_flops"),
        (Price(tokens=301), "tokens"),
        (Price(memory_bytes=2001), "memory_bytes"),
    ],
)
def test_a_candidate_over_a_limit_is_denied_by_name(price: Price, limit: str, ask: Any, budget: Budget) -> None:
    denial = ask(price)
    assert isinstance(denial, Denial)
    assert denial.limit == limit
    assert denial.bound is not None
    assert denial.value is not None
    assert denial.value > denial.bound
    assert budget.reserved == 0


def test_on_a_gpu_a_candidate_must_fit_beside_what_cuda_takes_for_itself(ask: Any, budget: Budget) -> None:
    limits = replace(LIMITS, memory_bytes=10**12, gpu_memory_bytes=3 * 2**30)
    fits, too_large = Price(memory_bytes=2 * 2**30), Price(memory_bytes=2 * 2**30 + 1)
    assert assess(fits, limits, device="cuda") is None
    assert assess(too_large, limits) is None  # where there is no GPU the limit has nothing to say
    denial = assess(too_large, limits, device="cuda")
    assert denial is not None
    assert (denial.limit, denial.value, denial.bound) == ("gpu_memory_bytes", 2 * 2**30 + 1, 2 * 2**30)


@pytest.mark.parametrize("field", ["parameters", "flops", "tokens", "steps", "memory_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("nan"), True, None, "9"])
def test_a_price_that_is_no_positive_whole_number_is_denied(field: str, value: Any, ask: Any) -> None:
    assert isinstance(ask(replace(Price(), **{field: value})), Denial)


def test_an_unknown_genome_is_denied(ask: Any) -> None:
    assert isinstance(ask(Price(), replace(CLAIM, genome_sha256="ef" * 32)), Denial)


def test_an_unknown_account_is_denied(ask: Any) -> None:
    assert isinstance(ask(Price(), account="lost"), Denial)


def test_the_last_permit_is_the_one_that_the_budget_still_covers(ask: Any, budget: Budget) -> None:
    answers = [ask(Price(), replace(CLAIM, key=f"c{i}")) for i in range(3)]
    assert [type(answer) for answer in answers] == [Permit, Permit, Denial]
    assert answers[2].limit == "flops"
    assert budget.left == 200


def test_a_run_that_lost_too_much_is_denied_with_that_reason(ask: Any, budget: Budget) -> None:
    budget.abandon("earlier", "search", 10**15)
    denial = ask(Price())
    assert isinstance(denial, Denial)
    assert denial.limit == "lost_flops"


@pytest.mark.parametrize(
    "name",
    ["generations", "candidates", "wall_seconds", "cpu_seconds", "gpu_seconds", "denied_edits", "disk_bytes"],
)
def test_a_run_stops_where_its_own_limit_is_passed(name: str) -> None:
    bound = getattr(Limits(), name)
    check_run(Limits(), Used(**{name: bound}))
    with pytest.raises(LimitReached, match=name):
        check_run(Limits(), Used(**{name: bound + 1}))


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), True])
def test_limits_are_finite_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="flops"):
        Limits(flops=value)
