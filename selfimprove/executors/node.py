"""The node's program: the ordinary supervisor, which contains the workers here as the head's does there.

It talks with the head through a folder alone (`box`). Before it says that it is ready its canaries have failed to break
out; it trains nothing without a permit of the head, each of them once; asked to stop, it finishes what runs and ends;
and it ends itself, with everything that it runs, when the kill switch is used, when the head goes silent, or when the
machine is taken away from it.

    python -m selfimprove.executors.node FOLDER [--parent PID]
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, final

from selfimprove.containment.hostile import ProtocolError
from selfimprove.containment.jobs import Crashed, Outcome, Usage
from selfimprove.containment.permit import PermitExpired, PermitRefused
from selfimprove.containment.sandbox.backend import SandboxBackend
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Supervisor
from selfimprove.errors import Halted, Interrupted, SandboxUnavailable, SelfImproveError
from selfimprove.executors.box import Box
from selfimprove.executors.messages import (
    BEAT,
    BEATS,
    CLOSED,
    DIFFERS,
    ENDED,
    EVICTED,
    FAILED,
    HALT,
    HALTED,
    ORDER,
    ORPHANED,
    PACK,
    READY,
    REFUSED,
    STARTED,
    STOP,
    STOPPED,
    Order,
    Task,
    encode,
    prefix_of,
    read_pack,
    write_outcome,
)
from selfimprove.executors.versions import difference

LOOK_SECONDS: Final = 0.2  # between two looks at the folder


class End(SelfImproveError):
    """The node ends, and whatever it runs with it; ``code`` says which of its ends this is."""

    def __init__(self, code: str, reason: str) -> None:
        self.code = code
        super().__init__(reason)


@final
class Node:
    """One node, from its order to its end.

    Args:
        box: where it talks with the head.
        parent: process whose end is the node's; 0: none.
        clock: seconds that only grow.
    """

    def __init__(self, box: Box, parent: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._box = box
        self._parent = parent
        self._clock = clock
        self._signal = ""
        self._stopping = False
        self._heard = self._looked = self._beaten = clock()
        self._last = b""
        self._beats = 0
        self._order: Order | None = None
        self._supervisor: Supervisor | None = None
        self._spent: set[int] = set()

    def live(self) -> str:
        """Serve until the end; returns how it ended, after telling the head if that is possible."""
        try:
            code, reason, prop = self._serve()
        except End as end:
            code, reason, prop = end.code, str(end), ""
        except Interrupted as stop:
            code, reason, prop = STOPPED, str(stop), ""
        except Halted as halt:
            code, reason, prop = HALTED, str(halt), ""
        except SandboxUnavailable as refusal:
            code, reason, prop = REFUSED, str(refusal), refusal.prop
        except (SelfImproveError, ProtocolError, OSError, LookupError, TypeError, ValueError) as error:
            code, reason, prop = FAILED, f"{type(error).__name__}: {error}", ""
        try:
            self._box.answer({ENDED: encode({"code": code, "reason": reason[:500], "property": prop})})
        except (SelfImproveError, OSError) as error:  # a full disk: the head hears it from the scheduler
            print(f"selfimprove node: {reason}; {error}", file=sys.stderr)
        return code

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Take note that the machine is being taken away."""
        self._signal = signal.Signals(number).name

    def _serve(self) -> tuple[str, str, str]:
        self._order = order = Order.decode((self._box.inward / ORDER).read_bytes())
        if differs := difference(order.versions):
            return DIFFERS, differs, ""
        backend = make_backend(
            order.backend, order.allow_degraded, device=order.device, outer_layer=order.outer_layer
        )  # fmt: skip
        backend.command([])
        with Supervisor(
            order.zygotes, backend=backend, workers=order.workers, halt_file=None, should_stop=self._look,
            heartbeat_seconds=order.heartbeat_seconds,
        ) as supervisor:  # fmt: skip
            self._supervisor = supervisor
            supervisor.prove()
            self._box.answer({READY: encode(_about(backend))})
            done: set[str] = set()
            idle = self._clock()
            while self._clock() - idle < order.idle_seconds:
                for name in sorted(name for name in self._box.waiting() - done if name.endswith(PACK)):
                    self._run_pack(supervisor, order, name)
                    done.add(name)
                    idle = self._clock()
                if self._look():
                    raise Interrupted("wait for work")
                time.sleep(LOOK_SECONDS)
        return CLOSED, f"without work for {order.idle_seconds:g} s", ""

    def _run_pack(self, supervisor: Supervisor, order: Order, name: str) -> None:
        """Run what a pack's permits cover.

        A permit that is refused on arrival costs its own job alone. One that has run out, on arrival or before its
        turn, ends the node, and the head gives away again what has not begun: a wrong clock must not decide about
        candidates.
        """
        number = int(name.removesuffix(PACK))
        granted: list[tuple[str, Task]] = []
        for place, task in enumerate(read_pack(self._box.inward, name)):
            prefix = prefix_of(number, place)
            try:
                task.check(order, time.time())
                counter = task.permit.counter
                if counter in {*self._spent, *(other.permit.counter for _, other in granted)}:
                    raise PermitRefused("use a permit", f"counter {counter}", "a permit that was not used yet")
                granted.append((prefix, task))
            except PermitExpired as expired:
                raise End(FAILED, f"by its clock a permit had run out when it arrived: {expired}") from expired
            except (SelfImproveError, LookupError, TypeError, ValueError) as refusal:
                self._tell(prefix, Crashed(f"its node refuses it: {refusal}", Usage(), killed=True))

        def spend(index: int) -> None:
            prefix, task = granted[index]
            task.check(order, time.time())
            self._spent.add(task.permit.counter)
            self._box.mark(f"{prefix}{STARTED}")

        self._looked = -math.inf  # a stop that was sent before the pack is heard before its first job
        for index, outcome in supervisor.run([task.job for _, task in granted], on_start=spend):
            self._tell(granted[index][0], outcome)
        for path in self._box.inward.glob(f"{number:05d}.*"):
            path.unlink(missing_ok=True)

    def _tell(self, prefix: str, outcome: Outcome) -> None:
        self._box.answer(write_outcome(prefix, outcome))

    def _look(self) -> bool:
        """What the supervisor asks at every poll: whether to start nothing further; raises where everything must end.

        Raises:
            End, Halted: so.
        """
        if self._signal:
            raise End(EVICTED, f"its machine was taken away by {self._signal}")
        if self._parent and os.getppid() != self._parent:
            raise End(ORPHANED, "the process that started it is gone")
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._listen(now)
        return self._stopping

    def _listen(self, now: float) -> None:
        assert self._order is not None  # it was read before anything asks
        waiting = self._box.waiting()
        if HALT in waiting or (self._order.halt_file and Path(self._order.halt_file).exists()):
            raise Halted("run a node", remedy="the kill switch was used")
        self._stopping = STOP in waiting
        beat = self._box.inward / BEAT
        if (heard := beat.read_bytes() if beat.exists() else b"") != self._last:
            self._last, self._heard = heard, now
        if now - self._heard > self._order.silence_seconds:
            raise End(ORPHANED, f"the head was silent for {now - self._heard:.1f} s, and nothing runs without it")
        if now - self._beaten >= self._order.silence_seconds / BEATS or not self._beats:
            self._beaten, self._beats = now, self._beats + 1
            spent = vars(self._supervisor.spent) if self._supervisor is not None else {}
            self._box.answer({BEAT: encode({"beat": self._beats, **spent})})


def serve(folder: str, parent: int = 0) -> str:
    """Be a node until the end; returns its code. From the main thread of a process that does nothing else."""
    node = Node(Box(Path(folder)), parent)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, node.on_signal)
    return node.live()


def _about(backend: SandboxBackend) -> dict[str, object]:
    """What the ledger says about a node."""
    return {
        "host": platform.node(),
        "processor": processor(),
        "backend": backend.name,
        "sandbox": backend.probe(),
        "degraded": sorted(backend.degraded),
    }


def processor() -> str:
    """The model of the processor: on another one the last bits of a training may differ."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 where the node ended because it was done."""
    parser = argparse.ArgumentParser(prog="python -m selfimprove.executors.node", description="A node of a run.")
    parser.add_argument("folder", help="where it talks with the head")
    parser.add_argument("--parent", type=int, default=0, help="end with this process")
    arguments = parser.parse_args(argv)
    code = serve(arguments.folder, arguments.parent)
    if code == ORPHANED and arguments.parent:  # nobody is left to read what is in it
        shutil.rmtree(arguments.folder, ignore_errors=True)
    return 0 if code in (CLOSED, STOPPED) else 1


if __name__ == "__main__":
    sys.exit(main())
