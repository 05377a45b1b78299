"""The policy: whether a genome may be trained, at which price, and whether the run may go on. Deny by default."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, fields
from typing import Protocol

from selfimprove.containment import gpu
from selfimprove.containment.budget import ACCOUNTS, LOST, Budget
from selfimprove.containment.permit import Claim, Permit, PermitBook
from selfimprove.errors import LimitReached

_PARAMETER_BYTES = 4  # checkpoints hold 32-bit floats


@dataclass(frozen=True)
class Limits:
    """Caps on a run and on each of its candidates: the first that is reached ends the run or denies the candidate."""

    generations: int = 1000
    """Generations a run."""
    candidates: int = 100_000
    """Proposals a run."""
    flops: int = 5 * 10**12
    """FLOPs charged to all accounts together: search, confirm, controller, lost."""
    candidate_flops: int = 10**12
    """FLOPs of one training of one candidate."""
    parameters: int = 2_000_000
    """Parameters of one candidate."""
    tokens: int = 10**9
    """Training tokens of one candidate."""
    wall_seconds: float = 3600.0
    """Wall time of the whole run, in seconds."""
    cpu_seconds: float = 7200.0
    """Processor time of all workers of the run together, in seconds."""
    gpu_seconds: float = 3600.0
    """Time that workers of the run held a GPU, all together, in seconds."""
    memory_bytes: int = 2 * 2**30
    """Memory that one worker may add to its warm zygote, in bytes."""
    gpu_memory_bytes: int = 8 * 2**30
    """GPU memory of one worker as the driver counts it, in bytes; up to 1 GiB of it is for CUDA itself."""
    lost_flops: int = 10**12
    """FLOPs lost to deaths of the supervisor, kills from outside and lost nodes."""
    denied_edits: int = 10_000
    """Refused proposals a run."""
    disk_bytes: int = 2 * 2**30
    """Size of the run folder, in bytes."""
    checkpoint_bytes: int = 64 * 2**20
    """Size of one checkpoint, in bytes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"limits.{field.name}: got {value!r}; allowed: a finite number, not negative")


class Priced(Protocol):
    """The quote of a genome: what training it will cost. Integers."""

    @property
    def parameters(self) -> int:
        """Trainable numbers."""

    @property
    def flops(self) -> int:
        """FLOPs of the whole training."""

    @property
    def tokens(self) -> int:
        """Tokens of the whole training."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""

    @property
    def memory_bytes(self) -> int:
        """Peak memory."""


@dataclass(frozen=True)
class Denial:
    """A refusal.

    Args:
        reason: one sentence.
        limit: the field of `Limits` that was passed, None for any other reason.
        value: what was asked for.
        bound: what would have been granted.
    """

    reason: str
    limit: str | None = None
    value: float | None = None
    bound: float | None = None


def assess(quote: Priced, limits: Limits, *, device: str = "cpu") -> Denial | None:
    """Compare one candidate's quote with the limits on candidates; None if it is within all of them.

    On ``cuda`` it must fit on the GPU, where it trains, and still in host memory, where it is scored and inspected.
    Numbers that are not positive integers deny: a price that makes no sense buys nothing.
    """
    prices = {name: getattr(quote, name) for name in ("parameters", "flops", "tokens", "steps", "memory_bytes")}
    for name, value in prices.items():
        if type(value) is not int or value <= 0:
            shown = value if isinstance(value, int | float) else None
            return Denial(f"its quote has {name} = {value!r}, not a positive whole number", None, shown, 1)
    for limit, value in (
        ("parameters", quote.parameters),
        ("candidate_flops", quote.flops),
        ("tokens", quote.tokens),
        ("memory_bytes", quote.memory_bytes),
        ("checkpoint_bytes", quote.parameters * _PARAMETER_BYTES),
    ):
        bound = getattr(limits, limit)
        if value > bound:
            return Denial(f"{value} is over limits.{limit} = {bound}", limit, value, bound)
    share = gpu.allocator_bytes(limits.gpu_memory_bytes)
    if device == "cuda" and quote.memory_bytes > share:
        reason = f"{quote.memory_bytes} is over the allocator's share of limits.gpu_memory_bytes, which is {share}"
        return Denial(reason, "gpu_memory_bytes", quote.memory_bytes, share)
    return None


def decide(
    claim: Claim,
    quote: Priced,
    *,
    account: str,
    limits: Limits,
    budget: Budget,
    book: PermitBook,
    known_genomes: Container[str],
    lifetime_seconds: float = 3600.0,
    reissue: bool = False,
    device: str = "cpu",
) -> Permit | Denial:
    """Grant a permit and reserve its FLOPs, or deny.

    Args:
        claim: the run, job, genome and stage that ask.
        quote: what this stage of the training costs.
        account: the account to reserve on.
        limits: of the run.
        budget: the run's accounts; FLOPs are reserved under ``claim.key``.
        book: issues the permit.
        known_genomes: hashes of the genomes that the run has validated; any other is denied.
        lifetime_seconds: how long the permit stays valid if it is not spent.
        reissue: the job had a permit, and its work was lost.
        device: where it will train.
    """
    if claim.genome_sha256 not in known_genomes:
        return Denial("its genome was never validated by this run")
    if account not in ACCOUNTS:
        return Denial(f"{account!r} is no account that work is paid from")
    refused = assess(quote, limits, device=device)
    if refused is not None:
        return refused
    if budget.overdrawn:
        lost = budget.charged[LOST]
        return Denial(
            "crashes lost more than limits.lost_flops (a tenth of limits.flops at most)", "lost_flops", lost, 0
        )
    try:
        budget.reserve(claim.key, account, quote.flops)
    except LimitReached:
        return Denial("the budget does not cover it", "flops", quote.flops, budget.left)
    return book.issue(
        claim, account=account, flops=quote.flops, tokens=quote.tokens, steps=quote.steps,
        lifetime_seconds=lifetime_seconds, reissue=reissue,
    )  # fmt: skip


@dataclass(frozen=True)
class Used:
    """What a run has used of the limits that are on the run as a whole."""

    generations: int = 0
    candidates: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    denied_edits: int = 0
    disk_bytes: int = 0


def check_run(limits: Limits, used: Used) -> None:
    """Stop the run where one of its own limits is used up.

    ``generations`` and ``candidates`` count what was started, so a run may have exactly as many as the limit says.

    Raises:
        LimitReached: names the limit.
    """
    if (name := first_passed(limits, used)) is not None:
        amounts = getattr(used, name), getattr(limits, name)
        spent, most = (f"{n:,.2f}" if isinstance(n, float) else f"{n:,}" for n in amounts)
        raise LimitReached(f"go on with limits.{name}", spent, f"at most {most}", "what is finished is kept")


def first_passed(limits: Limits, used: Used) -> str | None:
    """The first limit of a run that is passed, by name."""
    return next((f.name for f in fields(used) if getattr(used, f.name) > getattr(limits, f.name)), None)
