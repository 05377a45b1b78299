"""The controller model: sampling from it, training it. Needs torch; runs in the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from selfimprove.controller.grammar import GOAL, Grammar
from selfimprove.controller.lessons import Lesson
from selfimprove.errors import InvalidCheckpoint
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer, build
from selfimprove.seeds import derive
from selfimprove.tasks.batch import UNSCORED
from selfimprove.training.engine import Snapshot, train

Weights = dict[str, Tensor]
TIED_GAIN = 0.1


@dataclass(frozen=True)
class Sample:
    """One action drawn from the policy: token ids up to ``<eos>``, log-probability, mean entropy per choice (nats)."""

    parent: int
    ids: tuple[int, ...]
    log_prob: float
    entropy: float


@dataclass(frozen=True)
class Learned:
    """Outcome of an update: new weights, loss near the end, mean next-token entropy (nats)."""

    weights: Weights
    loss: float
    entropy: float
    diverged: bool


def initial_weights(genome: Genome, grammar: Grammar, seed: int) -> Weights:
    """Weights of a controller that has seen nothing: its logits are zero, so that the grammar alone decides.

    With tied embeddings, which cannot be zero, they are made small: logits stay within a few tenths.
    """
    size = {"vocab_size": len(grammar), "context": grammar.context}
    model = build(genome.architecture, **size, seed=seed, heads=genome.heads, gain=genome.recipe.init_scale)
    weights = model.state_dict()
    if "unembed.W_U" in weights:
        weights["unembed.W_U"].zero_()
    else:
        weights["embed.W_E"].mul_(TIED_GAIN)
    return weights


def load_policy(genome: Genome, grammar: Grammar, weights: Weights) -> Transformer:
    """The controller with these weights, in evaluation mode.

    Raises:
        InvalidCheckpoint: names, shapes or types differ from what the genome says.
    """
    size = {"vocab_size": len(grammar), "context": grammar.context}
    model = build(genome.architecture, **size, seed=0, heads=genome.heads)
    expected = {name: (tuple(value.shape), value.dtype) for name, value in model.state_dict().items()}
    found = {name: (tuple(value.shape), value.dtype) for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise InvalidCheckpoint("load the controller", wrong, "the names, shapes and types of its genome")
    model.load_state_dict(weights)
    return model.eval()


@torch.inference_mode()
def sample(
    model: Transformer,
    grammar: Grammar,
    parents: Sequence[Genome],
    *,
    rows: int,
    temperature: float,
    epsilon: float,
    seed: int,
) -> list[Sample]:
    """Draw ``rows`` actions that the grammar allows, row i for parent i modulo their number, asking for ``GOAL``.

    Args:
        model: the policy.
        temperature: divides the logits.
        epsilon: share of the uniform distribution over the allowed tokens in each choice.
        seed: of the draws.

    Returns:
        Samples in row order. A row is missing if it led into a genome without further edits.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = [index % len(parents) for index in range(rows)]
    walks = [grammar.walk(parents[start]) for start in starts]
    sequences = [grammar.prefix(parents[start], GOAL) for start in starts]
    first = len(sequences[0]) if sequences else 0
    log_probs, entropies = [0.0] * rows, [0.0] * rows
    while active := [row for row in range(rows) if walks[row].allowed]:
        logits = model(torch.tensor([sequences[row] for row in active]))[:, -1]
        chances = choice_probabilities(logits / temperature, [walks[row].allowed for row in active], epsilon)
        drawn = torch.multinomial(chances, 1, generator=generator)
        picked = chances.gather(1, drawn).log().squeeze(1).tolist()
        spread = torch.special.entr(chances).sum(-1).tolist()
        for position, (row, token) in enumerate(zip(active, drawn.squeeze(1).tolist(), strict=True)):
            walks[row].step(token)
            sequences[row].append(token)
            log_probs[row] += picked[position]
            entropies[row] += spread[position]
    return [
        Sample(starts[row], tuple(action), min(log_probs[row], 0.0), entropies[row] / len(action))
        for row in range(rows)
        if walks[row].finished and (action := sequences[row][first:])
    ]


