"""What is asked of a worker, and how it ended: plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JobLimits:
    """What one job may use.

    Args:
        wall_seconds: from the moment the worker is let go until it is dead.
        cpu_seconds: user and system time together.
        memory_bytes: memory that the job may add to what its warm zygote holds.
        output_bytes: size of all outputs together.
        silence_seconds: longest pause between two signs of life (``emit``).
        gpu_memory_bytes: of a CUDA worker, as the driver counts it: its context included. Without effect on the CPU.
    """

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    output_bytes: int
    silence_seconds: float
    gpu_memory_bytes: int = 8 * 2**30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"limits.{name}: got {value}; allowed: finite and above zero")


@dataclass(frozen=True)
class Job:
    """One call of an entry's ``run`` in its own worker.

    Args:
        key: the caller's name for it, e.g. ``g003/c05/s1``.
        zygote: which of the supervisor's zygotes to fork.
        entry: the module whose ``run`` is called; one of that zygote's entries.
        payload: JSON handed to ``run`` as ``job``.
        inputs: files that the worker can read, by name; each a regular file.
        outputs: names under which the worker can write.
        limits: what it may use.
    """

    key: str
    zygote: str
    entry: str
    payload: dict[str, Any]
    inputs: dict[str, Path]
    outputs: tuple[str, ...]
    limits: JobLimits


@dataclass(frozen=True)
class Usage:
    """What a worker used, measured from outside. Never part of a lineage: clocks differ between replays.

    A GPU is held for as long as the CUDA worker lives, whether it computes or not.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0
    gpu_seconds: float = 0.0
    max_gpu_bytes: int = 0


@dataclass(frozen=True)
class Spent:
    """Processor time and GPU time of many workers together, in seconds."""

    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: Spent | Usage) -> Spent:
        return Spent(self.cpu_seconds + other.cpu_seconds, self.gpu_seconds + other.gpu_seconds)


@dataclass(frozen=True)
class Completed:
    """The worker returned a result and ended by itself. The content is still untrusted."""

    result: dict[str, Any]
    outputs: dict[str, bytes] = field(repr=False)
    usage: Usage


@dataclass(frozen=True)
class Exceeded:
    """The worker went over a limit and was killed.

    Args:
        limit: a field of `JobLimits`, or ``event_bytes``.
        value: that was found.
        bound: that it is over.
        usage: what it used until then.
        starved: the limit is on time that passes, and for more than half of it the worker was given no processor: it
            slept, or the machine had other things to do, such as to find memory.
    """

    limit: str
    value: float
    bound: float
    usage: Usage
    starved: bool = False


@dataclass(frozen=True)
class Crashed:
    """The worker raised or died.

    Args:
        reason: the exception or signal; text of the worker, cleaned and capped.
        usage: what it used until then.
        zygote_died: the zygote under it died, so the job itself is not to blame.
        killed: a SIGKILL that the supervisor did not send ended it: a person, or the kernel short of memory.
        unattended: so did the dead-man's switch, because the supervisor was silent.
        evicted: so did whoever took the machine away from it, for somebody else's sake.
        lost_property: the containment property whose lock-down failed, if that is why; a worker's own word.
    """

    reason: str
    usage: Usage
    zygote_died: bool = False
    killed: bool = False
    unattended: bool = False
    evicted: bool = False
    lost_property: str = ""


@dataclass(frozen=True)
class NotBegun:
    """No outcome: it was permitted and handed to a node, and never began. Its permit is of no more use.

    It may follow again, under a new one, unless the run is being stopped.
    """


@dataclass(frozen=True)
class Invalid:
    """The worker said something that the protocol does not allow."""

    reason: str
    usage: Usage


Outcome = Completed | Exceeded | Crashed | Invalid
