"""Granting: a permit before any work, a charge after it, a loss where it was cut off; all of it in the ledger."""

from __future__ import annotations

from dataclasses import asdict

from selfimprove.containment.budget import LOST, Budget
from selfimprove.containment.permit import Claim, Permit
from selfimprove.containment.policy import Denial, Limits, Priced, decide
from selfimprove.errors import LimitReached
from selfimprove.loop.slots import Bench


def spendable(budget: Budget, limits: Limits) -> int:
    """FLOPs that may still be planned for. What crashes may lose is set aside, so that no crash changes a plan."""
    return limits.flops - lost_cap(limits) - sum(v for account, v in budget.charged.items() if account != "lost")


def lost_cap(limits: Limits) -> int:
    """Most FLOPs that crashes may lose: ``limits.lost_flops``, and never more than a tenth of everything."""
    return min(limits.lost_flops, limits.flops // 10)


def grant(bench: Bench, key: str, account: str, genome: str, stage: str, priced: Priced) -> Permit:
    """Reserve, sign, record and spend the permit of one job; returns it.

    Raises:
        LimitReached: the policy denies it.
    """
    claim = Claim(bench.run_id, key, genome, stage)
    again = bench.journal.find("permit", key) is not None
    permit = decide(
        claim,
        priced,
        account=account,
        limits=bench.config.limits,
        budget=bench.budget,
        book=bench.book,
        known_genomes=bench.known_genomes,
        reissue=again,
        device=bench.config.device,
    )
    if isinstance(permit, Denial):
        remedy = "raise the limit that it names and start a new run"
        raise LimitReached(f"permit {key}", permit.reason, str(permit.bound or ""), remedy)
    bench.journal.record("permit", permit.to_json())
    bench.book.spend(permit, claim)
    return permit


def charge(bench: Bench, key: str, flops: int) -> None:
    """Settle a permitted job, once its effect is on record: a crash in between is mended by ``settle_open``."""
    bench.journal.record("charge", asdict(bench.budget.charge(key, flops)))


def forfeit(bench: Bench, key: str) -> None:
    """Book the work of a killed process as lost, so that it can be permitted again.

    Raises:
        LimitReached: that account has no room for it.
    """
    if not bench.budget.may_lose(key):
        permit, limits, most = bench.journal.find("permit", key), bench.config.limits, lost_cap(bench.config.limits)
        assert permit is not None  # what has a reservation was permitted
        lost = bench.budget.charged[LOST] + permit["flops"]
        caps = {"limits.lost_flops": limits.lost_flops, "limits.flops": limits.flops // 10}
        remedy = f"raise {' and '.join(name for name, cap in caps.items() if cap == most)} and start a new run"
        allowed = f"at most {most:,}: limits.lost_flops, or a tenth of limits.flops where that is less"
        raise LimitReached(f"lose the work of {key}", f"{lost:,} FLOPs lost", allowed, remedy)
    bench.journal.record("charge", asdict(bench.budget.lose(key)))


def release(bench: Bench, key: str) -> None:
    """Settle a permit that nothing was done under: nothing is lost, and the job can be permitted again."""
    bench.journal.record("charge", asdict(bench.budget.release(key)))
