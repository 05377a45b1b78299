"""What one block costs: its parameters, matrix products, other work and memory. Imports no torch.

Part of ``selfimprove.nets.cost``, which says what is counted and how.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from selfimprove.errors import InvalidGenome
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.nets.prices import (
    ACTIVATION,
    CHANNEL_MATRICES,
    CONV_TAPS,
    EXPERTS,
    FEATURE,
    GATE,
    JOIN,
    KEPT,
    NORM,
    NORMS,
    POSITIONS,
    READ_AGAIN,
    RESIDUAL,
    RESIDUAL_SCALE,
    ROUTE,
    SCORE,
    SHARED,
    SHORT_CONV,
    TOKEN_SHIFT,
    VALUE_RESIDUAL,
    causal_conv,
)

_T = TypeVar("_T")
Shapes = dict[str, tuple[int, ...]]


def priced(table: Mapping[str, _T], name: str, path: str) -> _T:
    """The entry of a name.

    Raises:
        InvalidGenome: it has none.
    """
    if name not in table:
        raise InvalidGenome(f"price {path}", name, ", ".join(table), "an operation without a price is not trained")
    return table[name]


def norm_shapes(name: str, kind: str, width: int) -> Shapes:
    """Parameters of one norm."""
    parts = ("w", "b") if kind == "layernorm" else ("w",)
    return {f"{name}.{part}": (width,) for part in parts}


def block_prices(architecture: Architecture, context: int) -> list[BlockPrice]:
    """One for each block.

    Raises:
        InvalidGenome: a part without a price.
    """
    for name, table in (("norm", NORM), ("norm_placement", NORMS), ("positions", POSITIONS)):
        priced(table, getattr(architecture, name), f"architecture.{name}")
    priced(RESIDUAL_SCALE, architecture.residual_scale, "architecture.residual_scale")
    for index, block in enumerate(architecture.blocks):
        path = f"architecture.blocks.{index}"
        priced(SCORE | SHORT_CONV, block.mixer, f"{path}.mixer")
        priced(CHANNEL_MATRICES, block.channel, f"{path}.channel")
        priced(GATE, block.gate, f"{path}.gate")
    return [BlockPrice(architecture, index, context) for index in range(len(architecture.blocks))]


def check_windows(architecture: Architecture, context: int) -> None:
    """Raise InvalidGenome for a window that is longer than the longest sequence: no position could ever fill it.

    One of just that length is let pass, though it hides nothing either: it trains, as ``attention`` does.
    """
    for index, block in enumerate(architecture.blocks):
        if block.mixer == "sliding_attention" and block.window > context:
            path = f"architecture.blocks.{index}.window"
            raise InvalidGenome(path, block.window, f"at most {context}, the context", "use attention")


@dataclass(frozen=True)
class BlockPrice:
    """Costs of block ``index``. Everything but shapes is for one position of a sequence of ``context``."""

    architecture: Architecture
    index: int
    context: int

    @cached_property
    def block(self) -> Block:
        return self.architecture.blocks[self.index]

    @property
    def inner(self) -> int:
        """Hidden width of the MLP."""
        return round(self.block.mlp_ratio * self.architecture.width) * (self.block.channel != "none")

    @property
    def queries(self) -> int:
        """Channels of all heads of queries together."""
        return self.block.heads * self.block.d_head(self.architecture.width) * self.block.attends

    @property
    def keys(self) -> int:
        """Channels of all heads of keys together, which values have, too."""
        return self.block.key_heads * self.block.d_head(self.architecture.width) * self.block.attends

    @cached_property
    def norms(self) -> tuple[str, ...]:
        """Names of the norms in the stream."""
        block, placement = self.block, self.architecture.norm_placement
        parts = [name for name, kind in (("ln1", block.mixer), ("ln2", block.channel)) if kind != "none"]
        if placement == "post" and block.parallel and len(parts) == 2:
            return ("ln2",)  # one addition, one norm after it
        return tuple(f"{part}{end}" for part in parts for end in ("", "_post")[: NORMS[placement]])

    @property
    def _joins(self) -> tuple[str, ...]:
        embedding = self.architecture.embedding_residual and self.index > 0
        skip = self.architecture.mirror(self.index) is not None
        return ("embed_mix",) * embedding + ("skip_mix",) * skip

    @property
    def _mixers(self) -> tuple[str, ...]:
        """Which of the two mixers it has."""
        return ("attn",) * (self.block.mixer != "none") + ("mlp",) * (self.block.channel != "none")

    @property
    def _shifts(self) -> bool:
        return self.block.token_shift and self.block.mixer != "none"

    def shapes(self) -> Shapes:
        """Name and shape of every parameter, in the order of the built block."""
        architecture, block, width = self.architecture, self.block, self.architecture.width
        shapes: Shapes = dict.fromkeys(self._joins, (1,))
        if architecture.residual_scale == "learned":
            shapes |= {f"{mixer}_scale": (width,) for mixer in self._mixers}
        for name in self.norms:
            shapes |= norm_shapes(name, architecture.norm, width)
        if self._shifts:
            shapes["shift.mix"] = (width,)
        if block.attends:
            shapes |= {f"attn.{name}": shape for name, shape in self._attention_shapes().items()}
        elif block.mixer != "none":
            shapes |= {
                "mixer.W_in": (width, 3 * width),
                "mixer.conv": (CONV_TAPS, width),
                "mixer.W_out": (width, width),
            }
        if block.channel == "moe":
            shapes["mlp.W_router"] = (width, EXPERTS)
        if self.inner:
            shapes["mlp.W_in"] = (width, self.inner)
            if CHANNEL_MATRICES[block.channel] == 3:
                shapes["mlp.W_gate"] = (width, self.inner)
            shapes["mlp.W_out"] = (self.inner, width)
        return shapes

    def _attention_shapes(self) -> Shapes:
        block, width = self.block, self.architecture.width
        heads, shared, d_head = block.heads, block.key_heads, block.d_head(width)
        shapes: Shapes = {
            f"W_{letter}": (n, width, d_head) for letter, n in (("Q", heads), ("K", shared), ("V", shared))
        }
        shapes["W_O"] = (heads, d_head, width)
        if block.conv_qkv:
            shapes |= {f"conv_{letter}": (CONV_TAPS, shapes[f"W_{letter}"][0], d_head) for letter in "QKV"}
        if block.gate != "none":
            shapes["W_G"] = (width, heads) if block.gate == "head" else (heads, width, d_head)
        if self.architecture.blends_values(self.index):
            shapes["value_mix"] = (1,)
        if block.qk_norm:
            shapes |= {"q_norm.w": (d_head,), "k_norm.w": (d_head,)}
        return shapes

    @property
    def _gates(self) -> int:
        """Numbers that the attention gate has."""
        block = self.block
        return {"none": 0, "head": block.heads, "channel": self.queries}[block.gate] if block.attends else 0

    def products(self) -> int:
        """Multiply-adds of all matrix products, forward."""
        block, width = self.block, self.architecture.width
        total = CHANNEL_MATRICES[block.channel] * width * self.inner + width * EXPERTS * (block.channel == "moe")
        if block.mixer == "short_conv":
            total += 4 * width * width
        projections = 2 * self.queries + 2 * self.keys + self._gates
        return total + width * projections + 2 * self.context * self.queries  # scores, and the average of the values

    def elementwise(self) -> int:
        """All other operations, forward and backward."""
        block, width = self.block, self.architecture.width
        total = width * (len(self.norms) * NORM[self.architecture.norm] + len(self._joins) * JOIN)
        total += width * len(self._mixers) * (RESIDUAL + RESIDUAL_SCALE[self.architecture.residual_scale])
        total += width * TOKEN_SHIFT * self._shifts
        total += self._attention() if block.attends else width * SHORT_CONV[block.mixer]
        total += causal_conv(width, self.context) * (block.mixer == "short_conv")
        total += self.inner * ACTIVATION[block.channel]
        if block.channel == "moe":
            total += EXPERTS * ROUTE
        return total + width * READ_AGAIN * (block.channel == "moe" or CHANNEL_MATRICES[block.channel] == 3)

    def _attention(self) -> int:
        block, positions = self.block, self.architecture.positions
        mixed = NORM["rmsnorm"] * block.qk_norm + POSITIONS["rope"] * (positions == "rope")
        total = (self.queries + self.keys) * mixed + 2 * self.queries * FEATURE[block.mixer]
        total += block.heads * self.context * SCORE[block.mixer]
        total += causal_conv(self.queries + 2 * self.keys, self.context) * block.conv_qkv
        total += 2 * self.queries * SHARED * (block.key_heads != block.heads)
        total += self.keys * VALUE_RESIDUAL * self.architecture.blends_values(self.index)
        number, channel = GATE[block.gate]
        return total + self._gates * number + self.queries * channel + self.architecture.width * (self._gates > 0)

    def saved(self) -> int:
        """Floats that are kept for the backward pass: inputs of products, arguments of nonlinearities, once each."""
        block, width = self.block, self.architecture.width
        total = width * (2 * len(self.norms) + 2 * len(self._joins) + 2 * self._shifts)
        total += width * len(self._mixers) * (self.architecture.residual_scale == "learned")
        total += self.inner * KEPT[block.channel]
        if block.mixer == "short_conv":
            total += 6 * width
        if not block.attends:
            return total
        rotated = self.architecture.positions == "rope"
        total += (self.queries + self.keys) * (1 + rotated + block.qk_norm) + 2 * self.queries + self.keys
        total += (self.queries + 2 * self.keys) * block.conv_qkv
        total += (
            2 * self.queries * (block.key_heads != block.heads) + 2 * self._gates + self.queries * (self._gates > 0)
        )
        total += self.keys * self.architecture.blends_values(self.index) + self.scores
        if block.mixer == "linear_attention":
            total += 2 * self.queries + 2 * block.heads * self.context
        return total

    @property
    def scores(self) -> int:
        """Scores of all heads, where softmax attention has a mask of its own (a window, ALiBi) and writes them out.

        Without one, torch's fused kernel goes through them in tiles and keeps none.
        """
        block, alibi = self.block, self.architecture.positions == "alibi"
        masked = block.mixer == "sliding_attention" or (block.mixer == "attention" and alibi)
        return block.heads * self.context * masked

    def laid_out(self) -> int:
        """Floats of weights that are laid side by side for one product, once a step."""
        width = self.architecture.width
        return width * (self.queries + 2 * self.keys + self._gates * (self.block.gate == "channel"))
