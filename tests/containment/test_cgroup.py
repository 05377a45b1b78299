"""A group per run, on a tree that keeps the kernel's rules, and on the kernel's own where this machine has one."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from selfimprove.containment.sandbox import cgroup
from selfimprove.containment.sandbox.backend import LockdownBackend
from selfimprove.containment.sandbox.cgroup import ROLE_BYTES, ROLE_TASKS, WORKER_TASKS, RunGroup
from selfimprove.containment.sandbox.layers import OuterBackend
from selfimprove.containment.sandbox.outer import Layer
from selfimprove.errors import SandboxUnavailable

HOME = Path("/cgroup/user/run.scope")
ME = os.getpid()
CHILD, STRANGER = ME + 100_000, ME + 200_000


class Kernel:
    """The rules of ``cgroups(7)`` that delegation runs into, over nothing but dictionaries."""

    def __init__(self, *inside: int, offered: str = "cpu memory pids", subtree: str = "") -> None:
        self.processes: dict[Path, list[int]] = {HOME: list(inside)}
        self.subtree: dict[Path, list[str]] = {HOME: subtree.split()}
        self.offered = offered.split()
        self.values: dict[Path, str] = {}

    def _controllers(self, group: Path) -> list[str]:
        return self.offered if group == HOME else self.subtree[group.parent]

    def read(self, path: Path) -> str:
        group = path.parent
        match path.name:
            case "cgroup.procs":
                return "".join(f"{pid}\n" for pid in self.processes[group])
            case "cgroup.subtree_control":
                return " ".join(self.subtree[group])
            case "cgroup.controllers":
                return " ".join(self._controllers(group))
        return self.values[path]

    def write(self, path: Path, text: str) -> None:
        group = path.parent
        match path.name:
            case "cgroup.procs":
                if self.subtree[group]:
                    raise OSError(errno.EBUSY, "a group that hands controllers down holds no process")
                for pids in self.processes.values():
                    with contextlib.suppress(ValueError):
                        pids.remove(int(text))
                self.processes[group].append(int(text))
            case "cgroup.subtree_control":
                for word in text.split():
                    if word[0] == "+" and self.processes[group]:
                        raise OSError(errno.EBUSY, "a process is in it")
                    if word[1:] not in self._controllers(group):
                        raise OSError(errno.ENOENT, "not offered")
                    (self.subtree[group].append if word[0] == "+" else self.subtree[group].remove)(word[1:])
            case "cgroup.kill":
                self.processes[group] = []
            case name:
                if name.split(".")[0] not in self._controllers(group):
                    raise OSError(errno.ENOENT, "no such file without its controller")
                self.values[path] = text

    def make(self, path: Path) -> None:
        if path in self.processes:
            raise OSError(errno.EEXIST, "exists")
        self.processes[path], self.subtree[path] = [], []

    def remove(self, path: Path) -> None:
        if self.processes[path]:
            raise OSError(errno.EBUSY, "not empty")
        del self.processes[path], self.subtree[path]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "EMPTY_SECONDS", 0.05)


def make(kernel: Kernel, **changes: Any) -> RunGroup:
    arguments: dict[str, Any] = {"roles": 2, "workers": 3, "own": lambda pid: pid in (ME, CHILD)}
    return RunGroup(HOME, tree=kernel, **(arguments | changes))


def test_our_own_process_moves_into_a_leaf_before_controllers_are_handed_down() -> None:
    kernel = Kernel(ME, CHILD)
    with contextlib.closing(make(kernel)) as group:
        [leaf] = {path for path in kernel.processes if path.parent == HOME} - {group.path}
        assert kernel.processes == {HOME: [], leaf: [ME, CHILD], group.path: []}
        assert kernel.subtree[HOME] == ["memory", "pids"]
        assert kernel.read(group.path / "cgroup.controllers").split() == ["memory", "pids"]


def test_the_bounds_are_those_of_the_roles_and_of_the_most_that_jobs_were_granted_at_once() -> None:
    kernel = Kernel(ME)
    with contextlib.closing(make(kernel)) as group:
        assert kernel.values[group.path / "pids.max"] == str(2 * ROLE_TASKS + 3 * WORKER_TASKS)
        assert kernel.values[group.path / "memory.max"] == str(2 * ROLE_BYTES)
        for granted in (2**30, 3 * 2**30, 2**20):
            group.grant(granted)
        assert kernel.values[group.path / "memory.max"] == str(2 * ROLE_BYTES + 3 * 2**30)


def test_everything_is_put_back_on_the_way_out_and_whatever_was_left_inside_is_dead() -> None:
    kernel = Kernel(ME, CHILD)
    group = make(kernel)
    kernel.write(group.path / "cgroup.procs", str(STRANGER))
    group.close()
    assert kernel.processes == {HOME: [ME, CHILD]}
    assert kernel.subtree == {HOME: []}
    group.close()  # a second time changes nothing


def test_foreign_processes_are_left_where_they_are_and_the_group_is_not_made() -> None:
    kernel = Kernel(STRANGER, ME)
    with pytest.raises(OSError, match="a process is in it"):
        make(kernel)
    assert sorted(kernel.processes[HOME]) == [ME, STRANGER]
    assert list(kernel.processes) == [HOME]


def test_what_another_handed_down_before_us_stays_handed_down() -> None:
    kernel = Kernel(offered="memory pids", subtree="memory pids")  # we are in none of its groups: the top of a tree
    make(kernel).close()
    assert kernel.subtree[HOME] == ["memory", "pids"]


def test_a_controller_that_was_not_delegated_is_an_error_and_everything_is_put_back() -> None:
    kernel = Kernel(ME, offered="cpu pids")
    with pytest.raises(OSError, match="not offered"):
        make(kernel)
    assert kernel.processes == {HOME: [ME]}


def test_the_processes_that_descend_from_this_one_are_ours_and_its_parent_is_not() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30 & echo; wait"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        below = psutil.Process(child.pid).children()
        assert [cgroup.is_ours(pid) for pid in (ME, child.pid, below[0].pid)] == [True, True, True]
        assert not cgroup.is_ours(os.getppid())
        for process in (*below, child):
            process.kill()


# -- the self-test -----------------------------------------------------------------------------------------------------


@pytest.fixture
def delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A mounted tree whose group ``/here`` looks delegated, and the kernel's list that says we are in it."""
    (tmp_path / "here").mkdir()
    for name in ("cgroup.controllers", "here/cgroup.procs", "here/cgroup.subtree_control"):
        (tmp_path / name).write_text("")
    (tmp_path / "own").write_text("0::/here\n")
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"1")
    monkeypatch.setattr(__name__ + ".HOME", tmp_path / "here")
    return tmp_path, tmp_path / "own"


