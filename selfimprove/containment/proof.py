"""Proof before trust: a real worker tries to break out of every zygote before any job runs in it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Invalid, Job, JobLimits, Outcome
from selfimprove.containment.launcher import Stage, ZygoteHandle
from selfimprove.containment.sandbox.backend import PROPERTIES, SandboxBackend
from selfimprove.containment.sandbox.zygote import CANARY
from selfimprove.errors import SandboxUnavailable

_OPERATION: Final = "prove the containment with a canary"
_LIMITS: Final = JobLimits(
    wall_seconds=20, cpu_seconds=5, memory_bytes=64 * 2**20, output_bytes=64 * 1024, silence_seconds=20
)
_PATIENCE_SECONDS: Final = 5.0  # how long a canary over a limit waits to be killed: a hundred polls
_GPU_BYTES: Final = 2**20  # a CUDA context alone is larger


@final
class ContainmentBroken(SandboxUnavailable):
    """A canary broke out, or left something untried.

    Args:
        lost: each property that was lost, and how.
        held: each property that held all the same, and the refusal that the canary met.
    """

    def __init__(self, lost: Mapping[str, str], held: Mapping[str, str]) -> None:
        self.lost = dict(lost)
        self.held = dict(held)
        found = "; ".join(f"{prop}: {how}" for prop, how in lost.items())
        super().__init__(_OPERATION, found, "no property lost", "see `selfimprove doctor`")


@final
class Canary:
    """One canary run: the files that it attacks, the job, and the judgement over what it reports.

    Args:
        zygote: the role to put to the test.
        on_gpu: its workers have no limit on their address space, which the CUDA driver reserves without end. So nothing
            refuses them memory, and their canary does not try.
        overrun: try nothing but to go over this limit of the job, which must get it killed from outside.
    """

    def __init__(self, zygote: str, *, on_gpu: bool = False, overrun: str = "") -> None:
        self._on_gpu = on_gpu
        self._overrun = overrun
        self._folder = tempfile.TemporaryDirectory(prefix="canary-")
        folder = Path(self._folder.name)
        self._secret = folder / "secret"
        self._secret.write_text("a worker must not read this")
        payload: dict[str, object] = {
            "secret": os.fspath(self._secret),
            "new_file": os.fspath(folder / "written"),
            "memory_bytes": None if on_gpu else _LIMITS.memory_bytes,
            "file_bytes": _LIMITS.output_bytes,
        }
        limits = replace(_LIMITS, gpu_memory_bytes=_GPU_BYTES) if overrun == "gpu_memory_bytes" else _LIMITS
        if overrun:
            size = getattr(limits, overrun) * 3 // 2
            payload = {"overrun": overrun, "bytes": size, "patience_seconds": _PATIENCE_SECONDS}
        self.job = Job(f"canary/{zygote}", zygote, CANARY, payload, {}, ("disk",), limits)

    def judge(self, outcome: Outcome, degraded: Collection[str]) -> dict[str, str]:
        """Return how each property held.

        Raises:
            ContainmentBroken: an attack succeeded on a property that the run did not give up, or files were touched.
            SandboxUnavailable: the canary did not come back.
        """
        if self._overrun:
            return self._judge_overrun(outcome, degraded)
        if isinstance(outcome, Invalid):  # its last attempt is to become another program
            raise SandboxUnavailable(_OPERATION, f"exec: {outcome.reason}", "a canary that returns")
        if isinstance(outcome, Crashed):
            prop = outcome.lost_property
            raise SandboxUnavailable(_OPERATION, outcome.reason, "a canary that returns", prop=prop)
        if not isinstance(outcome, Completed):
            raise SandboxUnavailable(_OPERATION, str(outcome), "a canary that returns")
        held, escaped = outcome.result.get("held"), outcome.result.get("escaped")
        if not isinstance(held, dict) or not isinstance(escaped, dict):
            raise SandboxUnavailable(_OPERATION, "a report that is malformed", "a canary that reports")
        lost = {prop: how for prop, how in escaped.items() if prop not in degraded}
        tried = {*held, *escaped, *(["memory"] if self._on_gpu else [])}
        unproven = [prop for prop in PROPERTIES if prop not in tried]
        if os.listdir(self._folder.name) != [self._secret.name]:
            lost.setdefault("write", "it left a file behind")
        proven = {prop: str(how) for prop, how in held.items() if prop not in lost}
        if lost or unproven:
            raise ContainmentBroken(lost | dict.fromkeys(unproven, "not tried"), proven)
        return proven

    def _judge_overrun(self, outcome: Outcome, degraded: Collection[str]) -> dict[str, str]:
        """Only a worker that was killed for exactly this has proven that the limit is watched."""
        if isinstance(outcome, Exceeded) and outcome.limit == self._overrun:
            return {"memory": f"killed over {self._overrun}"}
        if "memory" in degraded:
            return {}
        how = str(outcome)
        if isinstance(outcome, Completed) and isinstance(escaped := outcome.result.get("escaped"), dict):
            how = str(escaped.get("memory", how))
        raise ContainmentBroken({"memory": how}, {})

    def close(self) -> None:
        """Remove the files that it attacked."""
        self._folder.cleanup()


@final
class Proofs:
    """Which zygotes have been put to the test, and how it went.

    A CUDA role takes three canaries, each in a process of its own: what can be refused; host memory and GPU memory,
    which nothing refuses there, and a worker over its limit must be killed for.

    Args:
        backend: one that contains nothing is not tested.
        unmetered: why nothing meters GPU memory here; empty where something does.
    """

    def __init__(self, backend: SandboxBackend, unmetered: str = "") -> None:
        self._backend = backend
        self._unmetered = unmetered
        self._steps: Counter[str] = Counter()
        self._found: dict[str, dict[str, str]] = {}
        self._canaries: dict[str, Canary] = {}
        self.held: dict[str, dict[str, str]] = {}

    def needed(self, zygote: ZygoteHandle) -> bool:
        """True unless this role was proven before, or there is nothing to prove."""
        return self._backend.contains and zygote.name not in self.held

    def begin(self, zygote: ZygoteHandle) -> Job:
        """Return the canary's job for a zygote."""
        overrun = self._overruns(zygote)[self._steps[zygote.name]]
        canary = Canary(zygote.name, on_gpu=zygote.spec.device == "cuda", overrun=overrun)
        self._canaries[zygote.name] = canary
        return canary.job

    def judge(self, zygote: ZygoteHandle, outcome: Outcome) -> None:
        """Let the zygote serve, or bury it and raise SandboxUnavailable as `Canary.judge` does.

        A canary whose zygote died under it, or that was killed because the supervisor was silent, proves nothing: the
        next zygote of the role is put to the test.
        """
        with contextlib.closing(self._canaries.pop(zygote.name)) as canary:
            if isinstance(outcome, Crashed) and (outcome.zygote_died or outcome.unattended):
                if outcome.unattended:
                    zygote.bury()
                return
            try:
                self._note(zygote, canary.judge(outcome, self._backend.degraded))
            except ContainmentBroken as error:
                zygote.bury()
                raise ContainmentBroken(error.lost, self._found.get(zygote.name, {}) | error.held) from None
            except BaseException:
                zygote.bury()
                raise
        if zygote.alive:
            zygote.stage = Stage.SERVING

    def _overruns(self, zygote: ZygoteHandle) -> tuple[str, ...]:
        """The overrun that each canary of a role tries; the first tries everything else."""
        if zygote.spec.device != "cuda":
            return ("",)
        return ("", "memory_bytes") if "memory" in self._backend.degraded else ("", "memory_bytes", "gpu_memory_bytes")

    def _note(self, zygote: ZygoteHandle, held: Mapping[str, str]) -> None:
        """Add what one canary proved; raises ContainmentBroken where the next one could prove nothing."""
        found, overruns = self._found.setdefault(zygote.name, {}), self._overruns(zygote)
        for prop, how in held.items():
            found[prop] = f"{found[prop]}, {how}" if prop in found else how
        self._steps[zygote.name] += 1
        rest = overruns[self._steps[zygote.name] :]
        if "gpu_memory_bytes" in rest and self._unmetered:
            found.pop("memory", None)
            raise ContainmentBroken({"memory": f"nothing meters GPU memory: {self._unmetered}"}, {})
        if not rest:
            self.held[zygote.name] = found

    def abandon(self, zygotes: Iterable[ZygoteHandle]) -> None:
        """Forget canaries under way; their zygotes, which nobody would ever judge, are buried."""
        for canary in self._canaries.values():
            canary.close()
        self._canaries.clear()
        for zygote in zygotes:
            if zygote.stage is Stage.PROVING:
                zygote.bury()
