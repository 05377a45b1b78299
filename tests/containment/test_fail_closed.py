"""Fail closed: what a machine cannot enforce refuses the run, unless the run gave up exactly that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment import proof
from selfimprove.containment.jobs import Completed, Usage
from selfimprove.containment.sandbox import landlock
from selfimprove.containment.sandbox.backend import INDISPENSABLE, PROPERTIES, LockdownBackend, ZygoteSpec
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.errors import ConfigError, SandboxUnavailable
from tests.containment.helpers import ENTRIES, SPEC, Pretender


def on_a_machine_without(call: str, *allowed: str) -> str:
    command = [sys.executable, str(ENTRIES / "degraded_supervisor.py"), call, *allowed]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_this_machine_has_a_mechanism_for_every_property() -> None:
    probe = LockdownBackend().probe()
    assert tuple(probe) == PROPERTIES
    assert all(probe.values())


def test_without_landlock_the_run_is_refused_by_the_name_of_the_property() -> None:
    said = on_a_machine_without("landlock_create_ruleset")
    assert said.startswith("refused")
    assert "no mechanism for read" in said


def test_without_landlock_a_run_that_gave_up_reading_starts_and_holds_the_rest() -> None:
    said = on_a_machine_without("landlock_create_ruleset", "read")
    rest = sorted(set(PROPERTIES) - {"read"})
    assert said == f"started without ['read'], proved {rest}\n"


@pytest.mark.parametrize("act", ["open({path!r}, 'w')", "import os; os.open({path!r}, os.O_RDONLY | os.O_CREAT)"])
def test_without_landlock_a_package_of_somebodys_own_still_writes_nothing(act: str, tmp_path: Path) -> None:
    (package := tmp_path / "folder" / "someones").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(act.format(path=str(tmp_path / "written")) + "\n")
    options = ["--package", str(package.parent), package.name]
    said = on_a_machine_without("landlock_create_ruleset", "read", *options)
    assert said.startswith("refused")
    assert "PermissionError" in said
    assert not (tmp_path / "written").exists()


def test_without_landlock_a_gpus_worker_could_write_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver opens devices for writing, and only Landlock tells those from other files."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    assert LockdownBackend(["read"], device="cuda").probe()["write"] is None
    assert LockdownBackend(["read"]).probe()["write"] is not None
    with pytest.raises(SandboxUnavailable, match="no mechanism for write"):
        LockdownBackend(["read", "memory"], device="cuda").command([])


@pytest.mark.parametrize(("device", "acceptable"), [("cpu", True), ("cuda", False)])
def test_a_refusal_offers_to_accept_only_what_may_be_accepted(
    device: str, acceptable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Landlock a CPU's worker lacks *read* alone, a GPU's *write* as well."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(SandboxUnavailable) as caught:
        LockdownBackend(device=device).command([])
    assert ("containment.allow_degraded" in str(caught.value)) == acceptable


def test_without_seccomp_the_run_is_refused() -> None:
    said = on_a_machine_without("seccomp")
    assert "no mechanism for" in said
    assert "network" in said


def test_giving_up_what_can_be_given_up_does_not_help_where_seccomp_is_missing() -> None:
    allowed = [prop for prop in PROPERTIES if prop not in INDISPENSABLE]
    assert on_a_machine_without("seccomp", *allowed).startswith("refused")


def test_without_pidfds_the_run_is_refused() -> None:
    assert "parent_death" in on_a_machine_without("pidfd_open")


@pytest.mark.parametrize("prop", [*sorted(INDISPENSABLE), "kill", "raed"])
def test_what_can_never_be_given_up_is_refused(prop: str) -> None:
    with pytest.raises(SandboxUnavailable, match="allow_degraded"):
        LockdownBackend([prop])


def test_giving_up_what_the_machine_has_gives_up_nothing() -> None:
    assert LockdownBackend(["read", "disk"]).degraded == frozenset()


def test_an_unknown_backend_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="lockdown, none"):
        make_backend("docker")


def test_cuda_and_forking_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="fork=False"):
        ZygoteSpec(("entry",), device="cuda")


@pytest.mark.usefixtures("no_process_left")
def test_a_backend_that_only_promises_is_caught_by_the_canary(make_supervisor: Any) -> None:
    with make_supervisor(backend=Pretender()) as supervisor, pytest.raises(SandboxUnavailable) as caught:
        supervisor.prove()
    assert [prop for prop in PROPERTIES if f"{prop}: an attempt went through" not in str(caught.value)] == []


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("use", ["off", "auto"])
def test_the_profile_for_cuda_holds_every_property_too(use: str, make_supervisor: Any) -> None:
    spec = ZygoteSpec(SPEC.entries, device="cuda", fork=False, path=SPEC.path)
    backend = make_backend("lockdown", ["memory"], device="cuda", outer_layer=use)  # where nothing meters a GPU's
    with make_supervisor(backend=backend, zygotes={"test": spec}) as supervisor:
        supervisor.prove()
        assert set(supervisor.proofs["test"]) == set(PROPERTIES)


@pytest.mark.parametrize(
    "report",
    [
        {"held": dict.fromkeys(PROPERTIES, "x"), "escaped": {"network": "an attempt went through"}},
        {"held": dict.fromkeys(PROPERTIES[1:], "x"), "escaped": {}},
        {"held": []},
        {},
    ],
)
def test_a_canary_that_escaped_or_did_not_try_refuses_the_run(report: dict[str, Any]) -> None:
    canary = proof.Canary("test")
    try:
        with pytest.raises(SandboxUnavailable, match="canary"):
            canary.judge(Completed(report, {}, Usage()), frozenset())
    finally:
        canary.close()
