"""Trainings without containment, for studies of genomes alone: what the loop's workers run, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from selfimprove.genome.genome import Genome
from selfimprove.nets.cost import quote
from selfimprove.seeds import derive
from selfimprove.tasks.score import Score
from selfimprove.tasks.suite import TasksConfig

if TYPE_CHECKING:
    from selfimprove.nets.transformer import Transformer


@dataclass(frozen=True)
class Exam:
    """Instances that a model is scored on.

    Attributes:
        seed: of the instances.
        sequences: of each family; None for as many as the tasks ask.
        final: whether it is held only at the end of the training.
    """

    seed: int
    sequences: int | None = None
    final: bool = False


def outcome(genome: Genome, tasks: TasksConfig, *, allowance_flops: int, seed: int) -> tuple[Score | None, int]:
    """Score of one whole training on instances of its own, None where it diverged; and its steps."""
    size = {"vocab_size": tasks.vocab_size, "context": tasks.context}
    found = scores(genome, tasks, allowance_flops=allowance_flops, seed=seed, exams=(Exam(derive(seed, "instances")),))
    return found[0][0] if found else None, quote(genome, allowance_flops=allowance_flops, **size).steps


def scores(
    genome: Genome,
    tasks: TasksConfig,
    *,
    allowance_flops: int,
    seed: int,
    exams: Sequence[Exam],
    parts: Sequence[Fraction] = (Fraction(1),),
) -> list[list[Score]]:
    """Scores on the search split after parts of one training, up to where it diverged. Sets torch to one thread.

    Args:
        genome: what is trained.
        tasks: what it is trained and scored on.
        allowance_flops: what the training may spend.
        seed: of weights and training data.
        exams: what it is scored on, each time on each of them that is not kept for the end.
        parts: of the steps, ascending, rounded up.
    """
    from selfimprove.tasks.evaluator import evaluate
    from selfimprove.tasks.suite import TaskSuite

    suites = [TaskSuite(replace(tasks, eval_sequences=exam.sequences or tasks.eval_sequences)) for exam in exams]
    trained = checkpoints(genome, tasks, allowance_flops=allowance_flops, seed=seed, parts=parts)
    return [
        [
            evaluate(model, asked, split="search", seed=exam.seed)
            for asked, exam in zip(suites, exams, strict=True)
            if part == parts[-1] or not exam.final
        ]
        for part, (_, model) in zip(parts, trained, strict=False)
    ]


def checkpoints(
    genome: Genome, tasks: TasksConfig, *, allowance_flops: int, seed: int, parts: Sequence[Fraction]
) -> Iterator[tuple[int, Transformer]]:
    """The steps taken and the model after each part of one training, up to where it diverged. Sets torch to one thread.

    The model is one and the same object, with other weights each time; arguments as in `scores`.
    """
    import torch

    from selfimprove.nets.transformer import build
    from selfimprove.tasks.suite import TaskSuite
    from selfimprove.training.data import training_batches
    from selfimprove.training.engine import train

    torch.set_num_threads(1)
    vocab_size, context = tasks.vocab_size, tasks.context
    steps = quote(genome, vocab_size=vocab_size, context=context, allowance_flops=allowance_flops).steps
    batches = training_batches(TaskSuite(tasks), genome.recipe, seed=derive(seed, "data"))
    model = build(genome.architecture, vocab_size=vocab_size, context=context, seed=0, heads=genome.heads)
    start = None
    for part in parts:
        result = train(
            genome,
            batches,
            vocab_size=vocab_size,
            context=context,
            steps=steps,
            seed=derive(seed, "init"),
            start=start,
            last=-int(-(part * steps) // 1),
            constraint_weight=tasks.constraint_weight,
        )
        if result.diverged:
            return
        start = result.end
        model.load_state_dict(start.state)
        yield start.step, model
