"""Which device a run uses, found out without importing torch into the trusted main process."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from selfimprove.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")

# The driver's own answer, in a child: cuInit in this process would make every later fork unsafe.
_COUNT = (
    "import ctypes;c=ctypes.CDLL('libcuda.so.1');n=ctypes.c_int(0);"
    "ok=c.cuInit(0)==0 and c.cuDeviceGetCount(ctypes.byref(n))==0;print(n.value if ok else 0)"
)
_NAMES = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
count, name, size = ctypes.c_int(0), ctypes.create_string_buffer(256), ctypes.c_size_t(0)
if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
    for device in range(count.value):
        driver.cuDeviceGetName(name, 256, device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        print(f"{name.value.decode(errors='replace')} ({size.value / 2**30:.0f} GiB)")
"""


def resolve_device(choice: object) -> str:
    """Return ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigError: an unknown name, or ``cuda`` where no GPU can be used; the message says what is missing.
    """
    if choice not in DEVICES:
        from selfimprove.app.schema import suggest

        raise ConfigError("set device", choice, ", ".join(DEVICES), suggest(str(choice), DEVICES))
    if choice == "cpu":
        return "cpu"
    missing = missing_for_cuda()
    if choice == "cuda" and missing:
        raise ConfigError("set device", "cuda", "auto or cpu on this machine", f"{missing}; use device=cpu")
    return "cpu" if missing else "cuda"


def missing_for_cuda(devices: Path = Path("/dev")) -> str:
    """Why CUDA cannot be used here; empty when it can. A driver probe is started only where a device node exists."""
    if not torch_has_cuda():
        return "the installed torch is a CPU build"
    if not any((devices / name).exists() for name in ("nvidiactl", "dxg")):
        return "no NVIDIA GPU is visible"
    try:
        probe = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "the NVIDIA driver does not answer"
    if probe.stdout.strip() in ("", "0"):
        return "the NVIDIA driver reports no usable GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
    return ""


def cuda_devices() -> list[str]:
    """Names of the usable GPUs as the driver gives them, asked in a child; empty where it does not answer."""
    try:
        probe = subprocess.run([sys.executable, "-c", _NAMES], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in probe.stdout.splitlines() if line.strip()]


def torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, read from its version file."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"^cuda[^=\n]*=\s*['\"]", text, re.MULTILINE) is not None


def usable_cores() -> int:
    """Cores that this process may really use: the affinity mask, cut down by a cgroup v2 quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2 here: the mask is all there is to know
    return cores
