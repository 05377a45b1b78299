"""The executor of a cluster: hands permitted trainings to nodes and takes their outcomes back.

Nothing is permitted before a node is ready to start it, so that a queue, however long, costs nothing. A task whose node
was lost is given to another one under the same permit if it is known not to have begun; if it has, or may have, the
attempt is lost and the caller decides about another, under a new permit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Final, final

from selfimprove.containment.jobs import Crashed, Job, NotBegun, Outcome, Spent, Usage
from selfimprove.containment.permit import Permit
from selfimprove.errors import Halted, Interrupted
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.fleet import Assigned, Fleet, Member
from selfimprove.executors.messages import Task, output_names, prefix_of, read_outcome, write_pack

POLL_SECONDS: Final = 0.2
SPARE_SECONDS: Final = 300.0  # that a permit must still be good for when a task is given away again
PACK_SECONDS: Final = 3000.0  # that a pack may take at most: the last of its permits must be good when it is spent


@final
class ClusterExecutor:
    """Runs jobs on the nodes of a fleet; see `Executor`.

    Args:
        config: how many jobs a node is handed at a time.
        fleet: the nodes.
        halted: whether the kill switch was used.
        should_stop: once true, no further job is handed out, and nodes start none of those that they were handed.
        on_unattended: called with a job's key and a reason when its worker died of its supervisor's silence.
        pause: sleeps.
        now: seconds since 1970.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        fleet: Fleet,
        *,
        halted: Callable[[], bool],
        should_stop: Callable[[], bool],
        on_unattended: Callable[[str, str], None],
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._halted = halted
        self._should_stop = should_stop
        self._on_unattended = on_unattended
        self._pause = pause
        self._now = now
        self._packs = 0

    @property
    def spent(self) -> Spent:
        """Time of all workers on nodes, as far as it was heard."""
        return self._fleet.spent

    def run(
        self, jobs: Sequence[Job], *, on_start: Callable[[int], object] | None = None
    ) -> Iterator[tuple[int, Outcome | NotBegun]]:
        """See `Executor.run`; ``on_start`` must return the permit. Closing the iterator early ends every node."""
        pending = deque(range(len(jobs)))
        permits: dict[int, Permit] = {}
        stopping = quiet = False
        try:
            while pending or self._busy:
                if self._halted():
                    raise Halted(
                        "run jobs on nodes", remedy="the kill switch was used; resume with --clear-halt to go on"
                    )
                if not stopping and self._should_stop():
                    stopping = True
                    self._fleet.stop()
                gone = self._fleet.refresh()
                for member in [*gone, *self._fleet.members]:
                    yield from self._outcomes(member)
                for member in gone:
                    yield from self._losses(member, pending, permits)
                if stopping:
                    yield from ((index, NotBegun()) for index in pending if index in permits)
                    pending.clear()
                if pending:
                    self._fleet.provide(jobs[pending[0]].key.partition("/")[0], ceil(len(pending) / self._config.pack))
                    self._hand_out(jobs, pending, permits, on_start)
                if pending or self._busy:
                    self._pause(POLL_SECONDS)
            quiet = True
            if stopping or self._should_stop():
                raise Interrupted("run jobs on nodes", remedy="finished work is kept; resume to go on")
        finally:
            if not quiet:
                self._fleet.cancel("abandoned")

    def close(self) -> None:
        """End every node. Safe to call twice."""
        self._fleet.close()

    @property
    def _busy(self) -> bool:
        return any(member.tasks for member in self._fleet.members)

    def _hand_out(
        self,
        jobs: Sequence[Job],
        pending: deque[int],
        permits: dict[int, Permit],
        on_start: Callable[[int], object] | None,
    ) -> None:
        """Give every idle node a pack; permits are signed in the order of the jobs, just before they are handed out."""
        for member in self._fleet.idle:
            if not pending:
                return
            chosen = [pending.popleft() for _ in range(min(self._most(jobs[pending[0]]), len(pending)))]
            for index in chosen:
                if index not in permits:
                    permits[index] = _signed(jobs[index], on_start(index) if on_start is not None else None)
            self._packs += 1
            tasks = [Task(jobs[index], permits[index]) for index in chosen]
            given = (Assigned(index, task) for index, task in zip(chosen, tasks, strict=True))
            member.tasks = {prefix_of(self._packs, place): assigned for place, assigned in enumerate(given)}
            member.tell(write_pack(self._packs, tasks))

    def _most(self, job: Job) -> int:
        """How many such jobs a node is handed at a time."""
        in_time = max(1, int(PACK_SECONDS // job.limits.wall_seconds))
        return min(self._config.pack, in_time * self._config.workers)

    def _outcomes(self, member: Member) -> Iterator[tuple[int, Outcome]]:
        """What a node has come to the end of."""
        for prefix, given in list(member.tasks.items()):
            outcome = read_outcome(prefix, given.task.job, member.files)
            if outcome is None:
                continue
            del member.tasks[prefix]
            for name in output_names(prefix, given.task.job):
                member.files.pop(name, None)
            self._fleet.progressed()
            if isinstance(outcome, Crashed) and outcome.unattended:
                self._on_unattended(given.task.job.key, outcome.reason)
            yield given.index, outcome

    def _losses(
        self, member: Member, pending: deque[int], permits: dict[int, Permit]
    ) -> Iterator[tuple[int, Outcome | NotBegun]]:
        """What a lost node leaves behind: tasks for another node, or attempts that are lost."""
        for prefix, given in reversed(member.tasks.items()):
            if member.has_begun(prefix):
                del permits[given.index]
                reason = f"node {member.name} was lost: {member.why}"
                yield given.index, Crashed(reason, Usage(), killed=True, evicted=member.evicted)
                continue
            pending.appendleft(given.index)
            if given.task.permit.expires_at <= self._now() + SPARE_SECONDS:
                del permits[given.index]
                yield given.index, NotBegun()
        member.tasks = {}


def _signed(job: Job, permit: object) -> Permit:
    if not isinstance(permit, Permit):
        raise TypeError(f"job {job.key}: on_start returned no permit, and nodes train nothing else")
    return permit
