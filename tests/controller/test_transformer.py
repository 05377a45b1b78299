"""The learned controller from the trusted side: priced, deterministic, and refusing hostile answers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selfimprove.controller import worker
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.policy import learn, load_policy
from selfimprove.controller.proposer import ControlResult, Experience, Price, Proposal
from selfimprove.controller.transformer import TransformerProposer
from selfimprove.errors import InvalidCheckpoint, InvalidEdit, SelfImproveError
from selfimprove.genome.edits import apply
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.nets import cost

CONFIG = ControllerConfig(width=32, batch=8, steps=6)
INIT = 11
Answer = dict[str, Any]


class LocalWorker:
    """Runs the worker's entry module in this process, through real descriptors and real JSON.

    ``tamper`` may change the result before it is handed back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.payloads: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.tamper: Callable[[dict[str, Any]], dict[str, Any]] = lambda result: result

    def __call__(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...]) -> ControlResult:
        self.payloads.append(payload)
        written = {name: self.folder / f"{len(self.payloads)}-{name}" for name in outputs}
        sources = {name: os.open(path, os.O_RDONLY) for name, path in inputs.items()}
        sinks = {name: os.open(path, os.O_WRONLY | os.O_CREAT) for name, path in written.items()}
        try:
            result = worker.run(json.loads(json.dumps(payload)), sources, sinks, self.events.append)
        finally:
            for descriptor in (*sources.values(), *sinks.values()):
                os.close(descriptor)
        data = {name: path.read_bytes() for name, path in written.items()}
        return ControlResult(self.tamper(json.loads(json.dumps(result))), data)


@pytest.fixture
def local_worker(tmp_path: Path) -> LocalWorker:
    return LocalWorker(tmp_path)


@pytest.fixture
def proposer(space: Space, local_worker: LocalWorker, genomes: list[Genome]) -> TransformerProposer:
    by_hash = {genome.sha256: genome for genome in genomes}
    return TransformerProposer(CONFIG, space, local_worker, by_hash.__getitem__, INIT)


def _history(parent: Genome, proposals: list[Proposal]) -> list[Experience]:
    return [
        Experience(0, parent.sha256, proposal.edits, "better" if index % 3 == 0 else "worse", 0.1 * (1 - index % 3))
        for index, proposal in enumerate(proposals)
    ]


def test_proposals_lead_to_distinct_valid_genomes(
    proposer: TransformerProposer, space: Space, genomes: list[Genome]
) -> None:
    parents = genomes[:3]
    proposals = proposer.ask(parents, [], 12, seed=1)
    children = [_child(space, parents[proposal.parent], proposal) for proposal in proposals]
    assert len({child.sha256 for child in [*children, *parents]}) == 15
    for child in children:
        space.validate(child)


def test_what_the_history_holds_is_not_proposed_again(proposer: TransformerProposer, parent: Genome) -> None:
    first = proposer.ask([parent], [], 10, seed=2)
    again = proposer.ask([parent], _history(parent, first), 10, seed=2)
    assert len(again) == 10
    assert not {proposal.edits for proposal in first} & {proposal.edits for proposal in again}


def test_sampled_proposals_carry_their_log_probability_and_entropy(
    proposer: TransformerProposer, parent: Genome
) -> None:
    proposals = proposer.ask([parent], [], 10, seed=3)
    assert all(
        proposal.log_prob is not None and proposal.log_prob < 0 and proposal.entropy is not None
        for proposal in proposals
    )


def test_where_the_model_repeats_itself_random_proposals_fill_up(
    proposer: TransformerProposer, local_worker: LocalWorker, parent: Genome
) -> None:
    local_worker.tamper = lambda result: {"proposals": [result["proposals"][0]] * 5}
    proposals = proposer.ask([parent], [], 4, seed=3)
    assert [proposal.log_prob is None for proposal in proposals] == [False, True, True, True]


def test_the_same_seed_gives_the_same_proposals(proposer: TransformerProposer, parent: Genome) -> None:
    assert proposer.ask([parent], [], 6, seed=4) == proposer.ask([parent], [], 6, seed=4)
    assert proposer.ask([parent], [], 6, seed=4) != proposer.ask([parent], [], 6, seed=5)


def test_the_same_seed_gives_bit_identical_weights(proposer: TransformerProposer, parent: Genome) -> None:
    history = _history(parent, proposer.ask([parent], [], 6, seed=4))
    first, second, other = (proposer.tell(history, seed=seed) for seed in (6, 6, 7))
    assert first.weights == second.weights != other.weights


def test_training_goes_on_from_the_restored_weights(
    proposer: TransformerProposer, parent: Genome, tmp_path: Path
) -> None:
    history = _history(parent, proposer.ask([parent], [], 6, seed=4))
    first = proposer.tell(history, seed=6)
    assert first.weights is not None
    stored = tmp_path / "controller.safetensors"
    stored.write_bytes(first.weights)
    proposer.restore(stored)
    second = proposer.tell(history, seed=6)
    assert first.loss is not None
    assert second.loss is not None
    assert second.loss < first.loss


def test_prices_come_from_the_quote_of_the_controller_genome(
    proposer: TransformerProposer, local_worker: LocalWorker, parent: Genome
) -> None:
    history = _history(parent, proposer.ask([parent], [], 6, seed=4))
    update = proposer.tell(history, seed=6)
    step = cost.quote(
        proposer.genome,
        vocab_size=len(proposer.grammar),
        context=proposer.grammar.context,
        allowance_flops=0,
    ).flops_per_step
    asked, told = (Price(**payload["price"]) for payload in local_worker.payloads)
    assert update.flops == (CONFIG.steps + 1) * step == told.flops
    assert asked == proposer.ask_price(6)
    assert (told.steps, told.tokens) == (CONFIG.steps + 1, (CONFIG.steps + 1) * 8 * proposer.grammar.context)
    assert asked.parameters == told.parameters == sum(map(math.prod, proposer.shapes.values()))
    assert min(asked.flops, asked.tokens, asked.steps, asked.memory_bytes, told.memory_bytes) > 0


