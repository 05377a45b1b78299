"""What every controller is to the loop: ask for edits, tell of outcomes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from selfimprove.genome.edits import Edit
from selfimprove.genome.genome import Genome

Outcome = Literal["denied", "invalid", "duplicate", "failed", "worse", "same", "better", "promoted"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)  # worst first


@dataclass(frozen=True)
class Proposal:
    """Edits to apply, in order, to one of the parents of an ``ask``.

    Args:
        parent: index into the ``parents`` that were asked about.
        edits: at least one; each is valid on the genome that the ones before it leave.
        log_prob: natural log of the probability that the controller gave to the edits (given the parent);
            None if they were not drawn from a model.
        entropy: mean entropy (nats) of the choices made while drawing; None likewise.
    """

    parent: int
    edits: tuple[Edit, ...]
    log_prob: float | None = None
    entropy: float | None = None


@dataclass(frozen=True)
class Experience:
    """What became of one proposal.

    Args:
        generation: when it was proposed.
        parent: SHA-256 of the genome that the edits were applied to.
        edits: the edits; none if the proposal was not readable as edits.
        outcome: one of ``OUTCOMES``.
        gain: skill of the candidate minus skill of its parent, None if it is not known; of one that a rung cut, at that
            rung, and of one that its confirmation refused, none: 0 at most.
        standard_error: of the gain over the training seeds, None if unknown.
        child: SHA-256 of the genome that the edits lead to, None if they lead to none or it is not known.
    """

    generation: int
    parent: str
    edits: tuple[Edit, ...]
    outcome: Outcome
    gain: float | None = None
    standard_error: float | None = None
    child: str | None = None

    @property
    def is_unjudged(self) -> bool:
        """Whether nothing is known of what the edits are worth.

        Its parent was not scored, nothing was read of both, or the account was too empty to train it.
        """
        return self.outcome == "same" and self.gain is None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome: got {self.outcome!r}; allowed: {', '.join(OUTCOMES)}")


@dataclass(frozen=True)
class Update:
    """What a controller did with its history.

    Args:
        flops: price of the update, for whoever calls ``tell`` without a run. A run charges what went through
            ``execute``, and nothing else.
        loss: the controller's own objective near the end of training; None if nothing was trained.
        entropy: mean entropy (nats) of the updated model's next-token distribution; None likewise.
        weights: the new weights (safetensors), already checked against the controller's genome; None if the old ones
            stay. Store them, then ``restore`` from the stored file.

    Raises:
        ValueError: a negative price.
    """

    flops: int
    loss: float | None = None
    entropy: float | None = None
    weights: bytes | None = None

    def __post_init__(self) -> None:
        if self.flops < 0:
            raise ValueError(f"flops: got {self.flops}; allowed: 0 or more")


@dataclass(frozen=True)
class Price:
    """What one controller job costs, in the form that the policy reads. Positive integers.

    Args:
        parameters: trainable numbers of the controller.
        flops: of the whole job.
        tokens: positions that the model reads, padding included.
        steps: training steps, or forward passes where it is asked.
        memory_bytes: peak memory.
    """

    parameters: int
    flops: int
    tokens: int
    steps: int
    memory_bytes: int


@dataclass(frozen=True)
class ControlResult:
    """Answer of the sandboxed worker, as untrusted as everything that a worker says."""

    result: Mapping[str, Any]
    outputs: Mapping[str, bytes] = field(default_factory=dict)


class Execute(Protocol):
    """Runs one controller job in the sandbox; one a call of ``ask`` or ``tell``, and a second one fails.

    ``payload["entry"]`` names the entry module, ``payload["op"]`` what it does (``ask``, ``tell``, ``reinforce``,
    ``trial``, ``forecast``), and ``payload["price"]`` has the fields of ``Price``: what is to be permitted and reserved
    before the job starts.
    """

    def __call__(
        self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...], /
    ) -> ControlResult: ...


GenomeOf = Callable[[str], Genome]
"""Looks a genome up by its SHA-256; raises KeyError."""


class Proposer(Protocol):
    """A controller, as the loop sees it. Each call is a pure function of its arguments and the restored weights."""

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """Propose edits to ``parents``, spread evenly over them.

        No two proposals lead to the same genome and none leads back to a parent. What ``history`` holds is not proposed
        again as long as bounded re-sampling finds something else. Returns fewer than ``count`` only where it finds
        nothing.
        """
        ...

    def tell(self, history: Sequence[Experience], seed: int) -> Update:
        """Learn from the whole history (not only what is new)."""
        ...

    def restore(self, weights: Path | None) -> None:
        """Continue from stored weights; None: from the initial ones. Does nothing if there is nothing to restore."""
        ...
