"""Proof before trust: a real worker tries to break out of every zygote before any job runs in it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, final

from selfimprove.containment.jobs import Completed, Crashed, Invalid, Job, JobLimits, Outcome
from selfimprove.containment.launcher import Stage, ZygoteHandle
from selfimprove.containment.sandbox.backend import PROPERTIES, SandboxBackend
from selfimprove.errors import SandboxUnavailable

CANARY_ENTRY: Final = "selfimprove.containment.sandbox.canary"
_OPERATION: Final = "prove the containment with a canary"
_LIMITS: Final = JobLimits(
    wall_seconds=20, cpu_seconds=5, memory_bytes=64 * 2**20, output_bytes=64 * 1024, silence_seconds=20
)


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
    """One canary run: the files that it attacks, the job, and the judgement over what it reports."""

    def __init__(self, zygote: str, *, address_space_limited: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="canary-")
        folder = Path(self._folder.name)
        self._secret = folder / "secret"
        self._secret.write_text("a worker must not read this")
        payload = {
            "secret": os.fspath(self._secret),
            "new_file": os.fspath(folder / "written"),
            "memory_bytes": _LIMITS.memory_bytes if address_space_limited else None,
            "file_bytes": _LIMITS.output_bytes,
        }
        self.job = Job(f"canary/{zygote}", zygote, CANARY_ENTRY, payload, {}, ("disk",), _LIMITS)

    def judge(self, outcome: Outcome, degraded: Collection[str]) -> dict[str, str]:
        """Return how each property held.

        Raises:
            ContainmentBroken: an attack succeeded on a property that the run did not give up, or files were touched.
            SandboxUnavailable: the canary did not come back.
        """
        if isinstance(outcome, Invalid):  # its last attempt is to become another program
            raise SandboxUnavailable(_OPERATION, f"exec: {outcome.reason}", "a canary that returns")
        if not isinstance(outcome, Completed):
            raise SandboxUnavailable(_OPERATION, str(outcome), "a canary that returns")
        held, escaped = outcome.result.get("held"), outcome.result.get("escaped")
        if not isinstance(held, dict) or not isinstance(escaped, dict):
            raise SandboxUnavailable(_OPERATION, "a report that is malformed", "a canary that reports")
        lost = {prop: how for prop, how in escaped.items() if prop not in degraded}
        unproven = [prop for prop in PROPERTIES if prop not in held and prop not in escaped]
        if os.listdir(self._folder.name) != [self._secret.name]:
            lost.setdefault("write", "it left a file behind")
        proven = {prop: str(how) for prop, how in held.items() if prop not in lost}
        if lost or unproven:
            raise ContainmentBroken(lost | dict.fromkeys(unproven, "not tried"), proven)
        return proven

    def close(self) -> None:
        """Remove the files that it attacked."""
        self._folder.cleanup()


@final
class Proofs:
    """Which zygotes have been put to the test, and how it went.

    Args:
        backend: one that contains nothing is not tested.
    """

    def __init__(self, backend: SandboxBackend) -> None:
        self._backend = backend
        self._canaries: dict[str, Canary] = {}
        self.held: dict[str, dict[str, str]] = {}

    def needed(self, zygote: ZygoteHandle) -> bool:
        """True unless this role was proven before, or there is nothing to prove."""
        return self._backend.contains and zygote.name not in self.held

    def begin(self, zygote: ZygoteHandle) -> Job:
        """Return the canary's job for a zygote."""
        canary = Canary(zygote.name, address_space_limited=zygote.spec.device != "cuda")
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
                self.held[zygote.name] = canary.judge(outcome, self._backend.degraded)
            except BaseException:
                zygote.bury()
                raise
        if zygote.alive:
            zygote.stage = Stage.SERVING

    def abandon(self, zygotes: Iterable[ZygoteHandle]) -> None:
        """Forget canaries under way; their zygotes, which nobody would ever judge, are buried."""
        for canary in self._canaries.values():
            canary.close()
        self._canaries.clear()
        for zygote in zygotes:
            if zygote.stage is Stage.PROVING:
                zygote.bury()
