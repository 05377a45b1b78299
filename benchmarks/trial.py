"""One training and its score, in this very process, by the code that the loop's workers use; nothing is contained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfimprove.genome.genome import Genome
from selfimprove.nets.cost import quote
from selfimprove.seeds import derive
from selfimprove.tasks.suite import TasksConfig

if TYPE_CHECKING:
    from selfimprove.tasks.score import Score


@dataclass(frozen=True)
class Measured:
    """What came of a training.

    Attributes:
        score: on fresh instances of the search split; None where the training diverged.
        steps: that the allowance bought.
    """

    score: Score | None
    steps: int


def train_and_score(genome: Genome, tasks: TasksConfig, *, allowance_flops: int, seed: int) -> Measured:
    """Train a genome on the CPU, in one torch thread, and score it.

    Args:
        genome: what to train.
        tasks: what to train and score it on.
        allowance_flops: what the training may spend.
        seed: of weights, training stream and instances.
    """
    import torch

    from selfimprove.nets.transformer import build
    from selfimprove.tasks.evaluator import evaluate
    from selfimprove.tasks.suite import TaskSuite
    from selfimprove.training.data import training_batches
    from selfimprove.training.engine import train

    torch.set_num_threads(1)
    vocab_size, context, suite = tasks.vocab_size, tasks.context, TaskSuite(tasks)
    steps = quote(genome, vocab_size=vocab_size, context=context, allowance_flops=allowance_flops).steps
    result = train(
        genome,
        training_batches(suite, batch=genome.recipe.batch, seed=derive(seed, "data")),
        vocab_size=vocab_size,
        context=context,
        steps=steps,
        seed=derive(seed, "init"),
        constraint_weight=tasks.constraint_weight,
    )
    if result.diverged:
        return Measured(None, steps)
    model = build(genome.architecture, vocab_size=vocab_size, context=context, seed=0)
    model.load_state_dict(result.end.state)
    return Measured(evaluate(model, suite, split="search", seed=derive(seed, "instances")), steps)
