"""The protocol of executors, and the choice of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from selfimprove.containment.jobs import Job, NotBegun, Outcome, Spent


class Executor(Protocol):
    """Runs jobs in contained workers. The supervisor is one: that of this machine."""

    @property
    def spent(self) -> Spent:
        """Time of all workers so far."""

    def run(
        self, jobs: Sequence[Job], *, on_start: Callable[[int], object] | None = None
    ) -> Iterator[tuple[int, Outcome | NotBegun]]:
        """Run jobs; yields (index, outcome) as they end, in whatever order that is.

        One that was permitted and is known not to have begun is yielded as such at once; if nobody asked to stop, it is
        started under a new permit later.

        Args:
            jobs: what to run.
            on_start: called with a job's index just before it starts, here or on a node: the moment to sign its permit,
                which it returns.

        Raises:
            Halted: the kill switch was used; nothing runs any more.
            Interrupted: a person or a limit asked it to stop; what ran was finished and yielded.
        """

    def close(self) -> None:
        """End everything that was started. Safe to call twice."""