def test_a_group_that_works_is_available_and_nothing_of_the_test_stays(delegated: tuple[Path, Path]) -> None:
    kernel, seen = Kernel(ME), []
    layer = cgroup.self_test(*delegated, kernel, lambda group: seen.append(group.path) or "")
    assert layer == Layer(True, "made a group with memory, pids, killed a process through it, removed it")
    assert len(seen) == 1
    assert kernel.processes == {HOME: [ME]}


def test_a_group_that_does_not_kill_is_not_available(delegated: tuple[Path, Path]) -> None:
    layer = cgroup.self_test(*delegated, Kernel(ME), lambda group: "cgroup.kill does not kill")
    assert not layer.available
    assert "does not kill" in layer.detail


def test_a_group_that_cannot_be_made_is_not_available_and_the_remedy_is_a_delegated_scope(
    delegated: tuple[Path, Path],
) -> None:
    layer = cgroup.self_test(*delegated, Kernel(STRANGER, ME), lambda group: "")
    assert not layer.available
    assert "Delegate=yes" in layer.remedy


def test_root_does_not_take_a_group_that_nobody_delegated(
    delegated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmarked(path: Any, name: str) -> bytes:
        raise OSError(errno.ENODATA, "no such attribute")

    monkeypatch.setattr(os, "getxattr", unmarked)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    layer = cgroup.home(*delegated)
    assert isinstance(layer, Layer)
    assert "not delegated" in layer.detail


def test_version_1_is_told_from_a_process_that_is_in_no_group(tmp_path: Path) -> None:
    here = cgroup.home(tmp_path)
    assert isinstance(here, Layer)
    assert "v2 is not mounted" in here.detail
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    (tmp_path / "own").write_text("3:memory:/here\n")
    nowhere = cgroup.home(tmp_path, tmp_path / "own")
    assert isinstance(nowhere, Layer)
    assert "in no cgroup" in nowhere.detail


def test_a_group_that_worked_in_its_test_and_does_not_in_the_run_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "home", lambda: Layer(False, "it is gone", ""))
    backend = OuterBackend(LockdownBackend(), None, grouped=True)
    with pytest.raises(SandboxUnavailable, match="it is gone"):
        backend.enclose(1, 1)


# -- the kernel's own tree ---------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> tuple[Path, tuple[str, ...]]:
    """A real group that we may use, and the controllers that it can bound; a hybrid machine's has none of them."""
    for root in (cgroup.ROOT, cgroup.ROOT / "unified"):
        found = cgroup.home(root)
        if isinstance(found, Path):
            offered = (found / "cgroup.controllers").read_text().split()
            return found, tuple(name for name in cgroup.CONTROLLERS if name in offered)
    assert isinstance(found, Layer)
    pytest.skip(f"no cgroup v2 to try this on: {found.detail}")


def test_a_real_group_kills_what_is_inside_and_is_removed(real: tuple[Path, tuple[str, ...]]) -> None:
    home, controllers = real
    before = set(home.iterdir())
    try:
        group = RunGroup(home, roles=1, workers=1, controllers=controllers)
    except OSError as error:
        pytest.skip(f"the group that this process is in cannot be used: {error}")
    try:
        assert Path("/proc/self/cgroup").read_text().splitlines()[-1].endswith("-supervisor")
        assert cgroup.kills_all(group) == ""
    finally:
        group.close()
    assert set(home.iterdir()) == before


@pytest.mark.usefixtures("no_process_left")
def test_workers_live_and_die_in_a_real_group(
    real: tuple[Path, tuple[str, ...]], make_supervisor: Any, make_job: Any
) -> None:
    home, controllers = real

    class Grouped:
        name, contains, degraded = "grouped", True, frozenset[str]()
        probe, command = LockdownBackend().probe, LockdownBackend().command

        def enclose(self, roles: int, workers: int) -> RunGroup:
            return RunGroup(home, roles=roles, workers=workers, controllers=controllers)

    inside: list[int] = []

    def look(index: int, event: dict[str, Any]) -> None:
        if not inside:
            [group] = home.glob("selfimprove-*-workers")
            inside.extend(int(pid) for pid in (group / "cgroup.procs").read_text().split())

    try:
        supervisor = make_supervisor(backend=Grouped())
    except OSError as error:
        pytest.skip(f"the group that this process is in cannot be used: {error}")
    with supervisor:
        list(supervisor.run([make_job("burn", limits={"wall_seconds": 0.4})], on_event=look))
    assert len(inside) == 2
    assert not list(home.glob("selfimprove-*"))
