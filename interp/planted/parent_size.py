"""A network that knows how large its parent is, its weights set by hand, and a twin that knows something else as well.

It reads descriptions as a controller does: one token a slot. Every token stands for an amount; the tokens of the last
slot stand for none. The one head looks at all positions evenly and writes the mean amount along the direction ``u``. So
the size of a parent, the sum of its amounts, must be found at the last position after block 0 and not before.

The twin has the same weights, its amounts dealt to other tokens: it holds as much, about another quantity, and a probe
for the size must find nothing. The basis of the stream is a random rotation, so that no channel is the answer.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.controller_probes import SurveyProbes, probe_survey
from interp.hooked import to_hooked
from interp.planted.halt import basis
from selfimprove.controller.survey import REMAINING_BUDGET, Survey
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build

SLOTS, WIDTH = 14, 64
VOCAB = 40  # of those, what stands in the last slot comes first
LAST = 8
ONE, AMOUNT, SIZE = (VOCAB + place for place in range(3))  # rows of the basis after the tokens'
ARCHITECTURE = Architecture(
    width=WIDTH,
    blocks=(Block(heads=1, channel="none"),),
    norm="rmsnorm",
    positions="none",
)
PARENTS = 768


def amounts(seed: int = 0) -> Float[Tensor, " vocab"]:
    """What each token stands for, from -1 to 1; 0 for those of the last slot."""
    drawn = 2 * torch.rand(VOCAB, generator=torch.Generator().manual_seed(seed)) - 1
    return torch.cat((torch.zeros(LAST), drawn[LAST:]))


def planted(seed: int = 0, *, twin: bool = False) -> Transformer:
    """The network that knows the size; with ``twin`` the one that holds another quantity.

    Args:
        seed: of the basis.
        twin: deal the amounts to other tokens.
    """
    model, rows = build(ARCHITECTURE, vocab_size=VOCAB, context=SLOTS, seed=seed), basis(seed)
    values = amounts()
    if twin:
        dealt = torch.randperm(VOCAB - LAST, generator=torch.Generator().manual_seed(1))
        values = torch.cat((values[:LAST], values[LAST:][dealt]))
    rest = (2 - values**2).sqrt()  # so that all tokens are of one length, and the norm divides all alike
    attention: Any = model.get_submodule("blocks.0.attn")
    with torch.no_grad():
        embedded = rows[:VOCAB] + rest[:, None] * rows[ONE] + values[:, None] * rows[AMOUNT]
        model.get_parameter("embed.W_E").copy_(embedded)
        attention.W_Q.zero_()  # every position is worth as much as any other
        attention.W_V.zero_()
        attention.W_O.zero_()
        attention.W_V[0, :, 0] = rows[AMOUNT]
        attention.W_O[0, 0] = 4 * rows[SIZE]
    return model.eval()


def parents(count: int = PARENTS, seed: int = 0) -> Survey:
    """Random descriptions, with the size of each and a remaining budget that belongs to none."""
    rng, values = random.Random(seed), amounts().tolist()
    slots = (range(LAST, VOCAB),) * (SLOTS - 1) + (range(LAST),)
    prefixes = tuple(tuple(rng.choice(slot) for slot in slots) for _ in range(count))
    sizes = tuple(sum(values[token] for token in prefix) for prefix in prefixes)
    return Survey(prefixes, {"size": sizes, REMAINING_BUDGET: tuple(rng.random() for _ in prefixes)})


def probes(*, twin: bool = False) -> SurveyProbes:
    """What the probes say of the network or of its twin."""
    return probe_survey(to_hooked(planted(twin=twin)), parents(), seed=0)


EXPECTED = (
    ("size", "embed", "below 0.6; twin below 0.6"),
    ("size", "blocks.0", "above 0.9; twin below 0.6"),
    (REMAINING_BUDGET, "blocks.0", "below 0.6; twin below 0.6"),
)


def rows() -> list[dict[str, Any]]:
    """What the probes say about the planted network and about its twin: share of unseen parents told rightly."""
    own, twin = ({p.variable: p for p in probes(twin=is_twin).stream} for is_twin in (False, True))
    table = []
    for quantity, layer, expected in EXPECTED:
        at = own[quantity].layers.index(layer)
        found = {"planted": own[quantity].accuracy[at], "scrambled": twin[quantity].accuracy[at]}
        what = f"accuracy for {quantity}: {layer}"
        table.append({"instrument": "controller_probes", "what": what, **found, "expected": expected})
    return table
