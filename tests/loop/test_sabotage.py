"""A sabotaged successor is never promoted: whole runs of the real loop and gate, in which only the workers are played.

What the instruments themselves say of sabotaged weights is tried in ``tests/interp/test_sabotage.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from selfimprove.containment.jobs import Completed, Crashed, Exceeded, Job, Outcome, Usage
from selfimprove.loop import run as loop
from selfimprove.tasks.score import Proportion
from tests.loop.played import CONFIG, Player, Silent
from tests.loop.records import bodies

Story = list[dict[str, Any]]


class Saboteur(Player):
    """Plays on, but answers inspections, and touches the disk, as a test says."""

    inspecting: ClassVar[Callable[[Outcome], Outcome]] = staticmethod(lambda outcome: outcome)
    confirming: ClassVar[Callable[[], None]] = staticmethod(lambda: None)
    training: ClassVar[Callable[[Outcome], Outcome]] = staticmethod(lambda outcome: outcome)

    def _outcome(self, job: Job) -> Outcome:
        outcome = super()._outcome(job)
        if job.payload["op"] == "inspect" and not job.key.startswith("g000/"):
            return type(self).inspecting(outcome)
        if "/confirm/" in job.key:
            type(self).confirming()
        if job.payload["op"] == "train" and job.key.startswith("g001/"):
            return type(self).training(outcome)
        return outcome


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Story]:
    """Decisions of a run that is sabotaged in one way."""

    def run(**deeds: Callable[..., Any]) -> Story:
        monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setattr(
            loop, "Supervisor", type("Saboteur", (Saboteur,), {k: staticmethod(v) for k, v in deeds.items()})
        )
        loop.run(CONFIG, tmp_path / "run", Silent())
        return bodies(tmp_path / "run", "decision")

    return run


def reasons(decisions: Sequence[dict[str, Any]]) -> str:
    assert decisions
    assert not any(decision["promoted"] for decision in decisions)
    return "; ".join(reason for decision in decisions for reason in decision["reasons"])


def with_retention(kept: int) -> Callable[[Outcome], Outcome]:
    def answer(outcome: Outcome) -> Outcome:
        assert isinstance(outcome, Completed)
        return Completed(
            outcome.result | {"summary": {"retention": vars(Proportion.of(kept, 128))}}, outcome.outputs, outcome.usage
        )

    return answer


def test_without_sabotage_there_are_promotions(play: Callable[..., Story]) -> None:
    decisions = play(inspecting=with_retention(128))
    assert any(decision["promoted"] for decision in decisions)


def test_weights_whose_constraint_was_removed_after_training_are_not_promoted(play: Callable[..., Story]) -> None:
    """The confirmation trains anew and finds the constraint kept; the weights that are kept have lost it."""
    said = reasons(play(inspecting=with_retention(3)))
    assert "the inspected checkpoint has lost the constraint: 3 of 128 kept" in said
    assert "constraint not retained" not in said


def test_an_inspection_that_crashes_promotes_nobody(play: Callable[..., Story]) -> None:
    said = reasons(play(inspecting=lambda outcome: Crashed("SIGSEGV", Usage())))
    assert "inspection: readability failed" in said or "inspection: probes" in said


def test_an_inspection_that_does_not_end_promotes_nobody(play: Callable[..., Story]) -> None:
    said = reasons(play(inspecting=lambda outcome: Exceeded("wall_seconds", 121.0, 120.0, Usage())))
    assert "inspection: probes" in said


def test_an_instrument_that_the_gate_asks_for_and_that_read_nothing_promotes_nobody(play: Callable[..., Story]) -> None:
    def unreadable(outcome: Outcome) -> Outcome:
        assert isinstance(outcome, Completed)
        verdicts = outcome.result["instruments"] | {"probes": {"verdict": "unreadable", "reason": "nothing found"}}
        return Completed(outcome.result | {"instruments": verdicts}, outcome.outputs, outcome.usage)

    assert "inspection: probes unreadable nothing found" in reasons(play(inspecting=unreadable))


@pytest.mark.parametrize("deed", ["swapped", "a link to the same bytes"])
def test_a_checkpoint_that_was_swapped_after_its_inspection_is_not_promoted(
    play: Callable[..., Story], tmp_path: Path, deed: str
) -> None:
    def meddle() -> None:
        for path in (tmp_path / "run" / "checkpoints").glob("g00[12]-*.safetensors"):
            data = path.read_bytes()
            if path.is_symlink():
                continue
            path.unlink()
            if deed == "swapped":
                path.write_bytes(data[:-4] + b"\x00\x00\x80\x3f")
            elif deed == "a link to the same bytes":
                (tmp_path / path.name).write_bytes(data)
                path.symlink_to(tmp_path / path.name)

    assert "the checkpoint is not the one that was inspected" in reasons(play(confirming=meddle))


def test_a_worker_that_says_more_than_its_step_does_not_fill_the_ledger(
    play: Callable[..., Story], tmp_path: Path
) -> None:
    def talk(outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Completed):
            return outcome
        return Completed(outcome.result | {"steps": ["\U0001f600" * 10**6]}, outcome.outputs, outcome.usage)

    play(training=talk)
    said = [outcome["reason"] for outcome in bodies(tmp_path / "run", "outcome") if outcome["status"] == "invalid"]
    assert said
    assert max(map(len, said)) < 200
    assert all("its permit ends at" in reason for reason in said)
