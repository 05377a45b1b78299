"""A control group of version 2 for everything that a run starts: a bound on all of it, and a second kill switch.

Used where a part of the tree was delegated to us, as systemd does for ``systemd-run --user --scope -p Delegate=yes``,
and a container's manager for its container. The rules are the kernel's and systemd's (``cgroups(7)``, "Control Group
APIs and Delegation"): nothing outside the delegated group is touched; a group that hands controllers down holds no
process itself, so ours moves into a leaf first; and what was changed is changed back.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, Protocol, final

from selfimprove.containment.sandbox.outer import Layer

ROOT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
CONTROLLERS: Final = ("memory", "pids")
ROLE_BYTES: Final = 4 * 2**30  # what a warm zygote may hold, libraries in the page cache included
ROLE_TASKS: Final = 256  # processes and threads of a role beside its workers
WORKER_TASKS: Final = 64  # a CUDA worker has threads
EMPTY_SECONDS: Final = 2.0  # how long the last process of a group may take to be gone
_JOIN: Final = 'echo 0 > "$0" && exec "$@"'  # 0 means whoever writes: the shell, which then becomes the program


class Group(Protocol):
    """What a supervisor knows of the group that its processes are in."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """What comes before a command line so that the program starts inside."""

    def grant(self, job_bytes: int) -> None:
        """Let the jobs that run at once have this many bytes together; never takes back."""

    def kill(self) -> None:
        """Kill everything inside at once."""

    def close(self) -> None:
        """Kill what is left and remove the group. Safe to call twice."""


@final
class Ungrouped:
    """No group: nothing more is bounded, and there is no second kill switch."""

    prefix: tuple[str, ...] = ()

    def grant(self, job_bytes: int) -> None:
        """Do nothing."""

    def kill(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Tree(Protocol):
    """The part of a file system that cgroups are made of."""

    def read(self, path: Path) -> str:
        """Return a file's text; raises OSError."""

    def write(self, path: Path, text: str) -> None:
        """Write to a file that exists, in one call; raises OSError."""

    def make(self, path: Path) -> None:
        """Make a group; raises OSError."""

    def remove(self, path: Path) -> None:
        """Remove an empty group; raises OSError."""


@final
class Mounted:
    """The kernel's own tree."""

    def read(self, path: Path) -> str:
        """Return a file's text."""
        return path.read_text(encoding="ascii", errors="replace")

    def write(self, path: Path, text: str) -> None:
        """Write in one call; never creates a file."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)

    def make(self, path: Path) -> None:
        """Make a group."""
        path.mkdir()

    def remove(self, path: Path) -> None:
        """Remove an empty group."""
        path.rmdir()


@final
class RunGroup:
    """The group of one supervisor, inside the group that was delegated to it.

    ``home`` ends up with two children: a leaf that holds us, and the group that holds what we start.

    Args:
        home: the delegated group that this process is in.
        roles: zygotes that will live in it.
        workers: workers that may run at once.
        tree: where groups are made.
        controllers: what ``home`` must be able to hand down.
        own: tells which processes of ``home`` are ours to move.

    Raises:
        OSError: it was not delegated, foreign processes are in it, or the kernel refuses a step. Every step that was
            taken is taken back.
    """

    def __init__(
        self, home: Path, *, roles: int, workers: int, tree: Tree | None = None,
        controllers: Collection[str] = CONTROLLERS, own: Callable[[int], bool] | None = None,
    ) -> None:  # fmt: skip
        self._tree = tree or Mounted()
        self._own = own or is_ours
        self._floor = roles * ROLE_BYTES
        self._granted = 0
        self._leaf = home / f"selfimprove-{os.getpid()}-supervisor"
        self.path = home / f"selfimprove-{os.getpid()}-workers"
        with contextlib.ExitStack() as stack:
            self._set_up(home, controllers, stack)
            if "pids" in controllers:
                self._tree.write(self.path / "pids.max", str(roles * ROLE_TASKS + workers * WORKER_TASKS))
            if "memory" in controllers:
                self._tree.write(self.path / "memory.max", str(self._floor))
            self._stack = stack.pop_all()
        self._bounds_memory = "memory" in controllers

    def _set_up(self, home: Path, controllers: Collection[str], stack: contextlib.ExitStack) -> None:
        self._tree.make(self._leaf)
        stack.callback(self._remove, self._leaf)
        stack.callback(self._move, self._leaf, home, lambda pid: True)  # children that were born there included
        self._move(home, self._leaf, self._own)
        before = self._tree.read(home / "cgroup.subtree_control").split()
        added = [name for name in controllers if name not in before]
        if added:
            self._tree.write(home / "cgroup.subtree_control", " ".join(f"+{name}" for name in added))
            stack.callback(self._hand_down_no_more, home, added)
        self._tree.make(self.path)
        stack.callback(self._remove, self.path)

    @property
    def prefix(self) -> tuple[str, ...]:
        """A shell that enters the group and becomes the program; where it cannot enter, nothing starts."""
        return "/bin/sh", "-c", _JOIN, os.fspath(self.path / "cgroup.procs")

    def grant(self, job_bytes: int) -> None:
        """Raise ``memory.max`` to what the roles and these jobs may hold together."""
        if self._bounds_memory and job_bytes > self._granted:
            self._granted = job_bytes
            self._tree.write(self.path / "memory.max", str(self._floor + job_bytes))

    def kill(self) -> None:
        """Kill everything inside through ``cgroup.kill`` (Linux 5.14): no process can fork its way out of it."""
        with contextlib.suppress(FileNotFoundError):  # closed, and empty since
            self._tree.write(self.path / "cgroup.kill", "1")

    def close(self) -> None:
        """Kill what is left, remove the group, and put everything back as it was found, as far as that can be done."""
        with contextlib.suppress(OSError):  # every step is tried; a folder that stays behind is empty and bounds nobody
            self.kill()
        with contextlib.suppress(OSError):
            self._stack.close()

    def _move(self, source: Path, target: Path, chosen: Callable[[int], bool]) -> None:
        for pid in map(int, self._tree.read(source / "cgroup.procs").split()):
            if chosen(pid):
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    self._tree.write(target / "cgroup.procs", str(pid))

    def _hand_down_no_more(self, home: Path, added: list[str]) -> None:
        self._tree.write(home / "cgroup.subtree_control", " ".join(f"-{name}" for name in added))

    def _remove(self, path: Path) -> None:
        deadline = time.monotonic() + EMPTY_SECONDS
        while True:
            try:
                self._tree.remove(path)
                return
            except OSError:  # busy: the last of it is still ending
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)


def is_ours(pid: int) -> bool:
    """True for this process and all that descend from it."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return False
        pid = int(fields[1])
    return False


