"""No optimizer step is taken without a good permit: real trainings in real workers, and permits that are not good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.containment.permit import Permit, PermitBook, PermitRefused
from selfimprove.containment.sandbox.backend import LockdownBackend
from selfimprove.containment.supervisor import Job, Outcome, Supervisor, ZygoteSpec
from selfimprove.errors import LimitReached
from selfimprove.loop import measuring
from selfimprove.loop.slots import Bench, Slot
from selfimprove.loop.stages import slices
from selfimprove.training.protocol import ENTRY
from tests.loop.played import bench_of

CONFIG = settings_from(compose(("experiment=quick", "debug=micro", "device=cpu"))).run
GENOME = CONFIG.seed_genome
SHOWING = measuring.Showing(1, "training", (0.0, 1.0))


@dataclass
class Heard:
    """A supervisor, and the steps that its training workers told of."""

    supervisor: Supervisor
    steps: list[int] = field(default_factory=list)

    def run(self, jobs: Sequence[Job], on_start: Callable[[int], None] | None = None) -> Iterator[tuple[int, Outcome]]:
        def hear(index: int, event: dict[str, Any]) -> None:
            self.steps += [event["step"]] if "step" in event else []

        return self.supervisor.run(jobs, on_event=hear, on_start=on_start)


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(
        {"torch": ZygoteSpec((ENTRY,))},
        backend=LockdownBackend(), workers=1, halt_file=None, should_stop=lambda: False,
    ) as found:  # fmt: skip
        yield found


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Setting:
    """A bench with one slot to train, and what is heard of it."""

    bench: Bench
    heard: Heard
    clock: Clock

    def train(self) -> Any:
        return measuring.measure(
            self.bench, [Slot("g001/c00/s0", "search", GENOME, 0, (("search", 1),), CONFIG.tasks)], SHOWING
        )

    def forge(self, monkeypatch: pytest.MonkeyPatch, make: Callable[[Permit], Permit]) -> None:
        """Hand out what ``make`` makes of each permit."""
        issue = PermitBook.issue
        monkeypatch.setattr(PermitBook, "issue", lambda book, *rest, **more: make(issue(book, *rest, **more)))


@pytest.fixture
def setting(supervisor: Supervisor, tmp_path: Path) -> Setting:
    clock, heard = Clock(), Heard(supervisor)
    bench = bench_of(CONFIG, tmp_path, heard, clock)
    bench.register(GENOME)
    return Setting(bench, heard, clock)


def test_with_a_permit_for_each_stage_a_training_takes_all_its_steps(setting: Setting) -> None:
    assert setting.train() != [None]
    assert max(setting.heard.steps) == setting.bench.price(GENOME, setting.bench.config.tasks).steps


def test_without_a_permit_no_step_is_taken(setting: Setting) -> None:
    setting.bench.known_genomes.clear()  # the policy denies what was never registered
    with pytest.raises(LimitReached):
        setting.train()
    assert setting.heard.steps == []


def test_with_a_forged_permit_no_step_is_taken(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.forge(monkeypatch, lambda permit: replace(permit, steps=permit.steps * 9))
    with pytest.raises(PermitRefused, match="signed"):
        setting.train()
    assert setting.heard.steps == []


def test_with_an_expired_permit_no_step_is_taken(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(permit: Permit) -> Permit:
        setting.clock.now = permit.expires_at + 1.0
        return permit

    setting.forge(monkeypatch, late)
    with pytest.raises(PermitRefused, match="before"):
        setting.train()
    assert setting.heard.steps == []


def test_with_a_replayed_permit_no_step_is_taken_beyond_the_stage_it_was_for(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: list[Permit] = []

    def again(permit: Permit) -> Permit:
        first.append(permit)
        return first[0]

    setting.forge(monkeypatch, again)
    with pytest.raises(PermitRefused):
        setting.train()
    assert len(first) == 2
    assert (
        max(setting.heard.steps)
        == next(iter(slices(setting.bench.price(GENOME, setting.bench.config.tasks)).values())).last
    )


def test_a_worker_that_went_on_after_its_stage_has_failed_and_is_granted_no_other(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measuring.TrainJob
    monkeypatch.setattr(measuring, "TrainJob", lambda *given: real(*given[:6], None))  # to the end, whatever is granted
    assert setting.train() == [None]
    [outcome] = setting.bench.journal.all("outcome")
    assert outcome["status"] == "invalid"
    assert "its permit ends at" in outcome["reason"]
    assert len(setting.bench.journal.all("permit")) == 1
