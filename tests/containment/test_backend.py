"""One suite for every backend; and fail closed: what a machine cannot enforce refuses the run.

A backend that cannot be used on this machine is skipped with its reason. The one without containment is the control:
what is refused elsewhere must succeed there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.containment import proof
from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Job, Usage
from selfimprove.containment.launcher import environment
from selfimprove.containment.sandbox import layers
from selfimprove.containment.sandbox.backend import (
    INDISPENSABLE,
    PROPERTIES,
    LockdownBackend,
    NoBackend,
    SandboxBackend,
    ZygoteSpec,
)
from selfimprove.containment.sandbox.cgroup import Group, Ungrouped
from selfimprove.containment.sandbox.layers import OuterBackend, make_backend
from selfimprove.containment.sandbox.outer import Layer
from selfimprove.containment.sandbox.process import ORPHANED
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import ConfigError, SandboxUnavailable

SCRIPT = Path(__file__).parent / "entries" / "degraded_supervisor.py"
SPEC = ZygoteSpec(("containment_entry",), path=(SCRIPT.parent,))
KINDS = {"fork": SPEC, "once": ZygoteSpec(SPEC.entries, fork=False, path=SPEC.path)}
USES = {"lockdown": "off", "lockdown+bubblewrap": "require", "none": "none"}
KILL_SECONDS = 0.25  # from the kill to the last death
SLACK = 5.0  # seconds that a busy machine may take to do what is due


@pytest.fixture(scope="module", params=USES)
def use(request: pytest.FixtureRequest) -> str:
    """A backend's name, if it can be used here."""
    if request.param == "lockdown+bubblewrap" and not layers.outer_layers()["bubblewrap"].available:
        pytest.skip(f"no {request.param} on this machine: {layers.outer_layers()['bubblewrap'].detail}")
    return str(request.param)


@pytest.fixture(scope="module")
def backend(use: str) -> SandboxBackend:
    return NoBackend() if use == "none" else make_backend("lockdown", outer_layer=USES[use])


class Doubted:
    """A backend that is put to the test whatever it says of itself."""

    name = "doubted"
    contains = True
    degraded: frozenset[str] = frozenset()

    def __init__(self, inner: SandboxBackend) -> None:
        self.probe, self.command, self.enclose = inner.probe, inner.command, inner.enclose


def family() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def from_outside(pid: int) -> psutil.Process:
    """The process below this one that knows itself by a process id, in whatever namespace."""
    for process in family():
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if int(next(line for line in status if line.startswith("NSpid:")).split()[-1]) == pid:
            return process
    raise LookupError(pid)


def seconds_to_kill(supervisor: Supervisor, jobs: Sequence[Job]) -> float:
    """From the moment in which all jobs run and are killed, with their zygote, until nothing of them is left."""
    running: set[int] = set()
    pressed: list[float] = []

    def watch(index: int, event: dict[str, Any]) -> None:
        running.add(index)
        if len(running) == len(jobs):
            pressed.append(time.perf_counter())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(supervisor.run(jobs, on_event=watch))
    supervisor.close()
    return time.perf_counter() - pressed[0]


