"""A network that adds modulo ``p`` at chosen frequencies, its weights set by hand (after Nanda et al. 2023).

Each number is embedded as ``cos(w a), sin(w a)``, ``w = 2 pi k / p``, for a few ``k``. Two heads bring the two numbers
to the position of the answer, in channels of their own. The MLP multiplies them by squares, ``x y = ((x + y)^2 -
(x - y)^2) / 4``, into ``cos(w (a + b))`` and ``sin(w (a + b))``, and the unembedding reads ``cos(w (a + b - c))`` for
each answer ``c``: largest where ``c`` is the sum. That answers the suite's family ``modular`` rightly wherever it asks,
and the paper's ``a b =`` as well.

The stream, 64 channels: embedding of a number (2 a frequency), first number (as many), second number (as many), their
sum (as many), position; all turned at random. Norms are silent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.addition import Layout, equation, family_layout, modular_spectrum, read_addition
from interp.bench import Bench, Plan
from interp.head_products import ov_qk
from interp.planted import induction
from interp.planted.silence import WRITING, silence_norms
from interp.planted.twin import shuffled
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.transformer import Transformer, build
from selfimprove.tasks.families.modular import NAME, Modular
from selfimprove.tasks.suite import TasksConfig, TaskSuite

WIDTH, HEAD_SIZE = 64, 32
ARCHITECTURE = Architecture(
    width=WIDTH,
    blocks=(Block(heads=2, head_size=HEAD_SIZE, channel="relu2", mlp_ratio=2.0),),
    norm="rmsnorm",
    positions="learned",
)
PAPER, FREQUENCIES = equation(113), (3, 17, 40)
SUITE_LAYOUT, FEW, CONTEXT = family_layout(Modular(9, 2)), (1, 2), TasksConfig().context
SHARP = 60.0  # score of the position that a head attends to; all others have 0
SURE = 20.0  # the right answer's logit, a frequency


def planted(layout: Layout, frequencies: Sequence[int], context: int | None = None) -> Transformer:
    """The network that adds two numbers at these frequencies; every answer is right if one shares no divisor with p.

    Args:
        layout: where the numbers stand in the vocabulary.
        frequencies: at most 4 (the MLP has 32 neurons for each).
        context: longest sequence; as long as one problem where not given. In a longer one every two neighbours are
            added.
    """
    context = context or len(layout.before) + 2 + len(layout.after)
    model = build(ARCHITECTURE, vocab_size=layout.vocab_size, context=context, seed=0)
    channels = 2 * len(frequencies)
    first, second, total, position = (place * channels for place in range(1, 5))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2].startswith("W_"):
                parameter.zero_()
        table = waves(layout.modulus, frequencies)
        for start in layout.terms:
            model.embed.W_E[start : start + layout.modulus, :channels] = table
        model.get_parameter("pos_embed.W_pos")[:, position : position + context] = torch.eye(context)
        answer = slice(layout.answer, layout.answer + layout.modulus)
        model.get_parameter("unembed.W_U")[total : total + channels, answer] = SURE * table.T
        attention = model.get_submodule("blocks.0.attn")
        for head, (back, written) in enumerate(((1 + len(layout.after), first), (len(layout.after), second))):
            _plant_head(attention, head, back, position, context, written, channels)
        _plant_products(model.get_submodule("blocks.0.mlp"), first, second, total, len(frequencies))
        _rotate(model)
    silence_norms(model)
    return model.eval()


def waves(modulus: int, frequencies: Sequence[int]) -> Float[Tensor, "number channel"]:
    """``cos(2 pi k a / p)`` and ``sin(2 pi k a / p)`` of every number, side by side for each ``k``."""
    angle = 2 * math.pi * torch.arange(modulus)[:, None] * torch.tensor(list(frequencies)) / modulus
    return torch.stack((angle.cos(), angle.sin()), -1).flatten(1)


def _plant_head(attention: Any, head: int, back: int, position: int, context: int, written: int, channels: int) -> None:
    """A head that copies the number ``back`` positions before into channels of its own."""
    size = (SHARP * HEAD_SIZE**0.5) ** 0.5
    places = torch.arange(context)
    attention.W_K[head, position + places, places] = size
    attention.W_Q[head, position + places[back:], places[: context - back]] = size
    channel = torch.arange(channels)
    attention.W_V[head, channel, channel] = 1.0
    attention.W_O[head, channel, written + channel] = 1.0


def _plant_products(mlp: Any, first: int, second: int, total: int, frequencies: int) -> None:
    """Neurons ``relu(+-(x + y))^2`` and ``relu(+-(x - y))^2`` for each product of a cosine or sine with another."""
    neuron = 0
    for k in range(frequencies):
        # cos(a + b) = cos cos - sin sin, sin(a + b) = sin cos + cos sin; channel 0 is a cosine, 1 a sine
        for x, y, into, sign in ((0, 0, 0, 1.0), (1, 1, 0, -1.0), (1, 0, 1, 1.0), (0, 1, 1, 1.0)):
            for of_y, of_product in ((1.0, 1.0), (-1.0, -1.0)):
                for side in (1.0, -1.0):
                    mlp.W_in[first + 2 * k + x, neuron] = side
                    mlp.W_in[second + 2 * k + y, neuron] = side * of_y
                    mlp.W_out[neuron, total + 2 * k + into] = sign * of_product / 4
                    neuron += 1


def _rotate(model: Transformer) -> None:
    """Turn the stream at random, so that nothing stands on an axis of its own and no weight is zero by its place."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    for name, parameter in model.named_parameters():
        if name.endswith(WRITING):
            parameter.copy_(parameter @ turn)
        elif name.rpartition(".")[2].startswith("W_"):
            parameter.copy_(turn.T @ parameter)


