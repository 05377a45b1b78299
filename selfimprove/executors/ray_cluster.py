"""Nodes of an existing Ray cluster: one actor each, which starts the node's program and carries its files.

No file system is shared: what is said travels through the actor. Ray restarts nothing by itself; only the head asks for
nodes again. The actor holds no job and imports no torch; the node's program is a child of it and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from selfimprove.errors import RunError
from selfimprove.executors.box import Box
from selfimprove.executors.config import ExecutorConfig
from selfimprove.executors.messages import BEAT, ORDER
from selfimprove.executors.scheduler import Phase, State

KNOCK_SECONDS: Final = 5.0  # to reach the cluster's address
END_SECONDS: Final = 5.0  # that a node's program may take to end when it is told to


class Host:
    """What runs in the actor: the node's folder and its program."""

    def __init__(self, order: bytes) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="selfimprove-node-"))
        self._box = Box(self._folder)
        self._box.send({ORDER: order})
        self._known: set[str] = set()
        command = [sys.executable, "-m", "selfimprove.executors.node", str(self._folder), "--parent", str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def take(self, files: dict[str, bytes]) -> None:
        """Hand files to the node."""
        if self._process.poll() is None:
            self._box.send(files)

    def exchange(self, files: dict[str, bytes], cap: int) -> tuple[dict[str, bytes], int | None]:
        """Hand files to the node; returns what it answered since, and its exit code if it ended: then it is gone."""
        code = self._process.poll()
        self.take(files)
        found = self._box.collect(self._known, cap)
        if code is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        return found, code

    def end(self) -> None:
        """End the program and remove its folder."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


@final
class ActorLink:
    """The talk with one node through its actor; see `Link`. Nothing here waits for the actor."""

    sees_marks = False  # what an actor had not handed over dies with it

    def __init__(self, ray: Any, name: str, actor: Any) -> None:
        self._ray = ray
        self.name = name
        self.actor = actor
        self.state = State(Phase.QUEUED, "waiting for free resources")
        self._answer: Any = None
        self._unsent: dict[str, bytes] = {}

    def send(self, files: Mapping[str, bytes]) -> None:
        """See `Link.send`: with the next exchange, but a beat at once, because the head may be busy elsewhere."""
        if BEAT not in files:
            self._unsent |= files
        elif self.state.phase is Phase.RUNNING:
            self.actor.take.remote(dict(files))

    def collect(self, cap: int) -> dict[str, bytes]:
        """See `Link.collect`."""
        found: dict[str, bytes] = {}
        if self._answer is not None:
            ready, _ = self._ray.wait([self._answer], timeout=0)
            if not ready:
                return {}
            found = self._take()
        if self.state.phase is not Phase.ENDED:
            files, self._unsent = self._unsent, {}
            self._answer = self.actor.exchange.remote(files, cap)
        return found

    def _take(self) -> dict[str, bytes]:
        """The answer of the last exchange; an actor that died is a state, anything else it raised an OSError."""
        try:
            found, code = self._ray.get(self._answer)
        except self._ray.exceptions.RayTaskError as error:
            raise OSError(str(error.cause)) from error
        except self._ray.exceptions.RayError as error:
            self.state = State(Phase.ENDED, f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return {}
        self.state = State(Phase.RUNNING)
        if code is not None:
            self.state = State(Phase.ENDED, f"its program ended with code {code}")
            self._ray.kill(self.actor)  # or it would hold its cores
        return dict(found)


def knock(address: str) -> None:
    """Whether anything listens at ``host:port``; Ray itself would try for minutes. Raises OSError or ValueError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the process's handlers of the signals that a person sends: Ray puts its own in their place."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@final
class RayScheduler:
    """Starts nodes as actors of a Ray cluster; see `Scheduler`.

    Args:
        config: the cluster's address, and what to ask for.

    Raises:
        RunError: there is no cluster at the address.
    """

    def __init__(self, config: ExecutorConfig) -> None:
        import ray

        self._ray = ray
        self._config = config
        self._links: dict[str, ActorLink] = {}
        if not ray.is_initialized():
            try:
                knock(config.address)
                with _own_signals():
                    ray.init(address=config.address, log_to_driver=False, configure_logging=False)
            except (OSError, ValueError, RuntimeError) as error:
                remedy = "start one (ray start --head), or set executor.address=host:port"
                reason = str(error).splitlines()[0]
                raise RunError(f"join the Ray cluster at {config.address}", reason, "a running one", remedy) from error

    def start(self, label: str, count: int, order: bytes) -> list[ActorLink]:
        """Ask for this many actors; each waits until the cluster has room for it."""
        config = self._config
        options = {
            "num_cpus": config.workers,
            "num_gpus": config.gpus,
            "memory": int(config.memory_gb * 10**9),
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        actor = self._ray.remote(Host).options(**options)
        first = len(self._links)
        links = [
            ActorLink(self._ray, f"{label}-{number:03d}", actor.remote(order)) for number in range(first, first + count)
        ]
        self._links |= {link.name: link for link in links}
        return links

    def states(self) -> Mapping[str, State]:
        """What the actors' answers showed."""
        return {name: link.state for name, link in self._links.items()}

    def cancel(self, names: Sequence[str]) -> None:
        """Kill actors, those that run after they had the time to end their programs, which also end without them."""
        known = [self._links[name] for name in names if name in self._links]
        alive = [link for link in known if link.state.phase is not Phase.ENDED]
        ends = [link.actor.end.remote() for link in alive if link.state.phase is Phase.RUNNING]
        if ends:
            self._ray.wait(ends, num_returns=len(ends), timeout=END_SECONDS)
        for link in alive:
            self._ray.kill(link.actor)
            link.state = State(Phase.ENDED, "cancelled")

    def close(self) -> None:
        """Kill every actor and leave the cluster."""
        self.cancel(list(self._links))
        if self._ray.is_initialized():
            self._ray.shutdown()
