"""The controller's jobs: contained, priced, permitted and charged like any other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfimprove.archive.records import FINAL
from selfimprove.containment.policy import assess
from selfimprove.containment.supervisor import Completed, Job
from selfimprove.controller.answers import ENTRY as CONTROLLER
from selfimprove.controller.proposer import ControlResult, Price
from selfimprove.errors import LimitReached, SelfImproveError
from selfimprove.genome.genome import Genome
from selfimprove.loop import submission
from selfimprove.loop.attempts import attempt, only
from selfimprove.loop.granting import charge, forfeit, grant, spendable
from selfimprove.loop.slots import Bench, describe
from selfimprove.training.protocol import ENTRY as TRAINING


class ControlFailed(SelfImproveError):
    """The controller's job is none, or was denied or not answered: a generation of random proposals, or unlearned."""


def entries(tasks: Sequence[str]) -> tuple[str, ...]:
    """Entry modules of the worker that serves controllers and scores: ours, and those of one's own task families."""
    return (TRAINING, CONTROLLER, *tasks)


class ControllerJobs:
    """Runs one job a call, as ``key``; what it cost is charged once its effect is on record.

    Attributes:
        key: of the permit of the next job.
    """

    def __init__(self, bench: Bench) -> None:
        self.key = ""
        self._bench = bench
        self._owed: tuple[str, int] | None = None  # a job whose effect is not on record yet
        self._ours: Exception | None = None  # a halt, a limit, a full disk once the controller had asked for a job

    @property
    def owed(self) -> int:
        """FLOPs of the job that is not charged yet."""
        return self._owed[1] if self._owed is not None else 0

    def execute(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...], /) -> ControlResult:
        """Run one controller job under a permit, by the limits on any candidate.

        What is wrong with what was asked for is found before anything is done for it. Whatever goes wrong after that
        is no failure of the controller, and is remembered.

        Raises:
            ControlFailed: it is no job, the second of one call, over a limit, or it was not answered.
            LimitReached: the budget does not cover it.
        """
        if self._owed is not None:
            remedy = "ask for all of it in one job"
            raise ControlFailed("run the controller", f"a second job for {self.key}", "one a call", remedy)
        try:
            price, genome, job = self._read(payload, inputs, outputs)
        except ControlFailed:
            raise
        except Exception as error:
            raise ControlFailed(f"read the job of {self.key}", f"{type(error).__name__}: {error}") from error
        try:
            return self._run(price, genome, job)
        except ControlFailed:
            raise
        except Exception as error:
            self._ours = error
            raise

    def excuse(self, error: Exception) -> str:
        """Why a controller failed, for the record; what ended its job from our side is raised again, in any guise."""
        if self._ours is not None:
            raise self._ours
        return submission.printable(str(error) or type(error).__name__, submission.REASON)

    def pay(self) -> None:
        """Charge the job under the record just written, if it took one."""
        if self._owed is not None:
            charge(self._bench, *self._owed)
        self._owed = None

    def _read(
        self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...]
    ) -> tuple[Price, Genome, Job]:
        """What is asked for; raises whatever looking at it does where it is no job."""
        bench, key, entry = self._bench, self.key, payload["entry"]
        if entry not in (known := entries(bench.config.tasks.modules)):
            raise ControlFailed(f"read the job of {key}: entry", entry, ", ".join(known), "name one of these")
        for name, path in inputs.items():
            if not path.is_file():
                raise ControlFailed(f"read the job of {key}: input {name}", str(path), "a file")
        json.dumps(payload, allow_nan=False)
        built = payload.get("genome")  # of a model; whatever else asks for a job does so in the first one's name
        genome = Genome.from_json(built) if built is not None else bench.config.controller.genome()
        job = Job(key, "torch", entry, payload, dict(inputs), tuple(outputs), bench.limits(output_bytes=1 << 24))
        return Price(**payload["price"]), genome, job

    def _run(self, price: Price, genome: Genome, job: Job) -> ControlResult:
        bench, key = self._bench, self.key
        denial = assess(price, bench.config.limits, device=bench.config.device)
        if denial is not None:
            raise ControlFailed(f"permit {key}", denial.reason, remedy="raise the limit that it names")
        if price.flops > (left := spendable(bench.budget, bench.config.limits)):
            amount, remedy = f"{price.flops:,} FLOPs", "raise limits.flops and start a new run"
            raise LimitReached(f"run {key} within limits.flops", amount, f"{left:,} left", remedy)
        bench.register(genome)
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
