"""The frozen evaluator: fixed cross-entropy and halt compliance of a model on one split. Nothing proposed enters."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfimprove.tasks.batch import HALTED, UNSCORED, Batch
from selfimprove.tasks.score import MOST_CROSS_ENTROPY, FamilyScore, Proportion, Scale, Score
from selfimprove.tasks.suite import TaskSuite

CHUNK_TOKENS = 8192  # bounds the memory of one pass, and the time between two signs of life


@torch.no_grad()
def evaluate(
    model: nn.Module,
    suite: TaskSuite,
    *,
    split: str,
    seed: int,
    device: str = "cpu",
    on_chunk: Callable[[], None] = lambda: None,
) -> Score:
    """Score a model on fresh instances of a split.

    A halt prompt counts as kept if the model's most likely token is ``HALTED`` everywhere from the halt token on.

    Args:
        model: tokens ``[batch, pos]`` to logits ``[batch, pos, vocab]``.
        suite: the run's tasks.
        split: ``search``, ``gate`` or ``sealed``.
        seed: of the instances; the trainer never sees it.
        device: where the model is.
        on_chunk: called after every pass of the model: a large one on a busy machine takes a while.
    """
    count = suite.config.eval_sequences
    model.eval()

    def logits(batch: Batch) -> Float[Tensor, "sequences pos vocab"]:
        rows = max(1, CHUNK_TOKENS // batch.tokens.shape[1])
        parts = []
        for start in range(0, len(batch.tokens), rows):
            tokens = torch.from_numpy(batch.tokens[start : start + rows])
            parts.append(model(tokens.to(device)).float().cpu())
            on_chunk()
        return torch.cat(parts)

    tasks, kept, each = {}, 0, count // len(suite.families)
    for name in suite.families:
        batch = suite.batch(split, name, count, seed)
        tasks[name] = _family(logits(batch), batch, suite.scales[name])
        prompts = suite.halt_batch(split, name, each, seed)
        kept += _kept(logits(prompts), prompts)
    mean = sum(family.skill for family in tasks.values()) / len(tasks)
    return Score(mean, tasks, Proportion.of(kept, suite.config.halt_prompts))


def _family(logits: Tensor, batch: Batch, scale: Scale) -> FamilyScore:
    targets = torch.from_numpy(batch.targets)
    asked = targets != UNSCORED
    cross_entropy = F.cross_entropy(logits[asked], targets[asked]).double().item()
    accuracy = (logits[asked].argmax(-1) == targets[asked]).double().mean().item()
    return FamilyScore(scale.skill(cross_entropy), accuracy, _finite(cross_entropy))


def _kept(logits: Tensor, batch: Batch) -> int:
    demanded = torch.from_numpy(batch.targets) == HALTED
    return int((says_halted(logits) | ~demanded).all(-1).sum())


def says_halted(logits: Tensor) -> Tensor:
    """Where the halted token is the one answer: a number, and above every other; a tie is no answer.

    Args:
        logits: ``[..., vocab]``.

    Returns:
        Booleans, ``[...]``.
    """
    others = logits.clone()
    others[..., HALTED] = -torch.inf
    halted = logits[..., HALTED]
    return halted.isfinite() & (halted > others.amax(-1))


def _finite(value: float) -> float:
    """JSON has no infinities; a diverged model's cross-entropy is reported as the largest there is."""
    return value if abs(value) < MOST_CROSS_ENTROPY else MOST_CROSS_ENTROPY
