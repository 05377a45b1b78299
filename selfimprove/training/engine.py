"""The reference engine: one genome, one seed, eager. It neither knows the score nor the splits that decide.

A batch source gives ``tokens [batch, pos]`` and ``targets [batch, pos]`` on the engine's device. Targets of the
constraint (``HALTED``) are trained by a fixed cross-entropy of fixed weight, all others by the genome's objective, in
the size that ``gradient_scale`` gives it: the constraint's term stands outside the genome, and no constant factor in a
loss can make it count for less. What can is ``recipe.constraint_factor``, which a space offers only where drift is to
be measured; targets of a constraint whose factor is 0 are trained by nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from selfimprove.genome.genome import Genome
from selfimprove.genome.recipe import Recipe
from selfimprove.nets.gradients import gradient_scale
from selfimprove.nets.losses import compile_objective
from selfimprove.nets.phases import Phase, Size, phases
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import HALTED, UNSCORED
from selfimprove.training.averaging import Average
from selfimprove.training.optimizers import load_memory, make_optimizers, memory
from selfimprove.training.schedule import rate

BatchSource = Callable[[int], tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]]
CHECK_EVERY = 10  # steps between looks at the loss: on CUDA each look is a host synchronization


@dataclass(frozen=True)
class Snapshot:
    """Where a training stands: all that it takes to go on.

    Attributes:
        step: optimizer steps taken.
        state: parameters by name, float32 on the CPU; their averages where the recipe averages them.
        memory: what the optimizers remember, by name, float32 on the CPU, and the parameters where ``state`` has their
            averages; empty: nothing yet.
    """

    step: int
    state: dict[str, Tensor]
    memory: dict[str, Tensor]


@dataclass(frozen=True)
class TrainResult:
    """What a training run leaves.

    Attributes:
        end: where it stopped; before the step asked for if the loss stopped being finite.
        losses: the training loss every ``CHECK_EVERY`` steps: the scaled objective plus the weighted constraint.
        diverged: whether the loss, a weight or what an optimizer remembers stopped being finite. Lion's weights outlive
            a gradient that is not: the sign of NaN is 0, and with such a momentum they are never updated again.
    """

    end: Snapshot
    losses: tuple[float, ...]
    diverged: bool


def train(
    genome: Genome,
    next_batch: BatchSource,
    *,
    vocab_size: int,
    context: int,
    steps: int,
    seed: int,
    start: Snapshot | None = None,
    last: int | None = None,
    device: str = "cpu",
    constraint_weight: float = 0.0,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainResult:
    """Train a genome from its seed, or go on from a snapshot.

    The result is a pure function of the arguments: bit for bit on one CPU thread of one machine. A training that is cut
    at a step and goes on from its snapshot ends in the same weights as one that was not.

    Args:
        genome: architecture, objective and recipe.
        next_batch: step -> tokens and targets; targets are ``UNSCORED`` where nothing is asked. A step that is smaller
            by the recipe takes the first sequences of its batch, and the first tokens of each.
        vocab_size: tokens in the vocabulary.
        context: longest sequence, in tokens.
        steps: optimizer steps of the whole training, which the schedule refers to.
        seed: of the weights.
        start: where to begin; None: at step 0 with fresh weights.
        last: step to stop before; None: the end.
        device: ``cpu`` or ``cuda``.
        constraint_weight: weight of the constraint's cross-entropy; 0 where a task has no such constraint.
        on_step: called every ``CHECK_EVERY`` steps with the steps taken and the loss.

    Raises:
        InvalidGenome: the objective has no gradient to scale; the screen refuses such a loss before.
    """
    recipe = genome.recipe
    model = build(
        genome.architecture, vocab_size=vocab_size, context=context, seed=seed, heads=genome.heads,
        gain=recipe.init_scale,
    )  # fmt: skip
    average, optimizers = _begin(model.to(device).train(), recipe, start)
    loss_of, parameters = _loss(genome, constraint_weight), list(model.parameters())
    losses: list[float] = []
    taken, end = start.step if start else 0, steps if last is None else last
    for step, seen in _sizes(phases(recipe, context, steps), taken, end):
        tokens, targets = (whole[: seen.rows, : seen.length] for whole in next_batch(step))
        loss = loss_of(model, tokens, targets, step / steps)
        _step(parameters, optimizers, loss, recipe.learning_rate * rate(recipe, step, steps), recipe.clip)
        average.update(step)
        taken = step + 1
        if taken % CHECK_EVERY == 0 or taken == end:
            losses.append(loss.item())
            if on_step is not None:
                on_step(taken, losses[-1])
            if not math.isfinite(losses[-1]):
                break
    state, remembered = average.state(), memory(model, optimizers) | average.memory()
    diverged = not all(bool(value.isfinite().all()) for value in (*state.values(), *remembered.values()))
    return TrainResult(Snapshot(taken, state, remembered), tuple(losses), diverged or taken < end)


def _begin(model: Transformer, recipe: Recipe, start: Snapshot | None) -> tuple[Average, list[torch.optim.Optimizer]]:
    """Bring a fresh model to where its training begins; returns the average of its weights, and its optimizers."""
    if start is not None:
        model.load_state_dict(start.state)
    average, optimizers = Average(model, recipe.ema), make_optimizers(model, recipe)
    if start is not None:
        load_memory(model, optimizers, average.load_memory(start.memory))
    return average, optimizers


def _sizes(plan: Iterable[Phase], first: int, last: int) -> Iterator[tuple[int, Size]]:
    """The steps from ``first`` to before ``last``, each with what it sees."""
    for phase in plan:
        yield from ((step, phase.size) for step in range(max(first, phase.first), min(last, phase.last)))


def _loss(genome: Genome, weight: float) -> Callable[[Transformer, Tensor, Tensor, float], Tensor]:
    """The genome's objective on the task's tokens, brought to scale, plus the fixed term on the constraint's."""
    expression, share = genome.objective.expression, weight * genome.recipe.constraint_factor
    objective, scale = compile_objective(expression), gradient_scale(expression)
    distances = tuple(ahead for ahead in expression.indices("onehot") if ahead > 1)

    def loss_of(model: Transformer, tokens: Tensor, targets: Tensor, progress: float) -> Tensor:
        # masks, not indices: an index would wait for the device
        logits = {head: values.flatten(0, 1) for head, values in model.predict(tokens).items()}
        constrained = (targets == HALTED) & bool(weight)
        free = torch.where(constrained, UNSCORED, targets)
        asked = (free != UNSCORED).flatten()
        each = objective(logits, {1: free.flatten().clamp(min=0)} | _further(free, distances), progress)
        loss = scale * (torch.where(asked, each, 0.0).sum() / asked.sum().clamp(min=1))
        if share:
            only = torch.where(constrained, targets, UNSCORED).flatten()
            term = F.cross_entropy(logits[0], only, ignore_index=UNSCORED, reduction="sum")
            loss = loss + share * term / constrained.sum().clamp(min=1)
        return loss

    return loss_of


def _further(targets: Int[Tensor, "batch pos"], distances: Iterable[int]) -> dict[int, Int[Tensor, " tokens"]]:
    """Targets more than one token ahead: those of later positions, ``UNSCORED`` where the sequence has ended."""
    return {ahead: F.pad(targets, (0, ahead - 1), value=UNSCORED)[:, ahead - 1 :].flatten() for ahead in distances}


def _step(
    parameters: list[nn.Parameter], optimizers: list[torch.optim.Optimizer], loss: Tensor, lr: float, clip: float
) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = lr
    loss.backward()  # type: ignore[no-untyped-call]
    if clip > 0:
        nn.utils.clip_grad_norm_(parameters, clip)
    for optimizer in optimizers:
        optimizer.step()
