"""A promotion and the controller: what is tried, charged and recorded, and that a cut changes none of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.containment.jobs import Completed, Job, Usage
from selfimprove.controller.config import ARMS, ControllerConfig
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.proposer import Experience
from selfimprove.controller.transformer import HeldOut, TransformerProposer, Trial
from selfimprove.errors import ConfigError
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop import recursion
from selfimprove.loop.config import RunConfig
from selfimprove.loop.controlling import Controlling
from selfimprove.loop.reign import reign
from selfimprove.loop.slots import Bench
from selfimprove.nets.cost import parameter_shapes
from tests.loop.played import CONFIG, PLAYED, zeros
from tests.loop.records import bodies
from tests.loop.steps import Disk, Ending, Steps, place, steps
from tests.loop.test_controlling import bench_of, proposed

__all__ = ["place", "steps"]  # fixtures

BRIEF = replace(CONFIG, generations=1)
SPACE = Space(CONFIG.space)
GOOD, BAD = "recipe.batch=32", "recipe.optimizer=sgd"  # what succeeds and what does not, in the histories below
PROMOTED = replace(CONFIG.seed_genome, recipe=replace(CONFIG.seed_genome.recipe, batch=32))


def config_of(arm: str, **changes: Any) -> RunConfig:
    controller = ControllerConfig(width=32, batch=8, steps=2, prior_count=0.0, recursion=arm)
    few = replace(CONFIG.inspection, sequences=24)
    return replace(
        CONFIG, controller=replace(controller, **changes), inspection=few, candidates=6, generations=1, alpha=0.2
    )


class Knowing:
    """Stands where the supervisor stands: whoever is not the first controller knows which edits are good.

    The first one has no preference. With ``turned``, it is the first one who knows.
    """

    def __init__(self, first: Genome, *, turned: bool = False, verdict: str = "read", diverges: bool = False) -> None:
        self.first, self.turned, self.verdict, self.diverges = first, turned, verdict, diverges
        self.jobs: list[Job] = []

    def run(self, jobs: list[Job], on_start: Any = None) -> Iterator[tuple[int, Completed]]:
        for index, job in enumerate(jobs):
            if on_start is not None:
                on_start(index)
            self.jobs.append(job)
            yield index, Completed(*self._answer(job), Usage())

    def _answer(self, job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
        if job.payload["op"] == "inspect_controller":
            return {"verdict": self.verdict, "reason": "so it is"}, {}
        if job.payload["op"] == "screen":
            return PLAYED["screen"](job)
        genome, grammar = Genome.from_json(job.payload["genome"]), Grammar(SPACE)
        knows = (genome == self.first) == self.turned
        said: dict[str, Any] = {"diverged": self.diverges and genome != self.first, "loss": 1.0, "entropy": 1.0}
        if job.payload["op"] == "trial":
            parents = [Genome.from_json(parent) for parent in job.payload["parents"]]
            asked = [(ids, parents[parent]) for parent, ids in job.payload["held_out"]]
            even = [-sum(log(len(some)) for some in grammar.choices(*one)) for one in asked]
            good = [str(grammar.decode(*one).edits[0]) == GOOD for one in asked]
            said["log_probs"] = [p + knows * (3.0 if g else -3.0) for p, g in zip(even, good, strict=True)]
        shapes = parameter_shapes(genome.architecture, len(grammar), grammar.context, genome.heads)
        return said, {name: zeros(shapes) for name in job.outputs}


def bench_with_history(config: RunConfig, folder: Path, supervisor: Any, parents: int = 1) -> Bench:
    """Generation 1, of which every third proposal succeeded and the first was promoted."""
    bench = bench_of(config, folder, supervisor)
    for index in range(config.candidates):
        good = index % 3 == 0
        proposed(bench, 1, index, (0.4 if good else 0.1, 0.2), text=GOOD if good else BAD)
        bench.journal.all("proposal")[index]["genome"] = PROMOTED.sha256 if index == 0 else f"child {index}"
    bench.register(PROMOTED)
    return bench


def handed_over(config: RunConfig, folder: Path, **doing: Any) -> tuple[Bench, dict[str, Any]]:
    bench = bench_with_history(config, folder, Knowing(config.controller.genome(), **doing))
    Controlling(bench, SPACE).hand_over(1, PROMOTED)
    [body] = bench.journal.all("handover")
    return bench, body


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few held-out proposals as these histories have may decide, and readings have no figures."""
    monkeypatch.setattr("selfimprove.loop.succession.undecidable", lambda outcomes, alpha: "")
    monkeypatch.setattr("selfimprove.loop.controller_inspection._found", lambda answer, *_: dict(answer))