def home(root: Path = ROOT, own: Path = OWN) -> Path | Layer:
    """Return the group that was delegated to this process, or why there is none.

    Args:
        root: where version 2 is mounted.
        own: the kernel's list of the groups that this process is in.
    """
    if not (root / "cgroup.controllers").is_file():
        remedy = "boot with systemd.unified_cgroup_hierarchy=1, or run without it"
        return Layer(False, "cgroup v2 is not mounted as the one hierarchy", remedy)
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    place = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if place is None or ".." in place:
        return Layer(False, "this process is in no cgroup of version 2 that can be seen from here", "run without it")
    group = root / place.lstrip("/")
    if not _delegated(group, top=place == "/"):
        return Layer(False, "its cgroup is not delegated to this user", _DELEGATE)
    return group


_DELEGATE: Final = "start it with: systemd-run --user --scope -p Delegate=yes selfimprove ..."


def _delegated(group: Path, *, top: bool) -> bool:
    """An ordinary user may write where it was delegated; root may everywhere, and asks for systemd's mark."""
    if not all(os.access(group / name, os.W_OK) for name in ("", "cgroup.procs", "cgroup.subtree_control")):
        return False
    if os.geteuid() != 0 or top:  # the top is all that a container sees of its own group
        return True
    for mark in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(group, mark) == b"1"
    return False


def kills_all(group: RunGroup) -> str:
    """Start a process in a group and kill it through the group; returns what went wrong, empty if nothing did."""
    command = [*group.prefix, "/bin/sh", "-c", "echo; exec sleep 30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        try:
            if child.stdout.read(1) != b"\n":
                return "no process can be started in it"
            group.kill()
            if child.wait(EMPTY_SECONDS) != -9:
                return "cgroup.kill does not kill"
        except OSError as error:
            return f"it has no cgroup.kill ({os.strerror(error.errno or 0)})"
        except subprocess.TimeoutExpired:
            return "cgroup.kill does not kill"
        finally:
            child.kill()
    return ""


def self_test(
    root: Path = ROOT, own: Path = OWN, tree: Tree | None = None, attempt: Callable[[RunGroup], str] = kills_all,
    controllers: Collection[str] = CONTROLLERS,
) -> Layer:  # fmt: skip
    """Make a group as a run would, kill a process through it, and put everything back.

    Args:
        root: where version 2 is mounted.
        own: the kernel's list of the groups that this process is in.
        tree: where groups are made.
        attempt: what is tried with the group; returns what went wrong.
        controllers: what it must be able to bound.
    """
    place = home(root, own)
    if isinstance(place, Layer):
        return place
    try:
        with contextlib.closing(RunGroup(place, roles=1, workers=1, tree=tree, controllers=controllers)) as group:
            wrong = attempt(group)
    except OSError as error:
        return Layer(False, f"a group of its own cannot be made ({os.strerror(error.errno or 0)})", _DELEGATE)
    if wrong:
        return Layer(False, f"a group of its own is of no use: {wrong}", "use Linux 5.14 or newer, or run without it")
    return Layer(True, f"made a group with {', '.join(controllers)}, killed a process through it, removed it")