@pytest.mark.usefixtures("no_process_left")
class TestEveryBackend:
    def test_its_name_says_what_it_is(self, use: str, backend: SandboxBackend) -> None:
        assert backend.name.removesuffix("+cgroup") == use

    def test_it_names_a_mechanism_for_every_property_or_for_none(self, backend: SandboxBackend) -> None:
        probe = backend.probe()
        assert tuple(probe) == PROPERTIES
        assert {bool(mechanism) for mechanism in probe.values()} == {backend.contains}

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_canary_gets_around_nothing_where_it_is_contained_and_around_everything_where_it_is_not(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any
    ) -> None:
        with make_supervisor(backend=Doubted(backend), zygotes={"test": KINDS[kind]}) as supervisor:
            if backend.contains:
                supervisor.prove()
                assert set(supervisor.proofs["test"]) == set(PROPERTIES)
            else:
                with pytest.raises(proof.ContainmentBroken) as caught:
                    supervisor.prove()
                assert set(caught.value.lost) == set(PROPERTIES)

    def test_files_go_in_and_come_back(
        self, backend: SandboxBackend, make_supervisor: Any, make_job: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "a").write_bytes(b"in and out")
        with make_supervisor(backend=backend) as supervisor:
            [(_, outcome)] = supervisor.run([make_job("copy", inputs={"a": tmp_path / "a"}, outputs=["a"])])
        assert isinstance(outcome, Completed)
        assert outcome.outputs == {"a": b"IN AND OUT"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_how_a_worker_ended_and_what_it_used_is_told_honestly(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        shot: list[int] = []

        def kill(index: int, event: dict[str, Any]) -> None:
            if index == 2 and not shot:
                shot.append(event["pid"])
                from_outside(event["pid"]).kill()

        jobs = [make_job("leave", code=3, last_words="so long"), make_job("burn", limits={"cpu_seconds": 0.4}),
                make_job("burn")]  # fmt: skip
        with make_supervisor(backend=backend, workers=1, zygotes={"test": KINDS[kind]}) as supervisor:
            left, burned, killed = (outcome for _, outcome in sorted(supervisor.run(jobs, on_event=kill)))
        assert isinstance(left, Crashed)
        assert (left.reason, left.killed) == ("exit code 3: so long", False)
        assert isinstance(burned, Exceeded)
        assert burned.limit == "cpu_seconds"
        assert 0.4 <= burned.usage.cpu_seconds < 0.4 + SLACK
        assert isinstance(killed, Crashed)
        assert killed.killed, killed

    @pytest.mark.parametrize("outermost", [True, False])
    def test_a_killed_zygote_takes_its_worker_along_and_is_replaced(
        self, backend: SandboxBackend, outermost: bool, make_supervisor: Any, make_job: Any
    ) -> None:
        doomed: list[psutil.Process] = []

        def kill(index: int, event: dict[str, Any]) -> None:
            if not doomed:
                doomed.extend(family())
                (doomed[0] if outermost else from_outside(event["zygote"])).kill()

        with make_supervisor(backend=backend, workers=1) as supervisor:
            outcomes = dict(supervisor.run([make_job("burn"), make_job("echo")], on_event=kill))
            assert not set(doomed) & set(family())
        assert isinstance(outcomes[0], Crashed)
        assert outcomes[0].zygote_died
        assert isinstance(outcomes[1], Completed)

    @pytest.mark.parametrize("kind", KINDS)
    def test_from_the_kill_to_the_last_death_it_takes_less_than_a_quarter_of_a_second(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        seconds = []
        for _ in range(3):
            with make_supervisor(backend=backend, zygotes={"test": KINDS[kind]}) as supervisor:
                jobs = [make_job("burn")] * (2 if kind == "fork" else 1)
                seconds.append(seconds_to_kill(supervisor, jobs))
                assert family() == []
        assert statistics.median(seconds) < KILL_SECONDS

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_dead_mans_switch_reaches_in(
        self, backend: SandboxBackend, kind: str, make_supervisor: Any, make_job: Any
    ) -> None:
        slept: list[float] = []

        def sleep(index: int, event: dict[str, Any]) -> None:
            if not slept:
                slept.append(1.5)
                time.sleep(1.5)

        specs = {"test": KINDS[kind]}
        with make_supervisor(backend=backend, zygotes=specs, heartbeat_seconds=0.5) as supervisor:
            [(_, outcome)] = supervisor.run([make_job("burn")], on_event=sleep)
        assert isinstance(outcome, Crashed)
        assert outcome.unattended, outcome

    def test_a_zygote_whose_supervisor_died_while_it_was_started_ends_by_itself(self, backend: SandboxBackend) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        heart, gone = os.pipe()
        os.close(gone)
        arguments = ["--control", str(theirs.fileno()), "--parent", str(os.getpid()), "--heart", str(heart)]
        command = backend.command([*arguments, "--heartbeat", "60"])
        with control, theirs, subprocess.Popen(
            command, pass_fds=(theirs.fileno(), heart), env=environment(SPEC, None), cwd="/", start_new_session=True
        ) as zygote:  # fmt: skip
            os.close(heart)
            assert zygote.wait(timeout=4 * SLACK) == ORPHANED
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-zygote.pid, 0):  # what an outer layer left to us
                pass

    def test_nothing_outlives_a_supervisor_that_was_killed(self, use: str, backend: SandboxBackend) -> None:
        command = [sys.executable, str(SCRIPT.parent / "lonely_supervisor.py"), USES[use]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            below = json.loads(process.stdout.readline())
            process.kill()
        deadline = time.monotonic() + SLACK
        while (left := [pid for pid in below if is_there(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(below) == (4 if "bubblewrap" in use else 2)
        assert left == []


def is_there(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # orphans come to us where a supervisor made us adopt them
        os.waitpid(pid, os.WNOHANG)
    return psutil.pid_exists(pid)


# -- the outer layer ---------------------------------------------------------------------------------------------------


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

    def look(index: int, event: dict[str, Any]) -> None:
        if not seen:
            there = Path(f"/proc/{from_outside(event['pid']).pid}")
            kinds = ("ipc", "mnt", "net", "pid", "user", "uts")
            shared = {
                kind for kind in kinds if os.readlink(there / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}")
            }
            mounts = [line.split() for line in (there / "mountinfo").read_text().splitlines()]
            writable = {fields[4] for fields in mounts if "rw" in fields[5].split(",")}
            seen.append((shared, writable))

    with make_supervisor(backend=walled) as supervisor:
        list(supervisor.run([make_job("burn", limits={"wall_seconds": 0.5})], on_event=look))
    [(shared, writable)] = seen
    assert shared == set()
    assert {path for path in writable if not path.startswith(("/proc", "/dev/"))} == set()


def test_the_outer_layer_adds_mechanisms_and_makes_up_for_none() -> None:
    class Leaky(Pretender):
        degraded = frozenset({"read"})

        def probe(self) -> dict[str, str | None]:
            return dict.fromkeys(PROPERTIES, "a wall") | {"network": None}

    backend = OuterBackend(Leaky(), "/bin/bwrap", grouped=True)
    assert backend.name == "pretender+bubblewrap+cgroup"
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


# -- failing closed ----------------------------------------------------------------------------------------------------


def on_a_machine_without(call: str, *allowed: str) -> str:
    command = [sys.executable, str(SCRIPT), call, *allowed]
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


class Pretender:
    """A backend that promises containment and gives none."""

    name = "pretender"
    contains = True
    degraded: frozenset[str] = frozenset()

    def probe(self) -> dict[str, str | None]:
        return dict.fromkeys(PROPERTIES, "a promise")

    def command(self, arguments: Sequence[str]) -> list[str]:
        return NoBackend().command(arguments)

    def enclose(self, roles: int, workers: int) -> Group:
        return Ungrouped()


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
