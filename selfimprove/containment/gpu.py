"""GPU memory by process, read from outside: through NVML, the driver's own library.

The caching allocator inside a CUDA worker refuses what is over the limit, but the worker owns that allocator. What
holds against a worker that goes around it is the supervisor, which asks the driver who uses how much and kills.

Not covered: what a worker takes between two polls, and GPUs that are split (MIG), whose instances have meters of their
own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol, final

from selfimprove.errors import SandboxUnavailable

MECHANISM: Final = "allocator cap, NVML watched"
REMEDY: Final = "install nvidia-ml-py and NVIDIA's driver; in a container, give it the host's process ids (--pid=host)"
CONTEXT_BYTES: Final = 2**30  # set aside for CUDA itself: its context and libraries, not measured here


def allocator_bytes(limit: int) -> int:
    """What the allocator of a worker may take, so that with the driver's context it stays within a limit."""
    return max(limit // 2, limit - CONTEXT_BYTES)


class GpuMeter(Protocol):
    """Says who holds how much GPU memory."""

    def used_bytes(self, processes: Collection[int]) -> Mapping[int, int]:
        """Bytes by process id, over all GPUs, of these processes; one that holds none is missing.

        Raises:
            SandboxUnavailable: the driver does not say. Nothing on a GPU is metered then.
        """


@final
class NvmlMeter:
    """The driver's own figures. One handle a GPU, opened once.

    Args:
        nvml: the module ``pynvml``, or what stands in for it.

    Raises:
        SandboxUnavailable: there is no driver, or no GPU.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError as error:
            raise SandboxUnavailable("meter GPU memory", f"NVML: {error}", "a driver that answers", REMEDY) from error
        if not self._gpus:
            raise SandboxUnavailable("meter GPU memory", "no GPU", "at least one", REMEDY)

    def used_bytes(self, processes: Collection[int]) -> Mapping[int, int]:
        """See `GpuMeter`."""
        used: dict[int, int] = {}
        try:
            for gpu in self._gpus:
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(gpu):
                    if process.pid not in processes:
                        continue
                    if process.usedGpuMemory is None:  # what the driver does not tell must not pass for nothing
                        value = f"NVML does not tell what process {process.pid} holds"
                        raise SandboxUnavailable("meter GPU memory", value, "a figure for every process", REMEDY)
                    used[process.pid] = used.get(process.pid, 0) + int(process.usedGpuMemory)
        except self._nvml.NVMLError as error:
            raise SandboxUnavailable("meter GPU memory", f"NVML: {error}", "a driver that answers", REMEDY) from error
        return used


def find_meter() -> GpuMeter:
    """This machine's meter.

    Raises:
        SandboxUnavailable: it has none; says why.
    """
    try:
        import pynvml
    except ImportError as error:
        raise SandboxUnavailable("meter GPU memory", "no package nvidia-ml-py", "NVML", REMEDY) from error
    return NvmlMeter(pynvml)


def meter_for(devices: Iterable[str]) -> tuple[GpuMeter | None, str]:
    """This machine's meter if a device needs one and there is one, and why there is none where one is needed."""
    if "cuda" not in devices:
        return None, ""
    try:
        return find_meter(), ""
    except SandboxUnavailable as error:
        return None, str(error.value)


def absence() -> str:
    """Why this machine cannot meter GPU memory; empty where it can."""
    try:
        find_meter().used_bytes(())
    except SandboxUnavailable as error:
        return str(error.value)
    return ""
