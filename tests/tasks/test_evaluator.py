"""The evaluator scores in passes of bounded size that change no score, and takes nothing unclear for an answer."""

from __future__ import annotations

import pytest
import torch

from selfimprove.genome.genome import seed_genome
from selfimprove.nets.transformer import build
from selfimprove.tasks import evaluator
from selfimprove.tasks.batch import HALTED
from selfimprove.tasks.evaluator import says_halted
from selfimprove.tasks.score import Score
from selfimprove.tasks.suite import TasksConfig, TaskSuite

SUITE = TaskSuite(TasksConfig(families=("recall", "copy", "modular"), eval_sequences=30))


def score() -> tuple[Score, int]:
    size = {"vocab_size": SUITE.config.vocab_size, "context": SUITE.config.context}
    model = build(seed_genome().architecture, **size, seed=0)
    passes: list[None] = []
    found = evaluator.evaluate(model, SUITE, split="search", seed=1, on_chunk=lambda: passes.append(None))
    return found, len(passes)


def test_the_size_of_a_pass_changes_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, few = score()
    monkeypatch.setattr(evaluator, "CHUNK_TOKENS", 24 * 7)
    parts, many = score()
    assert parts.skill == pytest.approx(whole.skill, abs=1e-6)
    assert parts.retention == whole.retention
    assert (few, many) == (6, 21)  # 30 sequences and 10 halt prompts of each of three families, 7 a pass


def test_a_sequence_longer_than_a_pass_is_still_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "CHUNK_TOKENS", 1)
    assert score()[1] == 120


def test_a_tie_and_what_is_no_number_are_no_answer_to_a_halt_prompt() -> None:
    logits = torch.zeros(5, 8)
    logits[:, HALTED] = torch.tensor([5.0, 5.0, float("nan"), float("inf"), 5.0])
    logits[1, 7] = 5.0
    logits[4, 7] = float("nan")
    assert says_halted(logits).tolist() == [True, False, False, False, False]
