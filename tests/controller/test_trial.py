"""A controller on trial: any genome can be one, and what it is asked is what it would have done."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.policy import initial_weights, load_policy, rate, sample
from selfimprove.controller.proposer import ControlResult, Experience
from selfimprove.controller.transformer import HeldOut, TransformerProposer
from selfimprove.errors import InvalidEdit
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.sampling import draw_genome
from selfimprove.genome.space import Space
from tests.controller.test_transformer import LocalWorker

CONFIG = ControllerConfig(width=32, batch=8, steps=3, prior_count=0.0)
PARENT = seed_genome()
SPACE = Space()


def proposer_of(genome: Genome | None, local: LocalWorker) -> TransformerProposer:
    return TransformerProposer(CONFIG, SPACE, local, {PARENT.sha256: PARENT}.__getitem__, 11, genome)


@pytest.fixture
def local(tmp_path: Path) -> LocalWorker:
    return LocalWorker(tmp_path)


@pytest.fixture
def parts(local: LocalWorker) -> tuple[list[Experience], list[HeldOut]]:
    """What is learned, and what is held out."""
    first = proposer_of(None, local)
    proposals = first.ask([PARENT], [], 8, seed=1)
    history = [
        Experience(1, PARENT.sha256, proposal.edits, "better" if place % 2 else "worse", 0.1)
        for place, proposal in enumerate(proposals)
    ]
    held_out = [HeldOut(PARENT, tuple(first.grammar.encode(one.edits))) for one in history[4:]]
    local.payloads.clear()
    return history[:4], held_out


def test_a_proposal_is_rated_as_it_was_drawn() -> None:
    proposer = proposer_of(None, None)  # type: ignore[arg-type]
    grammar, genome = proposer.grammar, replace(proposer.genome, architecture=replace(
        proposer.genome.architecture, tie_embeddings=True))  # fmt: skip
    model = load_policy(genome, grammar, initial_weights(genome, grammar, 3))  # which has preferences, if slight ones
    how: dict[str, Any] = {"temperature": 0.7, "epsilon": 0.2}
    drawn = sample(model, grammar, [PARENT], rows=6, seed=5, **how)
    rated = rate(model, grammar, [(PARENT, one.ids) for one in drawn], **how)
    assert rated == pytest.approx([one.log_prob for one in drawn], abs=1e-4)


def test_any_genome_of_the_space_can_be_tried_as_a_controller(
    local: LocalWorker, parts: tuple[list[Experience], list[HeldOut]]
) -> None:
    learned, held_out = parts
    rng, rated = random.Random(4), 0
    for _ in range(3):
        proposer = proposer_of(draw_genome(SPACE, rng), local)
        tried = proposer.trial(learned, held_out, updates=1, seed=2)
        assert tried.flops == proposer.trial_price(1, len(held_out)).flops > 0
        assert len(tried.log_probs) == (0 if tried.weights is None else len(held_out))
        rated += tried.weights is not None
    assert rated, "one at least does not diverge"


def test_learning_makes_what_succeeded_likelier_than_what_failed(
    local: LocalWorker, parts: tuple[list[Experience], list[HeldOut]]
) -> None:
    learned, _ = parts
    proposer = proposer_of(None, local)
    asked = [HeldOut(PARENT, tuple(proposer.grammar.encode(one.edits))) for one in learned]
    before, after = (proposer.trial(learned, asked, updates, seed=2).log_probs for updates in (1, 20))
    gained = [late - early for early, late in zip(before, after, strict=True)]
    better = [gain for gain, one in zip(gained, learned, strict=True) if one.outcome == "better"]
    worse = [gain for gain, one in zip(gained, learned, strict=True) if one.outcome == "worse"]
    assert min(better) > max(worse)


def test_a_trial_starts_from_the_initial_weights_and_costs_what_the_updates_of_the_first_controller_do(
    local: LocalWorker, parts: tuple[list[Experience], list[HeldOut]], tmp_path: Path
) -> None:
    learned, held_out = parts
    first = proposer_of(None, local)
    large = proposer_of(replace(first.genome, architecture=replace(first.genome.architecture, width=64)), local)
    weights = first.tell(learned, 1).weights
    assert weights is not None
    (stored := tmp_path / "stored").write_bytes(weights)
    plain = first.trial(learned, held_out, 4, seed=2)
    first.restore(stored)
    assert first.trial(learned, held_out, 4, seed=2) == plain
    large.trial(learned, held_out, 4, seed=2)
    steps = [payload["steps"] for payload in local.payloads if payload["op"] == "trial"]
    assert steps[:2] == [4 * CONFIG.steps] * 2
    assert 1 <= steps[2] < steps[0]


def test_ratings_of_another_form_are_refused(
    local: LocalWorker, parts: tuple[list[Experience], list[HeldOut]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proposer, (learned, held_out) = proposer_of(None, local), parts
    answer = {"diverged": False, "loss": 1.0, "entropy": 1.0}
    weights = proposer.tell(learned, 1).weights or b""
    odd: list[Any] = [[], [-1.0], [0.1] * 4, ["-1"] * 4, [float("nan")] * 4, [float("-inf")] * 4, [-1] * 4, None]
    for said in odd:
        given = ControlResult(answer | {"log_probs": said}, {"weights": weights})
        monkeypatch.setattr(proposer, "_execute", lambda *_, given=given: given)
        with pytest.raises(InvalidEdit, match="log_probs"):
            proposer.trial(learned, held_out, updates=1, seed=2)
