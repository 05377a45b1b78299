"""The nodes of a run as the head sees them: asked for, heard, and given up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from selfimprove.containment.hostile import ProtocolError, clean_line
from selfimprove.containment.jobs import Spent
from selfimprove.errors import RunError, SelfImproveError
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.messages import (
    BEAT,
    BEATS,
    CLOSED,
    DIFFERS,
    ENDED,
    EVICTED,
    HALT,
    MESSAGE_BYTES,
    ORPHANED,
    READY,
    REFUSED,
    STARTED,
    STOP,
    STOPPED,
    Task,
    decode,
    output_names,
    read_about,
)
from selfimprove.executors.scheduler import Link, Phase, Scheduler, State

REFUSALS: Final = {
    REFUSED: ("a node that contains workers as the head does", "keep the run off it, or see selfimprove doctor there"),
    DIFFERS: (
        "what the head has",
        "install the same everywhere, edit no checkout that a run uses; then resume the run",
    ),
}
"""Ends of a node that stop the run: what is accepted, and the remedy."""
START_SECONDS: Final = 300.0  # that a node's program may take to its first word
QUIET: Final = frozenset({CLOSED, STOPPED})  # ends of a node that are no loss


@dataclass
class Assigned:
    """A task that a node was handed, under the index that the caller knows it by."""

    index: int
    task: Task


@dataclass
class Member:
    """A live node, or one that just ended."""

    link: Link
    since: float
    """When it was asked for; once it runs, when it was heard last."""
    runs: bool = False
    heard: bool = False
    ready: bool = False
    why: str = ""
    """Why it is of no more use; empty: it is."""
    evicted: bool = False
    ended: bool = False
    """It does nothing any more: the scheduler says so, or itself did."""
    whole: bool = False
    """Everything that it ever marked was read."""
    spent: Spent = field(default_factory=Spent)
    tasks: dict[str, Assigned] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    marks: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.link.name

    def has_begun(self, prefix: str) -> bool:
        """Whether a task of this lost node may have cost anything: it may unless that is known."""
        return f"{prefix}{STARTED}" in self.marks or not self.whole

    def tell(self, files: Mapping[str, bytes]) -> None:
        """Send it files; one that cannot be reached is of no more use. Raises DiskError where the disk is full."""
        try:
            self.link.send(files)
        except OSError as error:
            self.why = f"it cannot be reached: {error}"


@final
class Fleet:
    """Asks for nodes, listens to them, beats for them, and gives up those that are of no more use.

    Args:
        config: how many, how long.
        scheduler: starts and ends them.
        order: what each is told first.
        clock: seconds that only grow.
        on_node: told of every array that is asked for, every node that is ready, and every one that is lost.
    """

    def __init__(
        self,
        config: ExecutorConfig,
        scheduler: Scheduler,
        order: bytes,
        clock: Callable[[], float],
        on_node: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._config = config
        self._scheduler = scheduler
        self._order = order
        self._clock = clock
        self._on_node = on_node
        self._label = ""
        self._tries, self._last = 0, ""
        self._spent = Spent()
        self.members: list[Member] = []
        self._closing = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat for nodes", daemon=True)

    @property
    def spent(self) -> Spent:
        """Time of all workers of all nodes so far, as far as it was heard."""
        return sum((member.spent for member in self.members), self._spent)

    @property
    def idle(self) -> list[Member]:
        """Nodes that could take work."""
        return [member for member in self.members if member.ready and not member.why and not member.tasks]

    def provide(self, label: str, wanted: int) -> None:
        """Have nodes for work of a label: one array of them, and replacements for lost ones while work is left.

        Args:
            label: nodes of another one are let go.
            wanted: packs that are waiting.

        Raises:
            RunError: too often in a row they were lost, or the cluster refuses.
        """
        fresh = label != self._label
        if fresh:
            self._let_go()
            self._label, self._tries = label, 0
        useful = [member for member in self.members if not member.why]
        busy = sum(bool(member.tasks) for member in useful)
        needed = self._config.nodes if fresh else min(busy + wanted, self._config.nodes)
        count = needed - len(useful)
        if count <= 0:
            return
        if not fresh and self._tries >= self._config.attempts:
            self._give_up(useful)
            return
        self._tries += not fresh
        now = self._clock()
        self._on_node({"state": "asked", "label": label, "count": count})
        self.members += [Member(link, now) for link in self._scheduler.start(label, count, self._order)]
        if not self._heart.is_alive():
            self._heart.start()

    def refresh(self) -> list[Member]:
        """Listen to every node; returns those that were lost or ended since, which are forgotten."""
        states, now = self._scheduler.states(), self._clock()
        gone = []
        for member in self.members:
            state = states.get(member.name, State(Phase.ENDED, "the scheduler does not know it"))
            member.ended = state.phase is Phase.ENDED
            self._hear(member, now)
            member.whole = member.whole or (member.ended and member.link.sees_marks)
            if not member.why:
                self._judge(member, state, now)
            if member.why:
                gone.append(member)
        for member in gone:
            self._bury(member)
        return gone

    def progressed(self) -> None:
        """Something was done: tries in a row are counted anew."""
        self._tries = 0

    def stop(self) -> None:
        """Have every node that runs something start nothing further, and end once that is done."""
        for member in self.members:
            if member.tasks:
                member.tell({STOP: b"stop"})

    def cancel(self, reason: str) -> None:
        """End every node now."""
        for member in self.members:
            with contextlib.suppress(SelfImproveError, OSError):
                member.link.send({HALT: reason.encode()})
        self._scheduler.cancel([member.name for member in self.members])
        self._spent, self.members = self.spent, []

    def close(self) -> None:
        """End everything. Safe to call twice."""
        self._closing.set()
        self.cancel("closed")
        self._scheduler.close()
        if self._heart.is_alive():
            self._heart.join()

    # -- listening -----------------------------------------------------------------------------------------------------

    def _hear(self, member: Member, now: float) -> None:
        """Take what a node said since. What cannot be read ends it."""
        cap = max([MESSAGE_BYTES, *(int(given.task.job.limits.output_bytes) for given in member.tasks.values())])
        try:
            files = member.link.collect(cap)
            if files:
                member.runs, member.heard, member.since = True, True, now
            self._take(member, files)
        except (ProtocolError, OSError, LookupError, TypeError, ValueError) as error:
            member.why = clean_line(f"its word cannot be read: {error}")

    def _take(self, member: Member, files: dict[str, bytes]) -> None:
        """Sort what a node said; what belongs to outcomes is kept until they are whole.

        Raises:
            ProtocolError: it is ready twice, or says what no node says or something about no task that it was handed.
            LookupError, TypeError, ValueError: what it says is incomplete or mistyped.
            RunError: its end stops the run.
        """
        if data := files.pop(BEAT, None):
            body = decode(data)
            member.spent = Spent(float(body.get("cpu_seconds", 0.0)), float(body.get("gpu_seconds", 0.0)))
        if data := files.pop(READY, None):
            if member.ready:
                raise ProtocolError("it is ready a second time")
            about = read_about(data)
            member.ready = True
            self._on_node(about | {"node": member.name, "state": "ready"})
        if data := files.pop(ENDED, None):
            body = decode(data)
            code, reason = (clean_line(str(body[name])) for name in ("code", "reason"))
            if code in REFUSALS:
                raise RunError(f"train on node {member.name}", reason, *REFUSALS[code])
            member.why, member.evicted = f"{code}: {reason}", code in (EVICTED, ORPHANED)
            member.ended = member.whole = True
        marks = {f"{prefix}{STARTED}" for prefix in member.tasks}
        parts = {name for prefix, given in member.tasks.items() for name in output_names(prefix, given.task.job)}
        member.marks |= marks & set(files)
        member.files |= {name: files[name] for name in parts & set(files)}
        if strange := sorted(set(files) - marks - parts):
            raise ProtocolError(f"{strange[0]} is of no task that it was handed")

    def _judge(self, member: Member, state: State, now: float) -> None:
        """Whether a node that said nothing about an end is of use still."""
        waited = now - member.since
        patience = 2 * self._config.silence_seconds if member.heard else START_SECONDS
        if state.phase is Phase.ENDED:
            member.why, member.evicted = f"its job ended: {state.reason}", state.evicted
        elif state.phase is Phase.QUEUED and waited > 60 * self._config.queue_minutes:
            member.why = f"it waited in the queue for {waited / 60:.1f} min ({state.reason})"
        elif state.phase is Phase.RUNNING and not member.runs:
            member.runs, member.since = True, now
        elif state.phase is Phase.RUNNING and waited > patience:
            member.why = f"it was silent for {waited:.0f} s"

    def _bury(self, member: Member) -> None:
        self.members.remove(member)
        self._spent += member.spent
        code = member.why.partition(":")[0]
        if code in QUIET:
            return
        if not member.ended:
            with contextlib.suppress(SelfImproveError, OSError):
                member.link.send({HALT: member.why.encode()})
            self._scheduler.cancel([member.name])
        self._last = f"node {member.name}: {member.why}"
        self._on_node({"node": member.name, "state": "lost", "reason": member.why})

    # -- keeping -------------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        """End the nodes of the label before, none of which runs anything: one array a generation."""
        self._scheduler.cancel([member.name for member in self.members])
        self._spent, self.members = self.spent, []

    def _give_up(self, useful: Sequence[Member]) -> None:
        if useful:
            return  # the ones that are left do the work
        remedy = "see what ends them, then resume the run; with executor.attempts more are tried"
        limit = f"executor.attempts = {self._config.attempts} times in a row with nothing done in between"
        raise RunError(
            "ask anew for nodes to train on", f"{self._tries + 1} times, the last loss {self._last}", limit, remedy
        )

    def _beat(self) -> None:
        """Tell every node that the head is there, until the end. A thread: the head is busy with other work, too."""
        number = 0
        while not self._closing.wait(self._config.silence_seconds / BEATS):
            number += 1
            for member in tuple(self.members):
                with contextlib.suppress(SelfImproveError, OSError):
                    member.link.send({BEAT: str(number).encode()})
