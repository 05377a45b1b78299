"""File access rules through Landlock: everything is refused but reading what the interpreter and its libraries need.

Not covered by Landlock: ``stat``, ``chmod``, ``utime`` and extended attributes; the system call filter refuses those
that change anything, and metadata of files can still be seen.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from landlockpy import AccessFS, LandlockError, Ruleset, Scope
from landlockpy import abi_version as kernel_abi

MINIMUM_ABI = 3  # the first that also covers truncation

_READ = AccessFS.READ_FILE | AccessFS.READ_DIR
_OWN = AccessFS.READ_FILE | AccessFS.READ_DIR | AccessFS.WRITE_FILE | AccessFS.TRUNCATE
_DEVICE = AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.IOCTL_DEV

_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_SYSTEM_FACTS = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node",
                 "/usr/share/zoneinfo", "/dev/zero", "/dev/urandom", "/dev/random")  # fmt: skip
_WRITABLE_DEVICES = ("/dev/null",)
_DEVICES = Path("/dev")
_CUDA_DEVICES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
_CUDA_FACTS = ("/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/proc/self", "/sys/bus/pci", "/sys/devices",
               "/sys/module", "/etc/nvidia", "/usr/share/nvidia", "/usr/local/cuda", "/usr/local/nvidia",
               "/etc/ld.so.conf.d")  # fmt: skip
_OWN_THREADS = "/proc/self/task"  # the driver names its threads there, and gives up with error 304 where it may not
_LINKER_CONFIGURATION = Path("/etc/ld.so.conf.d")


@dataclass(frozen=True)
class Access:
    """What a process may still open by path."""

    read: tuple[Path, ...]
    devices: tuple[Path, ...]
    own: tuple[Path, ...] = ()


def abi() -> int:
    """Return the kernel's Landlock version, 0 if it has none."""
    try:
        return kernel_abi()
    except (LandlockError, OSError):
        return 0


def interpreter_access(packages: Iterable[Path], *, cuda: bool) -> Access:
    """Return what this interpreter needs to import and run: its own libraries, the system's, and our packages.

    Args:
        packages: folders of our own source. An import folder that is no installation (a checkout) is not granted as a
            whole, since run folders may lie in it; only these packages in it are.
        cuda: also grant the NVIDIA devices, the folders in which the driver's libraries may lie, and writing to what
            the kernel shows of the process's own threads.
    """
    paths = sysconfig.get_paths()
    installed = {Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    installed |= {Path(prefix) / "lib" for prefix in (sys.prefix, sys.base_prefix)}
    installed |= {Path(entry) for entry in sys.path if Path(entry).name in {"site-packages", "dist-packages"}}
    read = [*sorted(installed), *packages, *map(Path, _SYSTEM_LIBRARIES + _SYSTEM_FACTS)]
    devices = [Path(device) for device in _WRITABLE_DEVICES]
    if cuda:
        read += [*map(Path, _CUDA_FACTS), *linker_folders()]
        devices += cuda_devices()
    return Access(tuple(read), tuple(devices), (Path(_OWN_THREADS),) if cuda else ())


def linker_folders(configuration: Path = _LINKER_CONFIGURATION) -> list[Path]:
    """Return the folders that the system's dynamic linker is told to search; drivers are mounted into one of them."""
    lines = [line.strip() for file in sorted(configuration.glob("*.conf")) for line in file.read_text().splitlines()]
    return [Path(line) for line in lines if line.startswith("/")]


def cuda_devices() -> list[Path]:
    """Return the NVIDIA device files, whether they exist or not, that a CUDA worker opens.

    The GPUs are found by listing a folder, which a locked-down process may not: it would find none.
    """
    return [*(_DEVICES / name for name in _CUDA_DEVICES), *sorted(_DEVICES.glob("nvidia[0-9]*"))]


def restrict(access: Access) -> None:
    """Apply the rules to the calling thread and its future children; they can never be widened.

    Abstract sockets and signals out of the domain are refused as well, where the kernel knows how (ABI 6).

    Raises:
        OSError: the kernel has no Landlock, or a version that cannot hold the rules.
    """
    if abi() < MINIMUM_ABI:
        raise OSError(f"Landlock ABI {MINIMUM_ABI} is needed, the kernel has {abi()}")
    with Ruleset(scoped=Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL) as rules:
        for path in access.read:
            _allow(rules, path, _READ if path.is_dir() else AccessFS.READ_FILE)
        for path in access.devices:
            _allow(rules, path, _DEVICE)
        for path in access.own:
            _allow(rules, path, _OWN)
        rules.restrict()


def _allow(rules: Ruleset, path: Path, rights: AccessFS) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        rules.allow_path(os.fspath(path), rights)
