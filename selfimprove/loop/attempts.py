"""Second attempts: a job whose end may have been the machine's doing is run once more, alone.

A candidate that raises, overruns or breaks the protocol has shown what it is worth. One whose process was killed from
outside, whose zygote died under it, or that ran out of time without a processor to use it, has shown nothing: what
happened says something about the machine, and must not decide a lineage. Alone, because the likeliest cause is a kernel
that ran out of memory for several at once. What the dead-man's switch killed is never the job's doing, however often it
happens, nor is what a scheduler took the machine away from: that is run until it ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TypeGuard

from selfimprove.containment.jobs import Crashed, Exceeded, Job, NotBegun, Outcome
from selfimprove.errors import LimitReached
from selfimprove.executors.executor import Executor


def attempt(
    executor: Executor,
    jobs: Sequence[Job],
    *,
    on_start: Callable[[int], object] | None = None,
    on_killed: Callable[[int], None] = lambda index: None,
    on_returned: Callable[[int], None] = lambda index: None,
) -> Generator[tuple[int, Outcome], None, None]:
    """Run jobs as ``Executor.run`` does, the killed and the starved ones a second time when the others are done.

    Args:
        executor: runs them.
        jobs: what to run.
        on_start: called with a job's index just before each of its attempts; returns the permit, if it needs one.
        on_killed: called with the index of a job that is to be run again, to book what is lost. It raises LimitReached
            where that may not be lost: then there is no further attempt, and the outcome stands.
        on_returned: called with the index of a job that was permitted and did not begin, to take its permit back.

    Raises:
        LimitReached: what was killed through no fault of its own cannot be run again: nothing more may be lost.
        What ``Executor.run`` and ``on_start`` raise.
    """

    def again(index: int, outcome: Outcome) -> bool:
        try:
            on_killed(index)
        except LimitReached as full:
            if _never_its_doing(outcome):
                after = "its machine was taken away" if outcome.evicted else "the supervisor was silent"
                operation = f"run {jobs[index].key} again after {after}"
                raise LimitReached(operation, full.value, full.limit, full.remedy) from full
            return False
        return True

    def run(chosen: Sequence[int]) -> Iterator[tuple[int, Outcome]]:
        start = None if on_start is None else lambda place: on_start(chosen[place])
        for place, outcome in executor.run([jobs[index] for index in chosen], on_start=start):
            if isinstance(outcome, NotBegun):
                on_returned(chosen[place])
            else:
                yield chosen[place], outcome

    killed: dict[int, Outcome] = {}
    for index, outcome in run(range(len(jobs))):
        if _blameless(outcome):
            killed[index] = outcome
        else:
            yield index, outcome
    for index, first in sorted(killed.items()):  # in their order: there may not be room to lose them all
        if not again(index, first):
            yield index, first
            continue
        ended = False
        while not ended:
            for _, outcome in run([index]):
                ended = not (_never_its_doing(outcome) and again(index, outcome))
                if ended:
                    yield index, outcome


def only(attempts: Generator[tuple[int, Outcome], None, None]) -> Outcome:
    """What became of a single job. It stands where a person asked to stop meanwhile, who is obeyed before the next."""
    with closing(attempts):
        return next(attempts)[1]


def _blameless(outcome: Outcome) -> bool:
    match outcome:
        case Crashed():
            return outcome.killed or outcome.zygote_died
        case Exceeded():
            return outcome.starved
        case _:
            return False


def _never_its_doing(outcome: Outcome) -> TypeGuard[Crashed]:
    return isinstance(outcome, Crashed) and (outcome.unattended or outcome.evicted)