def test_asking_and_telling_start_from_the_same_weights_until_some_are_restored(
    proposer: TransformerProposer, parent: Genome, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[dict[str, Any]] = []
    monkeypatch.setattr(worker, "load_policy", lambda *given: began.append(given[-1]) or load_policy(*given))
    monkeypatch.setattr(worker, "learn", lambda *given, **named: began.append(given[3]) or learn(*given, **named))
    history = _history(parent, proposer.ask([parent], [], 6, seed=4))
    proposer.tell(history, seed=6)
    proposer.restore(None)  # as after an update that was dropped
    proposer.ask([parent], history, 6, seed=9)
    first, *others = began
    assert len(others) == 2
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_an_empty_history_costs_nothing_and_asks_nobody(
    proposer: TransformerProposer, local_worker: LocalWorker
) -> None:
    assert proposer.tell([], seed=1).flops == 0
    assert local_worker.payloads == []


def test_a_diverged_update_is_paid_for_and_dropped(
    proposer: TransformerProposer, local_worker: LocalWorker, parent: Genome
) -> None:
    history = _history(parent, proposer.ask([parent], [], 6, seed=4))
    local_worker.tamper = lambda result: result | {"diverged": True}
    update = proposer.tell(history, seed=6)
    assert update.weights is None
    assert update.flops == proposer.tell_price().flops


def test_another_genome_can_become_the_controller(space: Space, local_worker: LocalWorker, parent: Genome) -> None:
    promoted = replace(
        parent, architecture=replace(parent.architecture, width=32, tie_embeddings=True, positions="learned")
    )
    proposer = TransformerProposer(CONFIG, space, local_worker, {parent.sha256: parent}.__getitem__, INIT, promoted)
    history = _history(parent, proposer.ask([parent], [], 6, seed=4))
    assert proposer.tell(history, seed=6).weights is not None


def _first(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Answer], Answer]:
    return lambda answer: {"proposals": [change(answer["proposals"][0]), *answer["proposals"][1:]]}


HOSTILE: dict[str, Callable[[Answer], Any]] = {
    "no object": lambda answer: [],
    "no proposals": lambda answer: {},
    "proposals of another type": lambda answer: {"proposals": "x"},
    "a proposal of another type": _first(lambda item: []),  # type: ignore[arg-type,return-value]
    "too many proposals": lambda answer: {"proposals": answer["proposals"] * 1000},
    "a parent out of range": _first(lambda item: item | {"parent": 1}),
    "a negative parent": _first(lambda item: item | {"parent": -1}),
    "a parent that is a flag": _first(lambda item: item | {"parent": False}),
    "an empty action": _first(lambda item: item | {"ids": []}),
    "a truncated action": _first(lambda item: item | {"ids": item["ids"][:-1]}),
    "a continued action": _first(lambda item: item | {"ids": item["ids"] * 2}),
    "ids of another type": _first(lambda item: item | {"ids": [str(token) for token in item["ids"]]}),
    "nested ids": _first(lambda item: item | {"ids": [item["ids"]]}),
    "an endless action": _first(lambda item: item | {"ids": item["ids"] * 100_000}),
    "log-probability not a number": _first(lambda item: item | {"log_prob": float("nan")}),
    "log-probability above zero": _first(lambda item: item | {"log_prob": 0.5}),
    "no entropy": _first(lambda item: item | {"entropy": None}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_refused(
    proposer: TransformerProposer, local_worker: LocalWorker, parent: Genome, name: str
) -> None:
    local_worker.tamper = HOSTILE[name]
    with pytest.raises(InvalidEdit):
        proposer.ask([parent], [], 2, seed=1)


@pytest.mark.parametrize("weights", [b"", b"x" * 100, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_hostile_weights_are_refused(space: Space, parent: Genome, weights: bytes) -> None:
    def execute(*_: object) -> ControlResult:
        return ControlResult({"diverged": False, "loss": 1.0, "entropy": 1.0}, {"weights": weights})

    proposer = TransformerProposer(CONFIG, space, execute, {parent.sha256: parent}.__getitem__, INIT)
    with pytest.raises(InvalidCheckpoint):
        proposer.tell([Experience(0, parent.sha256, (space.edits(parent)[0],), "same", 0.0)], seed=1)


def test_what_nobody_judged_teaches_nothing(space: Space, parent: Genome) -> None:
    def execute(*_: object) -> ControlResult:
        raise AssertionError("there is nothing to learn from")

    proposer = TransformerProposer(CONFIG, space, execute, {parent.sha256: parent}.__getitem__, INIT)
    assert proposer.tell([Experience(0, parent.sha256, (space.edits(parent)[0],), "same")], seed=1).flops == 0


def test_a_result_that_is_not_finite_is_refused(
    proposer: TransformerProposer, local_worker: LocalWorker, parent: Genome
) -> None:
    history = _history(parent, proposer.ask([parent], [], 3, seed=4))
    local_worker.tamper = lambda result: result | {"loss": float("inf")}
    with pytest.raises(SelfImproveError):
        proposer.tell(history, seed=6)


def test_the_trusted_side_imports_no_torch() -> None:
    code = "import sys; import selfimprove.controller.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _child(space: Space, genome: Genome, proposal: Proposal) -> Genome:
    for edit in proposal.edits:
        genome = apply(edit, genome, space)
    return genome