def test_who_proposes_better_on_what_neither_has_seen_takes_over(tmp_path: Path) -> None:
    config = config_of("both")
    bench, body = handed_over(config, tmp_path)
    assert body["accepted"], body
    assert (body["contender"], body["incumbent"]) == (PROMOTED.sha256, config.controller.genome().sha256)
    assert body["comparison"]["p_value"] < config.alpha
    ruling = reign(bench.journal, config.controller.genome(), 1)
    assert ruling.genome == PROMOTED
    assert (tmp_path / str(ruling.weights)).exists()
    assert reign(bench.journal, config.controller.genome(), 0).genome == config.controller.genome()
    found = Controlling(bench, SPACE)
    found.tell(1)
    [told] = bench.journal.all("controller")
    assert told["genome"] == PROMOTED.sha256
    last = bench.supervisor.jobs[-1]  # type: ignore[attr-defined]
    assert last.payload["genome"] == PROMOTED.to_json()
    assert last.inputs["weights"] == tmp_path / str(ruling.weights)


def test_both_sides_learn_from_the_same_and_neither_from_what_judges_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[tuple[list[str], list[str]]]()
    trial = TransformerProposer.trial

    def noting(
        proposer: TransformerProposer, history: Sequence[Experience], held_out: Sequence[HeldOut], *rest: Any
    ) -> Trial:
        spelled = [str(proposer.grammar.decode(one.ids, one.parent).edits) for one in held_out]
        tried.append(([str(one.edits) for one in history], spelled))
        return trial(proposer, history, held_out, *rest)

    monkeypatch.setattr(TransformerProposer, "trial", noting)
    config = config_of("both")
    bench = bench_with_history(config, tmp_path, Knowing(config.controller.genome()))
    rates = [rate for rate in FIELDS["recipe.learning_rate"].choices if rate != CONFIG.seed_genome.recipe.learning_rate]
    for body, rate in zip(bench.journal.all("proposal"), rates, strict=False):
        body["edits"] = [f"recipe.learning_rate={rate}"]  # each its own
    Controlling(bench, SPACE).hand_over(1, PROMOTED)
    trials = [job.payload for job in bench.supervisor.jobs if job.payload["op"] == "trial"]  # type: ignore[attr-defined]
    assert [job.inputs for job in bench.supervisor.jobs[:2]] == [{}, {}]  # type: ignore[attr-defined]
    ours, theirs = trials
    for name in ("lessons", "held_out", "parents", "init", "seed", "temperature", "epsilon"):
        assert ours[name] == theirs[name], name
    history = sorted(str(one.edits) for one in Controlling(bench, SPACE).history())
    assert len(set(history)) == config.candidates
    assert len(tried) == 2
    for learned, held_out in tried:
        assert sorted(learned + held_out) == history
        assert not set(learned) & set(held_out)


def test_both_sides_cost_the_same_and_each_is_permitted_and_charged(tmp_path: Path) -> None:
    config = config_of("both", width=64)
    bench, _ = handed_over(config, tmp_path)
    permits, charges = bench.journal.all("permit"), bench.journal.all("charge")
    assert [p["key"] for p in permits] == [c["key"] for c in charges] == ["g001/contender", "g001/incumbent"]
    assert [p["flops"] for p in permits] == [c["flops"] for c in charges] == [t["flops"] for t in
        bench.journal.all("trial")]  # fmt: skip
    assert {c["account"] for c in charges} == {"controller"}
    ours, theirs = (job.payload for job in bench.supervisor.jobs[:2])  # type: ignore[attr-defined]
    assert theirs["steps"] == config.controller.steps
    assert 1 <= ours["steps"] < theirs["steps"]  # four times the batch: fewer steps


@pytest.mark.parametrize(
    ("doing", "why"),
    [
        ({"turned": True}, "proposes no better beyond noise"),
        ({"verdict": "unreadable"}, "inspection: the contender is unreadable so it is"),
        ({"diverges": True}, "the contender's trial failed: its training diverged"),
    ],
)
def test_who_is_not_better_or_cannot_be_read_or_trained_does_not(
    doing: dict[str, Any], why: str, tmp_path: Path
) -> None:
    bench, body = handed_over(config_of("both"), tmp_path, **doing)
    assert not body["accepted"]
    assert body["reasons"][0].startswith(why)
    assert reign(bench.journal, bench.config.controller.genome(), 1).genome == bench.config.controller.genome()


def test_what_is_over_a_limit_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    config = config_of("both")
    limits = replace(config.limits, parameters=80_000)  # between the first controller and the promoted genome
    for number, tight in enumerate((replace(config, limits=limits), config_of("both", handover_cost=1.0))):
        (folder := tmp_path / str(number)).mkdir()
        bench, body = handed_over(tight, folder)
        assert not body["accepted"]
        assert ("limits.parameters", "controller.handover_cost")[number] in body["reasons"][0]
        assert not bench.journal.all("permit")


