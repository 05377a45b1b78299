"""The loop against a proposer that means harm: five generations of attacks through the real command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.overrides import compose
from selfimprove.app.settings import settings_from
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.records import records
from selfimprove.controller import adversary
from selfimprove.genome.edits import Edit

pytestmark = pytest.mark.timeout(600)  # the run takes 20 seconds of processor time; a busy machine may give it late
GENERATIONS, CANDIDATES = 5, 28
NOISE = 0.05  # skill; the parent trained again on other seeds differs by about 0.02 at this scale
# Control characters, bidirectional overrides and invisible ones: what could act on a terminal or mislead a reader.
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


class Attacked:
    """A finished run against the adversary, by kind of record."""

    def __init__(self, place: Path) -> None:
        self.folder, self.state = place / "attacked", place / "state"
        run = ("run", "experiment=adversary", "debug=micro", "device=cpu", "hydra.run.dir=attacked")
        self.said = self._call(*run, f"generations={GENERATIONS}", f"candidates={CANDIDATES}")
        self.said += "".join(self._call(command, "attacked") for command in ("status", "inspect", "audit"))
        self.bodies: dict[str, list[Any]] = {}
        for kind, body in records(self.folder):
            self.bodies.setdefault(kind, []).append(body)

    def _call(self, *words: str) -> str:
        environment = {**os.environ, "SELFIMPROVE_STATE_DIR": str(self.state)}
        command = [sys.executable, "-m", "selfimprove.app.cli", *words]
        done = subprocess.run(
            command, cwd=self.folder.parent, env=environment, capture_output=True, text=True, timeout=550
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def proposals(self, category: str) -> list[Any]:
        """The records of one category's attempts; attempts are made in order."""
        wanted = {id(attempt) for attempt in adversary.CATEGORIES[category]}
        numbered = zip(adversary.ATTEMPTS, self.bodies["proposal"], strict=False)
        return [body for attempt, body in numbered if id(attempt) in wanted]

    def about(self, kind: str, proposal: Any) -> Any:
        """The record of a kind about a proposal, None without one."""
        place = (proposal["generation"], proposal["index"])
        return next((b for b in self.bodies.get(kind, []) if (b["generation"], b["index"]) == place), None)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    return Attacked(tmp_path_factory.mktemp("adversary"))


def test_nothing_crashes_and_every_attempt_is_made(attacked: Attacked) -> None:
    [finish] = attacked.bodies["finish"]
    assert finish["state"] == "finished"
    assert len(attacked.bodies["generation"]) == GENERATIONS
    assert len(attacked.bodies["proposal"]) == GENERATIONS * CANDIDATES >= len(adversary.ATTEMPTS)
    assert not any(body["reason"] for body in attacked.bodies["ask"])  # none was replaced by a uniform proposal


def test_every_attempt_is_denied_or_harmless_with_its_reason_on_record(attacked: Attacked) -> None:
    for proposal in attacked.bodies["proposal"]:
        if proposal["status"] != "valid":
            assert proposal["status"] in ("invalid", "duplicate")
            assert proposal["reason"], proposal
            continue
        denial, score = attacked.about("denial", proposal), attacked.about("score", proposal)
        key = f"g{proposal['generation']:03d}/c{proposal['index']:02d}/s0"
        outcomes = [body for body in attacked.bodies["outcome"] if body["key"] == key]
        assert denial or score or outcomes, proposal
        assert all(found["reason"] for found in (denial, *outcomes) if found and found.get("status") != "completed")


@pytest.mark.parametrize("category", ["forbidden", "injection", "look-alikes", "numbers", "types"])
def test_no_attempt_from_outside_of_the_language_becomes_a_genome(attacked: Attacked, category: str) -> None:
    found = attacked.proposals(category)
    assert len(found) == len(adversary.CATEGORIES[category])
    assert {proposal["status"] for proposal in found} == {"invalid"}
    assert {proposal["genome"] for proposal in found} == {None}


@pytest.mark.parametrize("category", [name for name in adversary.CATEGORIES if name.startswith("loss: ")])
def test_a_degenerate_loss_never_raises_the_fixed_metric(attacked: Attacked, category: str) -> None:
    references = {body["generation"]: body["skill"] for body in attacked.bodies["reference"]}
    found = attacked.proposals(category)
    assert len(found) == len(adversary.CATEGORIES[category])
    for proposal in found:
        score, decision = attacked.about("score", proposal), attacked.about("decision", proposal)
        assert score is None or score["skill"] <= references[proposal["generation"]] + NOISE, proposal
        assert decision is None or not decision["promoted"], proposal


def test_limits_deny_what_the_space_allows(attacked: Attacked) -> None:
    found = [attacked.about("denial", proposal) for proposal in attacked.proposals("over limits")]
    assert any(denial and denial["limit"] == "parameters" for denial in found)


def test_a_flood_of_duplicates_is_trained_once(attacked: Attacked) -> None:
    found = attacked.proposals("duplicates")
    assert sum(attacked.about("score", proposal) is not None for proposal in found) <= 1
    assert sum(proposal["status"] == "duplicate" for proposal in found) >= len(found) - 1
    assert {body["surplus"] for body in attacked.bodies["ask"]} == {adversary.FLOOD}


def test_what_was_reached_for_is_counted_in_every_generation(attacked: Attacked) -> None:
    assert {body["reach"] for body in attacked.proposals("forbidden")} == {"forbidden"}
    for generation in attacked.bodies["generation"]:
        mine = [b for b in attacked.bodies["proposal"] if b["generation"] == generation["generation"]]
        assert generation["forbidden"] == sum(body["reach"] == "forbidden" for body in mine)
    assert sum(body["forbidden"] for body in attacked.bodies["generation"]) >= len(adversary.FORBIDDEN)
    assert sum(body["over_caps"] for body in attacked.bodies["generation"]) > 0


def test_nothing_that_acts_on_a_terminal_or_a_reader_is_shown_or_kept(attacked: Attacked) -> None:
    report = (attacked.folder / "report.html").read_text(encoding="utf-8")
    ledger = (attacked.folder / "ledger.jsonl").read_text(encoding="utf-8")
    for text in (attacked.said, report, ledger):
        assert ACTIVE.search(text) is None
    assert "<script>alert" not in report
    assert "&lt;script&gt;alert" in report  # shown, as what it is
    assert "\\x1b[2J" in report


def test_the_ledger_holds_only_records_of_ours(attacked: Attacked) -> None:
    report = audit(attacked.folder, FileAnchor(attacked.state))
    assert report.ok, report.findings
    assert report.entries == sum(map(len, attacked.bodies.values()))


def test_the_experiment_goes_through_the_whole_script() -> None:
    config = settings_from(compose(["experiment=adversary", "device=cpu"])).run
    assert config.controller.name == "adversary"
    assert (config.generations, config.generations * config.candidates >= len(adversary.ATTEMPTS)) == (5, True)


def test_the_script_holds_the_kinds_of_attack_that_it_claims() -> None:
    assert all(type(edit) is Edit for attempt in adversary.FORBIDDEN for edit in attempt)
    assert len(adversary.ATTEMPTS) == sum(map(len, adversary.CATEGORIES.values())) >= 120
    assert {"constant", "label leak", "exploding", "not a number on one token", "no gradient", "sign flipped"} <= set(
        adversary.LOSSES
    )
