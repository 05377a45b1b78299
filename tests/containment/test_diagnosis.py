"""What this machine can enforce is proven by a worker, and what is lost is named with its remedy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from selfimprove.containment import diagnosis, gpu
from selfimprove.containment.sandbox import landlock
from selfimprove.containment.sandbox.backend import INDISPENSABLE, PROPERTIES, NoBackend
from tests.containment.helpers import Pretender


def pretend(monkeypatch: pytest.MonkeyPatch, backend: type[Pretender]) -> None:
    """Put a backend in the place of the lock-down, with nothing around it that would contain after all."""
    monkeypatch.setattr(diagnosis, "LockdownBackend", backend)
    monkeypatch.setattr(diagnosis, "with_outer_layer", lambda inner: inner)


@pytest.mark.usefixtures("no_process_left")
def test_every_property_is_held_here_and_was_tried() -> None:
    found = diagnosis.diagnose()
    assert tuple(found) == PROPERTIES
    assert {finding.state for finding in found.values()} == {"held"}
    assert all(finding.mechanism and finding.proof for finding in found.values())


def test_a_gpu_workers_memory_is_lost_where_nothing_meters_it_and_all_else_is_held() -> None:
    found = diagnosis.diagnose("cuda")
    lost = {prop for prop, finding in found.items() if finding.state != "held"}
    assert lost == ({"memory"} if gpu.absence() else set())


@pytest.mark.usefixtures("no_process_left")
def test_a_mechanism_that_does_not_hold_is_lost_whatever_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Pretender)
    found = diagnosis.diagnose()
    assert {finding.state for finding in found.values()} == {"lost"}
    assert all(finding.remedy for finding in found.values())


def test_a_lock_down_that_fails_names_its_property(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halfway(Pretender):
        def command(self, arguments: Sequence[str]) -> list[str]:
            sandbox = "selfimprove.containment.sandbox"
            stub = f"from {sandbox} import landlock, zygote; landlock.MINIMUM_ABI = 99; zygote.main()"
            command = NoBackend().command(arguments)
            return [*command[:3], "-c", stub, *command[5:-1]]  # neither -m MODULE nor --bare

    pretend(monkeypatch, Halfway)
    found = diagnosis.diagnose()
    assert found["read"].state == "lost"
    assert "ABI 99 is needed" in found["read"].problem
    assert {found[prop].state for prop in PROPERTIES if prop != "read"} == {"unproven"}


@pytest.mark.parametrize("prop", PROPERTIES)
def test_only_what_may_be_given_up_is_said_to_be(monkeypatch: pytest.MonkeyPatch, prop: str) -> None:
    monkeypatch.setattr(Pretender, "probe", lambda self: dict.fromkeys(PROPERTIES, "a promise") | {prop: None})
    pretend(monkeypatch, Pretender)
    lost = diagnosis.diagnose()[prop]
    assert lost.state == "lost"
    assert ("allow_degraded" in lost.remedy) == (prop not in INDISPENSABLE)


@pytest.mark.usefixtures("no_process_left")
def test_a_gpus_worker_that_could_write_without_landlock_is_said_to_miss_landlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    found = diagnosis.diagnose("cuda")
    assert found["write"].problem == found["read"].problem
    assert "Landlock" in found["write"].problem
    assert found["write"].remedy.endswith("no run may go without it")


def test_a_landlock_that_is_too_old_is_told_from_one_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 2)
    assert diagnosis._absence("read") == ("the kernel's Landlock is ABI 2; 3 is needed", "use Linux 6.2 or newer")
