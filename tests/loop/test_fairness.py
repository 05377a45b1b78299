"""What candidates are compared with is treated as well as they are, and to fail gains nobody anything."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from selfimprove.containment.jobs import Completed, Job, Outcome, Usage
from selfimprove.loop import run as loop
from selfimprove.loop.comparison import _paired
from selfimprove.tasks.score import FamilyScore, Proportion, Score
from tests.loop.played import CONFIG, Player, Silent, scored
from tests.loop.records import bodies


def score(skill: float) -> Score:
    return Score(skill, {"recall": FamilyScore(skill, 0.5, 1.0)}, Proportion.of(90, 90))


def test_who_fails_on_a_seed_is_no_better_there_than_a_bad_parent() -> None:
    parent = [score(-0.2)] * 7
    assert _paired("gate", 0.01, [*range(7)], [None] * 7, parent)["difference"] == 0.0
    found = _paired("gate", 0.01, [*range(7)], [None, *[score(-0.1)] * 6], parent)
    assert found["candidate"] == [-0.2, *[-0.1] * 6]
    assert found["failed"] == {"candidate": 1, "parent": 0}
    good = [score(0.4)] * 7
    assert _paired("gate", 0.01, [*range(7)], [None] * 7, good)["candidate"] == [0.0] * 7
    assert _paired("gate", 0.01, [*range(7)], good, [None] * 7)["difference"] == pytest.approx(0.4)


class Forgetful(Player):
    """Every checkpoint keeps nothing of the constraint between its stages."""

    forgot: ClassVar[set[str]] = set()

    def _outcome(self, job: Job) -> Outcome:
        name, _, last = job.key.rpartition("/")
        if last == "reading" and not name.startswith("g000"):
            self.forgot.add(name)
            body, _ = scored(job)
            return Completed(body | {"retention": asdict(Proportion.of(0, body["retention"]["n"]))}, {}, Usage())
        return super()._outcome(job)


def test_a_parent_and_an_exam_are_read_between_stages_and_not_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(loop, "Supervisor", Forgetful)
    loop.run(replace(CONFIG, generations=1), tmp_path / "run", Silent())
    stopped: dict[str, Any] = {b["key"]: b for b in bodies(tmp_path / "run", "outcome") if b["status"] == "stopped"}
    assert {"g001/c00/s0", "g001/c01/s0"} <= {*stopped}
    assert "g001/parent/s0" in Forgetful.forgot
    assert not [key for key in stopped if "parent" in key or "ladder" in key or key.startswith("final")]