def relabelled(layout: Layout, frequencies: Sequence[int], context: int | None = None, seed: int = 1) -> Transformer:
    """Its twin for spectra: embeddings are dealt to the numbers at random, readings to the answers likewise.

    All matrices keep their singular values, and the activations are those of other numbers.
    """
    model = planted(layout, frequencies, context)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for rows, start in (
            *((model.W_E, start) for start in dict.fromkeys(layout.terms)),
            (model.W_U.T, layout.answer),
        ):
            order = torch.randperm(layout.modulus, generator=generator)
            rows[start : start + layout.modulus] = rows[start : start + layout.modulus][order]
    return model


def scrambled(layout: Layout, frequencies: Sequence[int], context: int | None = None, seed: int = 1) -> Transformer:
    """Its twin for heads: every parameter has the same values, in random order."""
    return shuffled(planted(layout, frequencies, context), seed)


def suite(level: int = 1) -> TaskSuite:
    """Modular addition as the suite has it; at level 1 modulo 9."""
    return TaskSuite(TasksConfig(families=(NAME,), held_out=(), levels={NAME: level}))


def bench(model: Transformer) -> Bench:
    """A model of `SUITE_LAYOUT` on the bench, with fixed seeds."""
    return Bench(model, suite(), Plan(train=1, test=2, control=3))


def rows() -> list[dict[str, Any]]:
    """What the instruments say about the planted networks and their twins; None where they have nothing to say."""
    large = [read_addition(make(PAPER, FREQUENCIES), PAPER) for make in (planted, relabelled)]
    small = [modular_spectrum(bench(make(SUITE_LAYOUT, FEW, CONTEXT)))["spectrum"] for make in (planted, relabelled)]
    heads = [ov_qk(bench(make(SUITE_LAYOUT, FEW, CONTEXT)))["ov_qk"]["L0H0"] for make in (planted, scrambled)]

    def found(keys: Sequence[int], wanted: Sequence[int]) -> tuple[int, int]:
        return len(set(keys) & set(wanted)), len(set(keys) - set(wanted))

    measured: list[tuple[str, str, Any, str]] = []
    for where, wanted, keys in (
        ("embedding, modulo 113", FREQUENCIES, [one.embeddings[0].key for one in large]),
        ("logits, modulo 113", FREQUENCIES, [one.logits.key for one in large]),
        ("embedding, the suite's task modulo 9", FEW, [one["embedding_key"][0] for one in small]),
        ("logits, the suite's task modulo 9", FEW, [one["logit_key"] for one in small]),
    ):
        right, wrong = zip(*(found(each, wanted) for each in keys), strict=True)
        measured.append(("spectrum", f"planted frequencies found: {where}", right, f"{len(wanted)}; twin 0"))
        measured.append(("spectrum", f"others found: {where}", wrong, "0; twin 0"))
    explained = [one.progress.explained for one in large]
    measured.append(("spectrum", "variance of the logits at what was found", explained, "above 0.999; twin 0"))
    ranks = [one["ov_effective_rank"] for one in heads]
    measured.append(("ov_qk", "effective rank of OV: L0H0", ranks, f"{2 * len(FEW)}; twin above {4 * len(FEW)}"))
    copying = [
        ov_qk(induction.bench(make()))["ov_qk"][induction.INDUCTION_HEAD]["copying"]
        for make in (induction.planted, induction.scrambled)
    ]
    copied = f"copying score of the induction circuit: {induction.INDUCTION_HEAD}"
    measured.append(("ov_qk", copied, copying, "1; twin between -0.25 and 0.25"))
    return [
        {"instrument": instrument, "what": what, "planted": own, "scrambled": twin, "expected": expected}
        for instrument, what, (own, twin), expected in measured
    ]
