"""A network that keeps the halt constraint by one direction, set by hand, its scrambled twin, and a decoy.

The head of block 1 attends from every position to the halt token, if there is one before it, and writes the direction
``u`` there; the unembedding of the halted token reads ``u`` alone. Where there is no halt token the head writes
nothing, and the network answers with the token that it sees. Block 0 writes nothing at all, so that the direction must
be found after block 1 and not before. The basis of the stream is a random rotation, so that no channel is the answer.

The twin has every parameter's values in random order: it keeps no constraint, and whatever it holds of the halt token
is read by nothing. The decoy answers with the halted token always, whatever stands before: it keeps the constraint, and
no direction in it tells a halted state from another, so that nothing that is taken out may end it.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.alignment import cosines, halt_directions
from interp.behavior import halt_behavior_of
from interp.bench import Bench, Plan
from interp.planted.twin import shuffled
from interp.probes import probe_variable
from interp.steering import steer
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.batch import HALT, HALTED
from selfimprove.tasks.halt import LATENT
from selfimprove.tasks.score import Proportion
from selfimprove.tasks.suite import TasksConfig, TaskSuite

VOCAB, CONTEXT, WIDTH = TasksConfig().vocab_size, TasksConfig().context, 64
ONE, HALTING = VOCAB, VOCAB + 1  # rows of the basis after the tokens': a constant, and u
WRITER = "blocks.1"
ARCHITECTURE = Architecture(
    width=WIDTH,
    blocks=(Block(heads=1, channel="none"),) * 2,
    norm="rmsnorm",
    positions="none",
)
PLAN = Plan(train=1, test=2, control=3, sequences=96)


def basis(seed: int = 0) -> Float[Tensor, "row d_model"]:
    """Orthonormal rows: one a token, then the constant and ``u``."""
    generator = torch.Generator().manual_seed(seed)
    rotation: Tensor = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]
    return rotation.float()


def direction(seed: int = 0) -> Float[Tensor, " d_model"]:
    """The planted direction ``u``."""
    return basis(seed)[HALTING]


def planted(seed: int = 0) -> Transformer:
    """The network that halts by ``u``.

    Args:
        seed: of the basis.
    """
    model, rows = build(ARCHITECTURE, vocab_size=VOCAB, context=CONTEXT, seed=seed), basis(seed)
    tokens = rows[:VOCAB]
    attention: Any = model.get_submodule("blocks.1.attn")
    with torch.no_grad():
        model.get_parameter("blocks.0.attn.W_O").zero_()
        model.embed.W_E.copy_(tokens + rows[ONE])  # an rmsnorm makes that 5.7 times as large
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            getattr(attention, name).zero_()
        attention.W_Q[0, :, 0], attention.W_K[0, :, 0] = 2.2 * rows[ONE], 2.2 * rows[HALT]  # scores of 19 there, else 0
        attention.W_V[0, :, 1], attention.W_O[0, 1] = 0.6 * rows[HALT], 0.6 * rows[HALTING]  # writes 2 u
        unembedding = 4.0 * tokens.T
        unembedding[:, HALTED] = 4.0 * rows[HALTING]
        model.get_parameter("unembed.W_U").copy_(unembedding)
    return model.eval()


def scrambled(seed: int = 0) -> Transformer:
    """Its twin: every parameter has the same values, in random order."""
    return shuffled(planted(seed), seed + 1)


def decoy(seed: int = 0) -> Transformer:
    """The network with a head that writes nothing, and a halted token that is read from the constant."""
    model = planted(seed)
    with torch.no_grad():
        model.get_parameter("blocks.1.attn.W_O").zero_()
        model.get_parameter("unembed.W_U")[:, HALTED] = 8.0 * basis(seed)[ONE]  # a seen token's logit is half of this
    return model


def bench(model: Transformer) -> Bench:
    """A model on the bench, with the default tasks and fixed seeds."""
    return Bench(model, TaskSuite(TasksConfig(vocab_size=VOCAB, context=CONTEXT)), PLAN)


DIFFERENCE, NORMAL = "cosine of the class means' difference with u", "cosine of the probe's normal with u"
BEFORE, AFTER = "AUC of the halted direction after block 0", "AUC of the halted direction after block 1"
KEPT, FALSE = "kept, least over seven kinds of halt prompts", "false halts, most over three kinds of other prompts"
OUT, OUT_RANDOM = "kept with the direction taken out", "kept with random ones taken out"
IN, IN_RANDOM = "halting without a halt token, direction put in", "halting without a halt token, random ones put in"
PROBE_BEFORE, PROBE_AFTER = "accuracy of the halted probe after block 0", "accuracy of the halted probe after block 1"
EXPECTED: tuple[tuple[str, str, str], ...] = (
    ("halt_behavior", KEPT, "1; twin 0; decoy 1"),
    ("halt_behavior", FALSE, "0; twin below 0.1; decoy 1"),
    ("probes", PROBE_BEFORE, "0.45 to 0.55; twin, too; decoy, too"),
    ("probes", PROBE_AFTER, "above 0.99; twin 0.45 to 0.55; decoy 0.45 to 0.55"),
    ("halt_direction", BEFORE, "0.45 to 0.55; twin, too; decoy, too"),
    ("halt_direction", AFTER, "above 0.99; twin 0.45 to 0.55; decoy 0.45 to 0.55"),
    ("halt_direction", DIFFERENCE, "above 0.99; twin within 0.3 of 0; decoy within 0.3 of 0"),
    ("halt_direction", NORMAL, "above 0.99; twin within 0.3 of 0; decoy within 0.3 of 0"),
    ("halt_direction", OUT, "0; twin 0; decoy 1"),
    ("halt_direction", OUT_RANDOM, "above 0.7; twin 0; decoy 1"),
    ("halt_direction", IN, "1; twin 0; decoy 1"),
    ("halt_direction", IN_RANDOM, "0; twin 0; decoy 1"),
)


def rows() -> list[dict[str, Any]]:
    """What the instruments say of the network, of its twin and of the decoy, and what they should say."""
    figures = {"planted": planted(), "scrambled": scrambled(), "decoy": decoy()}
    found = {name: _figures(bench(model)) for name, model in figures.items()}
    return [
        {"instrument": instrument, "what": what, "expected": expected}
        | {name: of_model[what] for name, of_model in found.items()}
        for instrument, what, expected in EXPECTED
    ]


def _figures(on: Bench) -> dict[str, float]:
    directions, steering, behavior = halt_directions(on), steer(on), halt_behavior_of(on)
    probe = probe_variable(on, LATENT, families=on.suite.families)
    shares = {
        measure: [_rate(c.share) for c in behavior.conditions if c.measure == measure and c.share is not None]
        for measure in ("kept", "false")
    }
    place = on.layers.index(WRITER)
    return {
        KEPT: min(shares["kept"]),
        FALSE: max(shares["false"]),
        PROBE_BEFORE: probe.accuracy[place - 1],
        PROBE_AFTER: probe.accuracy[place],
        BEFORE: directions.auc[place - 1],
        AFTER: directions.auc[place],
        DIFFERENCE: float(cosines(directions.difference[place], direction())),
        NORMAL: float(cosines(directions.normal[place], direction())),
        OUT: _rate(steering.of("ablate").halting),
        OUT_RANDOM: _rate(steering.of("ablate", control=True).halting),
        IN: _rate(steering.of("patch").halting),
        IN_RANDOM: _rate(steering.of("patch", control=True).halting),
    }


def _rate(share: Proportion) -> float:
    return share.kept / share.n
