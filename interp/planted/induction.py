"""A two-layer induction circuit set by hand (Elhage et al. 2021; Olsson et al. 2022, arXiv 2209.11895).

Block 0 has a previous-token head: by learned positions it attends one position back, and copies that token's identity
into channels of its own. Block 1 has an induction head: it attends to the position whose *previous* token is the
current one, the latest of several, and copies the token there into the channels that the unembedding reads. That
answers the task ``induction`` rightly wherever it asks. All other heads and both MLPs keep small random weights: they
are there to be passed over.

The stream, 192 channels: token (48), previous token (48), answer (48), position (24), a ramp over positions and its
complement, and a constant; so that its norm is the same at every position.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp import ablation, attribution, circuits, patching
from interp.attention_keys import ANSWER as ANSWER_KIND
from interp.attention_keys import INDUCTION as INDUCTION_KIND
from interp.attention_keys import PREVIOUS as PREVIOUS_KIND
from interp.bench import Bench, Plan
from interp.planted.twin import shuffled
from interp.verdict import NotApplicable
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.suite import TasksConfig, TaskSuite

VOCAB, CONTEXT, WIDTH = 48, 24, 192
PREVIOUS_HEAD, INDUCTION_HEAD = "L0H1", "L1H2"
TOKEN, PREVIOUS, ANSWER, POSITION = 0, VOCAB, 2 * VOCAB, 3 * VOCAB  # first channel of each part of the stream
RAMP, REST, ONE = (3 * VOCAB + CONTEXT + place for place in range(3))
NOISE = 0.5  # initial scale of what is not planted, over the usual one
ARCHITECTURE = Architecture(
    width=WIDTH,
    blocks=(Block(heads=4, head_size=64, mlp_ratio=1.0),) * 2,
    norm="rmsnorm",
    positions="learned",
)
FAMILY = "induction"
PLAN = Plan(train=1, test=2, control=3, sequences=96)


def planted(seed: int = 0) -> Transformer:
    """The model with the circuit in it.

    Args:
        seed: of the weights that are not planted.
    """
    model = build(ARCHITECTURE, vocab_size=VOCAB, context=CONTEXT, seed=seed, gain=NOISE)
    with torch.no_grad():
        _plant_embeddings(model)
        _plant_previous_token_head(model.get_submodule("blocks.0.attn"), head=1)
        _plant_induction_head(model.get_submodule("blocks.1.attn"), head=2)
    return model.eval()


def scrambled(seed: int = 0) -> Transformer:
    """Its twin: every parameter has the same values, in random order."""
    return shuffled(planted(seed), seed + 1)


def suite() -> TaskSuite:
    """The task that the circuit solves."""
    return TaskSuite(TasksConfig(vocab_size=VOCAB, context=CONTEXT, families=(FAMILY,), held_out=()))


def bench(model: Transformer) -> Bench:
    """A model on the bench, with the planted suite and fixed seeds."""
    return Bench(model, suite(), PLAN)


def _identity(first: int, count: int, size: float, columns: int) -> Float[Tensor, "{WIDTH} {columns}"]:
    """Channels ``first`` to ``first + count`` onto the first ``count`` columns, times ``size``."""
    matrix = torch.zeros(WIDTH, columns)
    matrix[first : first + count, :count] = size * torch.eye(count)
    return matrix


def _plant_embeddings(model: Transformer) -> None:
    ramp = torch.linspace(0, 1, CONTEXT)
    model.embed.W_E.copy_(_identity(TOKEN, VOCAB, 1.0, VOCAB).T)
    positions = _identity(POSITION, CONTEXT, 1.0, CONTEXT).T
    positions[:, RAMP], positions[:, REST], positions[:, ONE] = ramp, (1 - ramp**2).sqrt(), 1.0
    model.get_parameter("pos_embed.W_pos").copy_(positions)
    read = model.get_parameter("unembed.W_U")
    read[ANSWER : ANSWER + VOCAB] = 2.0 * torch.eye(VOCAB)  # logits differ by 11 between the answer and the rest


def _plant_previous_token_head(attention: Any, head: int) -> None:
    """Scores are 20 at the position before and 0 elsewhere."""
    keys = _identity(POSITION, CONTEXT, 1.8, 64)
    attention.W_K[head] = keys
    attention.W_Q[head] = keys.roll(-1, 1)  # position t asks for t - 1
    attention.W_Q[head][POSITION] = 0.0  # and the first one for nothing
    attention.W_V[head] = _identity(TOKEN, VOCAB, 0.38, 64)
    attention.W_O[head] = _identity(PREVIOUS, VOCAB, 0.38, 64).T  # writes 1 into the previous token's channel


def _plant_induction_head(attention: Any, head: int) -> None:
    """Scores rise by 25 where the previous token is the current one, and by 1 a position."""
    attention.W_Q[head] = _identity(TOKEN, VOCAB, 2.3, 64)
    attention.W_K[head] = _identity(PREVIOUS, VOCAB, 2.3, 64)
    attention.W_Q[head, ONE, VOCAB] = attention.W_K[head, RAMP, VOCAB] = 2.25
    attention.W_V[head] = _identity(TOKEN, VOCAB, 0.4, 64)
    attention.W_O[head] = _identity(ANSWER, VOCAB, 0.4, 64).T


SCORE, LOST, LEFT, BACK, WRITTEN = (
    "{} score",
    "accuracy lost by mean ablation",
    "answer left when it is corrupted",
    "answer brought back by it alone",
    "logits over the mean that it writes",
)
EXPECTED: tuple[tuple[str, str, str, str], ...] = (
    *(
        ("attention_heads", SCORE.format(kind), head, "above 0.95; twin below 0.25")
        for kind, head in (
            (PREVIOUS_KIND, PREVIOUS_HEAD),
            (INDUCTION_KIND, INDUCTION_HEAD),
            (f"{ANSWER_KIND}/{FAMILY}", INDUCTION_HEAD),
        )
    ),
    ("ablation", LOST, PREVIOUS_HEAD, "above 0.9; twin below 0.05"),
    ("ablation", LOST, INDUCTION_HEAD, "above 0.9; twin below 0.05"),
    ("patching", LEFT, PREVIOUS_HEAD, "below 0.1; twin not applicable"),
    ("patching", LEFT, INDUCTION_HEAD, "below 0.1; twin not applicable"),
    ("patching", BACK, INDUCTION_HEAD, "above 0.95; twin not applicable"),
    ("attribution", WRITTEN, INDUCTION_HEAD, "above 9; twin below 0.5"),
)


def rows() -> list[dict[str, Any]]:
    """What the instruments say about each planted head, and about the strongest part of the scrambled twin.

    The twin's figure is None where the instrument does not apply: patching, since there is no answer to carry.
    """
    own, twin = _figures(bench(planted())), _figures(bench(scrambled()))
    table = []
    for instrument, quantity, head, expected in EXPECTED:
        others = twin[quantity]
        strongest = (min if quantity == LEFT else max)(others.values()) if others else None
        figures = {"planted": own[quantity][head], "scrambled": strongest}
        table.append({"instrument": instrument, "what": f"{quantity}: {head}", **figures, "expected": expected})
    return table


def _figures(on: Bench) -> dict[str, dict[str, float]]:
    """Each quantity by part; empty where the instrument does not apply."""
    scores = circuits.bench_scores(on)
    lost, writes = ablation.ablate_family(on, FAMILY), attribution.attribute_family(on, FAMILY)
    found: dict[str, dict[str, float]] = {SCORE.format(kind): scores.of(kind) for kind in scores.patterns}
    found[LOST] = dict(zip(lost.labels, lost.accuracy_drop["mean"], strict=True))
    found[WRITTEN] = dict(zip(writes.labels, writes.margin, strict=True))
    found[LEFT], found[BACK] = {}, {}
    try:
        carried = patching.patch_family(on, FAMILY)
    except NotApplicable:
        return found
    found[LEFT] = dict(zip(carried.labels, carried.noise, strict=True))
    found[BACK] = dict(zip(carried.labels, carried.denoise, strict=True))
    return found
