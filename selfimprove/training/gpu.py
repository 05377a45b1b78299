"""The allocator's cap on GPU memory, which a CUDA worker sets for itself before its job touches the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

GPU_MEMORY = "gpu_memory_bytes"  # in a CUDA worker's job: what its allocator may take


def cap_memory(job: Mapping[str, Any]) -> None:
    """Let torch refuse what is over the job's limit; a job without one holds no GPU.

    The supervisor stands behind it and kills by what the driver says: an allocator is only as honest as its process.
    """
    if GPU_MEMORY not in job:
        return
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, int(job[GPU_MEMORY]) / total))
