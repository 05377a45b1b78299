"""Which instances a run is read on, and trained for: the sealed ones are the last exam's alone."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from selfimprove.containment.jobs import Job, Outcome
from selfimprove.containment.keys import SigningKey
from selfimprove.loop import run as loop
from tests.loop.played import CONFIG, Player, Silent, nobody_learns
from tests.loop.records import bodies


class Noting(Player):
    """Notes what every evaluation is on: key, split and seed of its instances."""

    read: ClassVar[list[tuple[str, str, int]]] = []

    def _outcome(self, job: Job) -> Outcome:
        if job.payload["op"] == "evaluate":
            self.read.append((job.key, job.payload["split"], job.payload["seed"]))
        return super()._outcome(job)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; what it was read on is in ``Noting.read``."""
    folder = tmp_path_factory.mktemp("splits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        SigningKey.load(folder / "state")
        patch.setattr(loop, "Supervisor", Noting)
        nobody_learns(patch)
        Noting.read.clear()
        assert loop.run(CONFIG, folder / "run", Silent()).state == "finished"
    return folder / "run"


def may_see(key: str) -> set[str]:
    """The splits that an evaluation may be on, by its key; a reading steers its training, whoever's it is."""
    if key.endswith("/reading"):
        return {"search"}
    if key.startswith("final/"):
        return {"gate", "sealed"}
    return {"gate"} if "/confirm/" in key else {"search"}


@pytest.mark.usefixtures("ran")
def test_only_the_last_exam_is_on_the_sealed_split_and_only_a_comparison_on_that_of_the_gate() -> None:
    assert {split for _, split, _ in Noting.read} == {"search", "gate", "sealed"}
    assert [(key, split) for key, split, _ in Noting.read if split not in may_see(key)] == []


@pytest.mark.usefixtures("ran")
def test_no_instances_that_the_last_exam_is_scored_on_were_read_before() -> None:
    scored = {key: (split, seed) for key, split, seed in Noting.read if not key.endswith("/reading")}
    final = {place for key, place in scored.items() if key.startswith("final/")}
    assert final
    assert not final & {(split, seed) for key, split, seed in Noting.read if not key.startswith("final/")}


def test_the_last_exam_trains_on_seeds_that_no_confirmation_had(ran: Path) -> None:
    confirmed = {seed for body in bodies(ran, "confirmation") for seed in body["seeds"]}
    [sealed] = bodies(ran, "sealed")
    for split in ("gate", "sealed"):
        assert len(set(sealed[split]["seeds"])) == CONFIG.confirm_seeds
        assert confirmed
        assert not confirmed & set(sealed[split]["seeds"])