def test_a_promotion_that_changes_nothing_of_what_an_arm_takes_is_no_contest(tmp_path: Path) -> None:
    bench, body = handed_over(config_of("loss"), tmp_path)
    assert body["reasons"] == ["it is the incumbent's own genome"]
    assert not bench.journal.all("permit")


def test_a_sham_is_not_the_promoted_genome_and_is_judged_alike(tmp_path: Path) -> None:
    bench, body = handed_over(config_of("sham", handover_cost=1000.0), tmp_path)
    assert body["contender"] not in (PROMOTED.sha256, body["incumbent"], None)
    assert [trial["role"] for trial in bench.journal.all("trial")] == ["contender", "incumbent"]


def test_extra_training_costs_what_the_hand_over_would_have(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("both", "extra")]
    for folder in folders:
        folder.mkdir()
    paid = sum(trial["flops"] for trial in handed_over(config_of("both"), folders[0])[0].journal.all("trial"))
    bench, body = handed_over(config_of("extra"), folders[1])
    assert body["extra_flops"] == paid
    assert not bench.journal.all("permit")
    Controlling(bench, SPACE).tell(1)
    [told] = bench.journal.all("controller")
    first = config_of("none").controller
    plain = told["flops"] * (first.steps + 1) // bench.supervisor.jobs[0].payload["price"]["steps"]  # type: ignore[attr-defined]
    assert 0 <= paid + plain - told["flops"] < plain  # but for less than one step
    assert told["genome"] == first.genome().sha256


def test_a_frozen_controller_never_learns(tmp_path: Path) -> None:
    bench = bench_with_history(config_of("frozen"), tmp_path, Knowing(config_of("frozen").controller.genome()))
    found = Controlling(bench, SPACE)
    found.hand_over(1, PROMOTED)
    found.tell(1)
    [told] = bench.journal.all("controller")
    assert (told["weights"], told["flops"], told["reason"]) == (None, 0, "")
    assert not bench.journal.all("handover")


def test_only_a_controller_with_a_genome_can_inherit_one() -> None:
    for arm in ARMS:
        ControllerConfig(recursion=arm)
    with pytest.raises(ConfigError, match="controller=random has no genome"):
        ControllerConfig(name="random", recursion="both")
    with pytest.raises(ConfigError, match="none, frozen, extra, sham, architecture, loss, both"):
        ControllerConfig(recursion="all")


def test_a_run_that_died_while_it_handed_over_ends_as_if_it_had_not(
    steps: Steps, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    better = recursion.Comparison(2, 1, -0.1, -0.2, 0.1, 0.0)
    monkeypatch.setattr("selfimprove.loop.succession.compare", lambda *_: better)
    monkeypatch.setitem(PLAYED, "inspect_controller", lambda job: ({"verdict": "read", "reason": ""}, {}))
    config = replace(BRIEF, controller=replace(BRIEF.controller, recursion="both", handover_cost=100.0))
    whole = Disk(place / "whole")
    steps.sitting(config, whole)
    labels, expected = list(steps.labels), Ending.of(whole)
    accepted = [body for body in bodies(whole.run, "handover") if body["accepted"]]
    assert accepted
    assert expected.problems == []
    within = [
        i for i, label in enumerate(labels) if label.endswith(("after contender", "after trial", "after handover"))
    ]
    cuts = [i for i in within if not labels[i].startswith("record ")][::4]
    disks = steps.cut(config, Disk(place / "again"), cuts)
    assert steps.labels == labels
    for cut, disk in zip(cuts, disks, strict=True):
        steps.sitting(config, disk)
        found, where = Ending.of(disk), f"cut before step {cut}: {labels[cut]}"
        assert (found.summary, found.paid, found.problems) == (expected.summary, expected.paid, []), where
        for kind in ("contender", "handover"):
            assert _told(disk.run, kind) == _told(whole.run, kind), where
        for kind in ("trial", "controller"):
            assert [b["sha256"] for b in bodies(disk.run, kind) if b["weights"]] == [
                b["sha256"] for b in bodies(whole.run, kind) if b["weights"]
            ], where


def test_an_audit_finds_a_contender_whose_weights_were_changed(
    steps: Steps, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(BRIEF, controller=replace(BRIEF.controller, recursion="both", handover_cost=100.0))
    disk = Disk(place / "whole")
    steps.sitting(config, disk)
    [path, *_] = sorted((disk.run / "controller").glob("*-contender.safetensors"))
    path.write_bytes(path.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    report = audit(disk.run, FileAnchor(disk.state))
    assert [finding.file for finding in report.findings] == [f"controller/{path.name}"]


def _told(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in b.items() if name != "spent"} for b in bodies(folder, kind)]
