"""Clusters without a cluster: real nodes that are processes of this machine, and nodes that are played by the test."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selfimprove.executors.box import Box
from selfimprove.executors.messages import ORDER
from selfimprove.executors.scheduler import Phase, State
from selfimprove.executors.slurm import FolderLink


class Processes:
    """A scheduler whose nodes are processes of this machine, started at once.

    Args:
        folder: where head and nodes talk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.arrays: list[tuple[str, int]] = []

    def start(self, label: str, count: int, order: bytes) -> list[FolderLink]:
        self.arrays.append((label, count))
        links = []
        for _ in range(count):
            name = f"{label}-{len(self.started)}"
            Box(self._folder / name).send({ORDER: order})
            command = [sys.executable, "-m", "selfimprove.executors.node", str(self._folder / name)]
            self.started[name] = subprocess.Popen(command)
            links.append(FolderLink(name, self._folder / name))
        return links

    def states(self) -> Mapping[str, State]:
        codes = {name: process.poll() for name, process in self.started.items()}
        return {
            name: State(Phase.RUNNING) if code is None else State(Phase.ENDED, f"exit code {code}")
            for name, code in codes.items()
        }

    def cancel(self, names: Sequence[str]) -> None:
        for name in names:
            self.started[name].send_signal(signal.SIGTERM)

    def close(self) -> None:
        for process in self.started.values():
            process.terminate()
            process.wait(20)
