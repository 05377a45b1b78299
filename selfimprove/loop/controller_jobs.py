"""The controller's jobs: contained, priced, permitted and charged like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfimprove.archive.records import FINAL
from selfimprove.containment.policy import assess
from selfimprove.containment.supervisor import Completed, Job
from selfimprove.controller.proposer import ControlResult, Price
from selfimprove.errors import LimitReached, SelfImproveError
from selfimprove.genome.genome import Genome
from selfimprove.loop import submission
from selfimprove.loop.attempts import attempt, only
from selfimprove.loop.granting import charge, forfeit, grant, spendable
from selfimprove.loop.slots import Bench, describe


class ControlFailed(SelfImproveError):
    """The controller's job was denied or not answered: the generation goes on with random proposals, or unlearned."""


class ControllerJobs:
    """Runs one job at a time, as ``key``; what it cost is charged once its effect is on record.

    Attributes:
        key: of the permit of the next job.
    """

    def __init__(self, bench: Bench) -> None:
        self.key = ""
        self._bench = bench
        self._owed: tuple[str, int] | None = None  # a job whose effect is not on record yet
        self._ours: Exception | None = None  # a halt, a limit, a full disk while the controller's job ran

    @property
    def owed(self) -> int:
        """FLOPs of the job that is not charged yet."""
        return self._owed[1] if self._owed is not None else 0

    def execute(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...], /) -> ControlResult:
        """See ``_run``; remembers what went wrong on our side, which is no failure of the controller."""
        try:
            return self._run(payload, inputs, outputs)
        except ControlFailed:
            raise
        except Exception as error:
            self._ours = error
            raise

    def excuse(self, error: Exception) -> str:
        """Why a controller failed, for the record; what ended its job from our side is raised again."""
        if error is self._ours:
            raise error
        return submission.printable(str(error) or type(error).__name__, submission.REASON)

    def pay(self) -> None:
        """Charge the job under the record just written, if it took one."""
        if self._owed is not None:
            charge(self._bench, *self._owed)
        self._owed = None

    def _run(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...]) -> ControlResult:
        """Run one controller job under a permit, by the limits on any candidate.

        Raises:
            ControlFailed: it is over one of them, or it was not answered.
            LimitReached: the budget does not cover it.
        """
        bench, key, price = self._bench, self.key, Price(**payload["price"])
        denial = assess(price, bench.config.limits, device=bench.config.device)
        if denial is not None:
            raise ControlFailed(f"permit {key}", denial.reason, remedy="raise the limit that it names")
        if price.flops > (left := spendable(bench.budget, bench.config.limits)):
            amount, remedy = f"{price.flops:,} FLOPs", "raise limits.flops and start a new run"
            raise LimitReached(f"run {key} within limits.flops", amount, f"{left:,} left", remedy)
        built = payload.get("genome")  # of a model; whatever else asks for a job does so in the first one's name
        genome = Genome.from_json(built) if built is not None else bench.config.controller.genome()
        bench.register(genome)
        job = Job(key, "torch", payload["entry"], payload, inputs, outputs, bench.limits(output_bytes=1 << 24))
        attempts = attempt(
            bench.supervisor,
            [job],
            on_start=lambda _: grant(bench, key, "controller", genome.sha256, FINAL, price),
            on_killed=lambda _: forfeit(bench, key),
        )
        outcome = only(attempts)
        self._owed = (key, price.flops)
        if not isinstance(outcome, Completed):
            raise ControlFailed(f"run the controller for {key}", describe(outcome)[1])
        return ControlResult(outcome.result, outcome.outputs)