@torch.inference_mode()
def rate(
    model: Transformer,
    grammar: Grammar,
    actions: Sequence[tuple[Genome, Sequence[int]]],
    *,
    temperature: float,
    epsilon: float,
) -> list[float]:
    """Natural log of the probability with which `sample` draws each action for its parent.

    Args:
        model: the policy.
        actions: parent, and token ids up to ``<eos>``.
        temperature: divides the logits.
        epsilon: share of the uniform distribution over the allowed tokens in each choice.

    Raises:
        InvalidEdit: ids that spell no proposal.
    """
    rated = []
    for parent, ids in actions:
        prefix = grammar.prefix(parent, GOAL)
        logits = model(torch.tensor([[*prefix, *ids[:-1]]]))[0, len(prefix) - 1 :]
        chances = choice_probabilities(logits / temperature, grammar.choices(ids, parent), epsilon)
        rated.append(min(0.0, float(chances.gather(1, torch.tensor(ids).unsqueeze(1)).log().sum())))
    return rated


def choice_probabilities(
    logits: Float[Tensor, "row vocab"], allowed: Sequence[tuple[int, ...]], epsilon: float
) -> Float[Tensor, "row vocab"]:
    """Softmax over the allowed tokens of each row, mixed with ``epsilon`` of the uniform distribution over them."""
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    for row, tokens in enumerate(allowed):
        mask[row, list(tokens)] = True
    learned = logits.double().masked_fill(~mask, -torch.inf).softmax(-1)
    uniform = mask / mask.sum(-1, keepdim=True)
    return (1 - epsilon) * learned + epsilon * uniform


def learn(
    genome: Genome,
    grammar: Grammar,
    shown: Sequence[Lesson],
    weights: Weights,
    *,
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> Learned:
    """Train the controller by its own objective and recipe on lessons drawn by weight.

    Args:
        genome: the controller's own.
        shown: lessons; only their actions are scored.
        weights: to start from.
        seed: of the draws and of the training.
        on_step: called now and then with the steps taken and the loss.
    """
    tokens, targets = _sequences(grammar, shown)
    frequencies = torch.tensor([lesson.weight for lesson in shown], dtype=torch.float64)
    generator = torch.Generator().manual_seed(derive(seed, "lessons"))

    def next_batch(step: int) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
        drawn = torch.multinomial(frequencies, genome.recipe.batch, replacement=True, generator=generator)
        return tokens[drawn], targets[drawn]

    result = train(
        genome,
        next_batch,
        vocab_size=len(grammar),
        context=grammar.context,
        steps=steps,
        seed=derive(seed, "engine"),
        start=Snapshot(0, weights, {}),
        on_step=on_step,
    )
    if result.diverged:
        return Learned(weights, 0.0, 0.0, diverged=True)
    tail = result.losses[-max(1, len(result.losses) // 4) :]
    with torch.inference_mode():
        inputs, scored = next_batch(steps)
        logits = load_policy(genome, grammar, result.end.state)(inputs)[scored != UNSCORED]
        entropy = float(torch.special.entr(logits.softmax(-1)).sum(-1).mean())
    return Learned(result.end.state, sum(tail) / len(tail), entropy, diverged=False)


def _sequences(
    grammar: Grammar, shown: Sequence[Lesson]
) -> tuple[Int[Tensor, "lesson pos"], Int[Tensor, "lesson pos"]]:
    """Inputs and next-token targets, padded to the longest lesson; targets outside the actions are ``UNSCORED``."""
    length = max(len(lesson.ids) for lesson in shown) - 1
    tokens = torch.full((len(shown), length), grammar.pad)
    targets = torch.full((len(shown), length), UNSCORED)
    for row, lesson in enumerate(shown):
        ids = torch.tensor(lesson.ids)
        tokens[row, : len(ids) - 1] = ids[:-1]
        targets[row, lesson.scored_from - 1 : len(ids) - 1] = ids[lesson.scored_from :]
    return tokens, targets
