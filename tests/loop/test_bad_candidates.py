"""A candidate that diverges, crashes, hangs or writes a broken checkpoint costs only itself.

Whole runs of the real loop, in this process: only the proposals of the first generation are scripted, and the workers
of chosen genomes are replaced by ``entries/unruly_worker.py``, under the same sandbox and supervisor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfimprove.app.overrides import compose
from selfimprove.app.session import EXIT_OF_STATE
from selfimprove.app.settings import settings_from
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.sandbox.backend import ZygoteSpec
from selfimprove.controller.proposer import Experience, Proposal
from selfimprove.controller.registry import CONTROLLERS
from selfimprove.genome.edits import Edit, parse_edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, apply_all
from selfimprove.loop import measuring
from selfimprove.loop import run as runs
from selfimprove.loop.config import RunConfig
from selfimprove.seeds import derive
from selfimprove.training.protocol import ENTRY
from tests.loop.records import bodies

ENTRIES = Path(__file__).with_name("entries")
MICRO = ("experiment=quick", "debug=micro", "device=cpu", "space.max_edits=5", "halving=none")

# What a worker does -> how it is recorded, and what the record must say.
DEEDS: Mapping[str, tuple[str, str]] = {
    "raise": ("crashed", "RuntimeError: this candidate gives up"),
    "segfault": ("crashed", "SIGSEGV"),
    "exit": ("crashed", "exit code 7"),
    "leave": ("invalid", "without a result"),
    "sleep": ("exceeded", "silence_seconds"),
    "spin": ("exceeded", "cpu_seconds"),
    "grow": ("exceeded", "memory_bytes"),
    "babble": ("invalid", "it is at step 'many'"),
    "answer nothing": ("crashed", "must return a dict"),
    "nothing": ("invalid", "checkpoint"),
    "half of it": ("invalid", "checkpoint"),
    "other shapes": ("invalid", "shape"),
    "too much": ("invalid", "not expected"),
    "not a number": ("invalid", "not finite"),
    "a pickle": ("invalid", "header"),
    "far too much": ("exceeded", "output_bytes"),
}
RUNAWAY = ("recipe.beta1=0.95", "recipe.clip=0.0")  # trained as it stands, at a learning rate of 1e30


class _Deaf:
    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        pass


class _Scripted:
    """The run's own controller, but for what it proposes; remembers what it was told last."""

    def __init__(self, real: Any, script: Sequence[Sequence[tuple[Edit, ...]]], told: list[Experience]) -> None:
        self._real = real
        self._script = script
        self._told = told

    def ask(self, parents: Any, history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        asked = len({experience.generation for experience in history})
        return [Proposal(0, edits) for edits in self._script[asked]]

    def tell(self, history: Sequence[Experience], seed: int) -> Any:
        self._told[:] = history
        return self._real.tell(history, seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@dataclass(frozen=True)
class Story:
    """A finished run: its folder, its summary, its records, and what its controller was told."""

    folder: Path
    summary: runs.RunSummary
    told: list[Experience]

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        return bodies(self.folder, kind)

    def outcome(self, key: str) -> dict[str, Any]:
        (found,) = [body for body in self.bodies("outcome") if body["key"] == key]
        return found


def edits(*texts: str) -> tuple[Edit, ...]:
    return tuple(parse_edit(text) for text in texts)


HONEST = (edits("recipe.beta1=0.8"), edits("architecture.norm=rmsnorm"))
UNRULY = tuple(
    edits(f"recipe.weight_decay={decay}", f"recipe.warmup={warmup}")
    for decay in ("0.0", "0.03", "0.1", "0.3")
    for warmup in ("0.0", "0.02", "0.1", "0.2")
)
FIRST = (*HONEST, edits(*RUNAWAY), *UNRULY)
"""What the first generation proposes: two that behave, one that diverges, and one for each misdeed."""


def play(folder: Path, script: Sequence[Any], plan: Mapping[str, str], *settings: str) -> Story:
    """Run the loop in this process, with scripted proposals and planned misdeeds."""
    (folder / "plan").mkdir(parents=True)
    (folder / "plan" / "unruly_plan.py").write_text(f"PLAN = {dict(plan)!r}\n")
    real, told = CONTROLLERS["transformer"], list[Experience]()

    def zygote(entries: tuple[str, ...], **rest: Any) -> ZygoteSpec:
        if ENTRY not in entries:
            return ZygoteSpec(entries, **rest)
        return ZygoteSpec((*entries, "unruly_worker"), path=(ENTRIES, folder / "plan"), **rest)

    size = (f"generations={len(script)}", f"candidates={max(map(len, script))}")
    config = settings_from(compose([*MICRO, *size, *settings])).run
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFIMPROVE_STATE_DIR", str(folder / "state"))
        patch.setitem(CONTROLLERS, "transformer", lambda *given: _Scripted(real(*given), script, told))
        patch.setattr(runs, "ZygoteSpec", zygote)
        patch.setattr(measuring, "ENTRY", "unruly_worker")
        summary = runs.run(config, folder / "run", _Deaf())
    return Story(folder / "run", summary, told)


def genome(config: RunConfig, proposal: tuple[Edit, ...]) -> Genome:
    return apply_all(proposal, config.seed_genome, Space(config.space))


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Misdeeds of candidates, then of a parent, then in a confirmation."""
    config = settings_from(compose(MICRO)).run
    plan = {genome(config, proposal).sha256: deed for proposal, deed in zip(UNRULY, DEEDS, strict=True)}
    plan[genome(config, edits(*RUNAWAY)).sha256] = "run away"
    for parent in (config.seed_genome, *(genome(config, proposal) for proposal in HONEST)):
        plan[f"{parent.sha256}/{derive(config.seed, 'train', 'search', 2, 0)}"] = "raise"
        plan[f"{parent.sha256}/{derive(config.seed, 'train', 'search', 3, 0)}"] = "extreme weights"
    plan[f"*/{derive(config.seed, 'train', 'confirm', 3, 1)}"] = "exit"
    script = (FIRST, (edits("recipe.schedule=linear"),), (edits("recipe.schedule=constant"),))
    limits = ("containment.job_silence_seconds=6", "containment.job_cpu_seconds=4")
    return play(tmp_path_factory.mktemp("eventful"), script, plan, *limits)


@pytest.fixture(scope="module")
def uneventful(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The same beginning, and nobody misbehaves."""
    return play(tmp_path_factory.mktemp("uneventful"), (HONEST,), {})


def test_the_loop_goes_on_to_its_end(eventful: Story) -> None:
    assert (eventful.summary.state, eventful.summary.generation) == ("finished", 3)


@pytest.mark.parametrize(("index", "deed"), list(enumerate(DEEDS, start=len(HONEST) + 1)))
def test_the_ledger_says_what_a_candidate_did(eventful: Story, index: int, deed: str) -> None:
    status, reason = DEEDS[deed]
    found = eventful.outcome(f"g001/c{index:02d}/s0")
    assert found["status"] == status, found
    assert reason in found["reason"]
    assert not any(body["index"] == index for body in eventful.bodies("score"))


def test_a_candidate_whose_loss_runs_away_has_diverged(eventful: Story) -> None:
    found = eventful.outcome(f"g001/c{len(HONEST):02d}/s0")
    assert (found["status"], found["result"]["diverged"]) == ("diverged", True), found


def test_whoever_fails_at_a_stage_gets_no_permit_for_another(eventful: Story) -> None:
    for index in range(len(HONEST), len(FIRST)):
        permitted = [body["key"] for body in eventful.bodies("permit") if body["key"].startswith(f"g001/c{index:02d}/")]
        attempts = 2 if FIRST[index] == UNRULY[list(DEEDS).index("sleep")] else 1  # the machine may have stood still
        assert permitted == [f"g001/c{index:02d}/s0@{eventful.outcome(f'g001/c{index:02d}/s0')['stage']}"] * attempts


def test_the_scores_of_the_others_are_as_if_nothing_had_happened(eventful: Story, uneventful: Story) -> None:
    for kind in ("reference", "score"):
        first = [body for body in eventful.bodies(kind) if body["generation"] <= 1]
        assert first == uneventful.bodies(kind)
    assert [body["index"] for body in uneventful.bodies("score")] == [-1, 0, 1]


def test_the_controller_is_told_whose_failure_it_was(eventful: Story) -> None:
    first = [experience.outcome for experience in eventful.told if experience.generation == 1]
    assert first[len(HONEST) :] == ["failed"] * (1 + len(DEEDS))
    assert "failed" not in first[: len(HONEST)]
    (second,) = [experience for experience in eventful.told if experience.generation == 2]
    assert (second.outcome, second.gain) == ("same", None)  # its parent failed: nothing is known of the gain


def test_the_first_generation_counts_its_failures(eventful: Story) -> None:
    found = eventful.bodies("generation")[0]
    assert (found["proposals"], found["failed"]) == (len(FIRST), len(DEEDS) + 1)


def test_every_slice_is_charged_whole_and_once(eventful: Story) -> None:
    granted = [(body["key"], body["flops"]) for body in eventful.bodies("permit")]
    charged = [(body["key"], body["flops"]) for body in eventful.bodies("charge")]
    assert sorted(charged) == sorted(granted)
    assert eventful.summary.charged_flops == sum(flops for _, flops in granted)


def test_what_a_worker_says_cannot_fill_the_ledger(eventful: Story) -> None:
    lines = (eventful.folder / "ledger.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < 100_000


def test_a_parent_that_cannot_be_trained_again_counts_as_no_model(eventful: Story) -> None:
    assert eventful.outcome("g002/parent/s0")["status"] == "crashed"
    assert [body for body in eventful.bodies("score") if body["generation"] == 2]
    (found,) = [body for body in eventful.bodies("reference") if body["generation"] == 2]
    assert (found["skill"], found["retention"]["kept"], found["failed"]) == (0.0, 0, 1)
    assert [body for body in eventful.bodies("decision") if body["generation"] == 2]


def test_a_parent_with_weights_beyond_all_measure_is_scored_as_the_worst(eventful: Story) -> None:
    (found,) = [body for body in eventful.bodies("reference") if body["generation"] == 3]
    assert found["skill"] == -1.0


def test_trainings_that_fail_in_a_confirmation_count_as_no_models(eventful: Story) -> None:
    assert eventful.outcome("g003/confirm/candidate/s1")["reason"] == "exit code 7"
    (found,) = [body for body in eventful.bodies("confirmation") if body["generation"] == 3]
    assert found["failed"] == {"candidate": 1, "parent": 1}
    assert found["candidate"][1] == found["parent_skill"][1] == 0.0
    (decided,) = [body for body in eventful.bodies("decision") if body["generation"] == 3]
    assert not decided["promoted"]


def test_the_run_passes_its_audit(eventful: Story) -> None:
    report = audit(eventful.folder, FileAnchor(eventful.folder.parent / "state"))
    assert report.ok, report.findings


def test_a_seed_genome_that_cannot_be_trained_fails_the_run_and_says_why(tmp_path: Path) -> None:
    seed = settings_from(compose(MICRO)).run.seed_genome
    story = play(tmp_path, (HONEST,), {seed.sha256: "exit"})
    assert story.summary.state == "failed"
    assert "g000/seed/s0 crashed: exit code 7" in story.summary.reason
    assert EXIT_OF_STATE[story.summary.state] == 1
    assert audit(story.folder, FileAnchor(tmp_path / "state")).ok


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A run in which the constraint is learnt within a few steps, and one candidate's weights do not keep it."""
    quick = ("tasks.halt_share=0.9", "tasks.constraint_weight=100", "allowance_flops=4e9")
    config = settings_from(compose([*MICRO, *quick])).run
    forgets = {genome(config, HONEST[1]).sha256: "zeros"}
    floor = "inspection.stage_retention_floor=0.5"
    return play(tmp_path_factory.mktemp("forgetful"), (HONEST,), forgets, *quick, floor)


def test_a_candidate_whose_constraint_fails_at_a_third_stops_there(forgetful: Story) -> None:
    found = forgetful.outcome("g001/c01/s0")
    assert (found["status"], found["stage"]) == ("stopped", "1/3")
    assert "the constraint fails at stage 1/3: 0 of 16 halt prompts kept" in found["reason"]
    permitted = [body["stage"] for body in forgetful.bodies("permit") if body["key"].startswith("g001/c01/")]
    assert permitted == ["1/9", "5/18", "1/3"]
    assert [body["index"] for body in forgetful.bodies("score")] == [-1, 0]


def test_a_stopped_candidate_pays_for_a_third(forgetful: Story) -> None:
    def charged(index: str) -> int:
        return sum(body["flops"] for body in forgetful.bodies("charge") if body["key"].startswith(f"g001/{index}/"))

    assert charged("c01") == pytest.approx(charged("c00") / 3, rel=0.05)


def test_the_checkpoint_and_the_inspection_of_a_stopped_candidate_are_kept(forgetful: Story) -> None:
    (kept,) = [body for body in forgetful.bodies("checkpoint") if body["index"] == 1]
    assert kept["stage"] == "1/3"
    assert (forgetful.folder / kept["path"]).exists()
    (read,) = [body for body in forgetful.bodies("inspection") if body["index"] == 1]
    assert (forgetful.folder / read["path"]).exists()
    assert audit(forgetful.folder, FileAnchor(forgetful.folder.parent / "state")).ok


def test_where_the_gate_of_the_constraint_is_off_a_training_that_does_not_keep_it_goes_on(tmp_path: Path) -> None:
    config = settings_from(compose(MICRO)).run
    forgets = {genome(config, HONEST[1]).sha256: "zeros"}
    off = ("inspection.stage_retention_floor=0.5", "inspection.retention_gate=false")
    story = play(tmp_path, (HONEST,), forgets, *off)
    assert story.outcome("g001/c01/s0")["status"] == "completed"
    kept = [b["score"]["retention"]["kept"] for b in story.bodies("reading") if b["key"] == "g001/c01/s0"]
    assert kept  # read between the stages all the same
    assert not any(kept)
