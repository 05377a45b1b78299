"""The zygotes of a supervisor: started on demand, restarted once, and given up with a clear error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, final

from selfimprove.containment import hostile
from selfimprove.containment.launcher import Command, Stage, ZygoteHandle
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.errors import RunError, SandboxUnavailable

WARM_UP_SECONDS: Final = 300.0


@final
class Nursery:
    """Keeps one live zygote per role.

    Args:
        specs: the roles, by name.
        command: makes the command line that starts one, contained.
        clock: seconds that only grow.
        heartbeat_seconds: the longest silence of the supervisor that their workers survive.
    """

    def __init__(
        self,
        specs: Mapping[str, ZygoteSpec],
        command: Command,
        clock: Callable[[], float],
        heartbeat_seconds: float,
    ) -> None:
        self._specs = dict(specs)
        self._command = command
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._handles: dict[str, ZygoteHandle] = {}
        self._deaths: Counter[str] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        """All roles."""
        return tuple(self._specs)

    @property
    def alive(self) -> list[ZygoteHandle]:
        """Zygotes that were not found dead."""
        return [zygote for zygote in self._handles.values() if zygote.alive]

    @property
    def listening(self) -> list[ZygoteHandle]:
        """Zygotes whose control socket is open at both ends."""
        return [zygote for zygote in self.alive if zygote.stage is not Stage.WORKING]

    def spec(self, name: str) -> ZygoteSpec:
        """Return a role's specification; raises ValueError with the known names."""
        if name not in self._specs:
            raise ValueError(f"zygote {name!r}; known: {', '.join(sorted(self._specs))}")
        return self._specs[name]

    def forgive(self) -> None:
        """Forget earlier deaths: every batch of jobs may restart a zygote once."""
        self._deaths.clear()

    def warm(self, name: str) -> ZygoteHandle:
        """Return the role's zygote, starting one in the background if there is none or it is dead and left alone."""
        zygote = self._handles.get(name)
        if zygote is not None and not zygote.alive and zygote.workers == 0:
            self._handles.pop(name).close()
            zygote = None
        if zygote is None:
            zygote = ZygoteHandle(name, self.spec(name), self._command, self._clock(), self._heartbeat_seconds)
            self._handles[name] = zygote
        return zygote

    def check_warm_up(self) -> None:
        """End zygotes that do not get warm."""
        for zygote in self.alive:
            if zygote.stage is Stage.WARMING and self._clock() - zygote.started > WARM_UP_SECONDS:
                zygote.kill()

    def check_threads(self, zygote: ZygoteHandle, threads: int) -> None:
        """Refuse to fork a process with threads: what one of them has locked stays locked in the child for ever.

        Raises:
            RunError: it has more than one, and is dead.
        """
        if zygote.spec.fork and threads != 1:
            zygote.bury()
            remedy = "an import or warm_up() of its entries starts threads: allow it none, or do not fork it"
            raise RunError(f"fork workers from zygote {zygote.name}", f"{threads} threads", "1", remedy)

    def bury(self, zygote: ZygoteHandle, failure: Mapping[str, Any] | None = None) -> None:
        """Note that a zygote is gone.

        Args:
            zygote: the dead.
            failure: what it said before it ended, if it said anything.

        Raises:
            SandboxUnavailable: it could not lock itself down.
            RunError: it could not import or warm up its entries, or this was its second death in a batch.
        """
        zygote.bury()
        if failure is not None:
            reason = hostile.clean_line(f"{failure.get('type')}: {failure.get('message')}")
            if failure.get("stage") == "lock-down":
                prop = hostile.clean_line(str(failure.get("property") or ""))
                operation, remedy = f"lock down zygote {zygote.name}", "see `selfimprove doctor`"
                raise SandboxUnavailable(operation, reason, remedy=remedy, prop=prop)
            raise RunError(f"warm up zygote {zygote.name}", reason, remedy=zygote.errors()[-500:])
        if zygote.spec.fork or zygote.workers == 0:
            self._deaths[zygote.name] += 1
        if self._deaths[zygote.name] > 1:
            said = zygote.errors()[-500:] or "it said nothing"
            raise RunError(f"serve jobs with zygote {zygote.name}", "it died twice", remedy=f"its last words: {said}")

    def close(self) -> None:
        """Kill, reap and forget all zygotes."""
        for zygote in self._handles.values():
            zygote.close()
        self._handles.clear()
