"""What ends a worker that goes over a limit, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from selfimprove.containment import supervisor as supervising
from selfimprove.containment import worker
from selfimprove.containment.supervisor import Completed, Crashed, Exceeded, Supervisor
from tests.containment.helpers import KINDS, outcome_of


@pytest.mark.parametrize(
    ("op", "limits", "exceeded"),
    [
        ("sleep", {"silence_seconds": 0.3}, "silence_seconds"),
        ("stop", {"silence_seconds": 0.3}, "silence_seconds"),
        ("ignore", {"wall_seconds": 0.3}, "wall_seconds"),
        ("burn", {"cpu_seconds": 0.3}, "cpu_seconds"),
        ("allocate", {"memory_bytes": 32 * 2**20}, "memory_bytes"),
        ("reserve", {"memory_bytes": 32 * 2**20}, "memory_bytes"),
        ("write_much", {"output_bytes": 2**20}, "output_bytes"),
        ("write_sparse", {"output_bytes": 2**20}, "output_bytes"),
        ("emit_much", {}, "event_bytes"),
    ],
)
def test_a_worker_over_a_limit_is_ended(
    op: str, limits: dict[str, float], exceeded: str, supervisor: Supervisor, make_job: Any
) -> None:
    outputs = ["out"] if op.startswith("write") else []
    outcome = outcome_of(supervisor, make_job(op, outputs=outputs, limits=limits, seconds=60))
    assert isinstance(outcome, Exceeded)
    assert outcome.limit == exceeded
    assert outcome.value >= outcome.bound
    assert outcome.usage.wall_seconds < 5


@pytest.mark.parametrize("limit", ["silence_seconds", "wall_seconds"])
@pytest.mark.parametrize(("op", "starved"), [("sleep", True), ("stop", True), ("burn", False)])
def test_a_worker_that_ran_out_of_time_says_whether_it_had_a_processor(
    op: str, starved: bool, limit: str, supervisor: Supervisor, make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STARVED", 0.02)  # a busy machine may give half a processor to nobody
    outcome = outcome_of(supervisor, make_job(op, limits={limit: 0.5, "cpu_seconds": 60}, seconds=60, quiet=True))
    assert isinstance(outcome, Exceeded)
    assert (outcome.limit, outcome.starved) == (limit, starved)


def test_signs_of_life_keep_a_slow_worker_alive(supervisor: Supervisor, make_job: Any) -> None:
    outcome = outcome_of(supervisor, make_job("sleep", seconds=0.6, beat=True, limits={"silence_seconds": 0.3}))
    assert isinstance(outcome, Completed)


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_worker_that_used_its_processor_time_is_over_it(
    kind: str, make_supervisor: Any, make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervising, "POLL_SECONDS", 60.0)  # nobody looks: the signal alone ends them
    jobs = [make_job("raise_cpu_signal", seconds=seconds, limits={"cpu_seconds": 0.3}) for seconds in (0.0, 0.5)]
    with make_supervisor(workers=1, zygotes={"test": KINDS[kind]}) as supervisor:
        raised, used = (outcome for _, outcome in sorted(supervisor.run(jobs)))
    assert isinstance(raised, Crashed)
    assert (raised.reason, raised.killed) == ("killed by SIGXCPU", False)
    assert isinstance(used, Exceeded)
    assert used.limit == "cpu_seconds"
    assert used.value >= used.bound


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", ["stdout", "stderr"])
def test_a_worker_that_prints_more_than_is_kept_of_it_does_its_job(
    to: str, kind: str, make_supervisor: Any, make_job: Any
) -> None:
    with make_supervisor(zygotes={"test": KINDS[kind]}) as supervisor:
        outcome = outcome_of(supervisor, make_job("talk", to=to))
    assert isinstance(outcome, Completed)
    assert outcome.result == {"refused": True}  # what holds it is as small as it was


@pytest.mark.parametrize("op", ["share", "kill_itself"])
def test_a_worker_may_not_hide_pages_nor_kill_itself(op: str, supervisor: Supervisor, make_job: Any) -> None:
    """Else it could hold memory that no meter sees, and be trained once more as one that somebody else killed."""
    outcome = outcome_of(supervisor, make_job(op))
    assert isinstance(outcome, Crashed)
    assert outcome.reason.startswith("PermissionError")
    assert not outcome.killed
