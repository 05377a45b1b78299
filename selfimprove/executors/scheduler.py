"""The seam to a cluster: what starts nodes, says how they are, ends them, and carries what is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Phase(Enum):
    """Where a node is, as the scheduler sees it."""

    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class State:
    """What a scheduler knows about a node.

    Args:
        phase: where it is.
        reason: why, in the scheduler's words.
        evicted: it was ended for somebody else's sake (preempted, cancelled, out of time): no doing of what it ran.
    """

    phase: Phase
    reason: str = ""
    evicted: bool = False


class Link(Protocol):
    """The head's end of the talk with one node. Methods must return soon; a broken link raises OSError."""

    @property
    def name(self) -> str:
        """The node, in the scheduler's words."""

    @property
    def sees_marks(self) -> bool:
        """Whether everything that an ended node has ever marked can still be read: only then is what bears no mark
        known to have never begun."""

    def send(self, files: Mapping[str, bytes]) -> None:
        """Give the node files, in their order; raises OSError where it cannot be reached."""

    def collect(self, cap: int) -> dict[str, bytes]:
        """What it answered since, by name; raises ProtocolError for a file of more than ``cap`` bytes."""


class Scheduler(Protocol):
    """A cluster."""

    def start(self, label: str, count: int, order: bytes) -> Sequence[Link]:
        """Ask for nodes, in one array where the cluster has such a thing; raises RunError where it refuses."""

    def states(self) -> Mapping[str, State]:
        """Every node that was asked for and not forgotten, by name."""

    def cancel(self, names: Sequence[str]) -> None:
        """End nodes now, queued or running; unknown and ended ones are passed over."""

    def close(self) -> None:
        """End every node and remove what was needed to talk with them."""
