"""The architecture of a genome: what each attribute means, which have an effect, and which do not go together.

A plain ``Architecture(blocks=(Block(), Block()))`` is the standard GPT that every search starts from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from selfimprove.errors import InvalidGenome
from selfimprove.genome.fields import FIELDS

ATTENTION_MIXERS = ("attention", "sliding_attention", "linear_attention")
"""Token mixers that have queries, keys and values, and see positions through them."""
MIN_HEAD_SIZE = 8
OF_ATTENTION = (
    "heads",
    "kv_heads",
    "head_size",
    "window",
    "qk_norm",
    "gate",
    "conv_qkv",
    "value_residual",
)
"""Attributes of a block that only attention reads."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One residual block: a token mixer, then a channel mixer. Blocks of one model may differ."""

    mixer: str = "attention"
    """``attention`` (softmax over all earlier positions), ``sliding_attention`` (over the last ``window``),
    ``linear_attention`` (a product of positive features, arXiv 2006.16236), ``short_conv`` (gated), ``none``."""
    heads: int = 4
    """Query heads."""
    kv_heads: int = 0
    """Heads of keys and values, each shared by as many queries (arXiv 2305.13245); 0: as many as ``heads``."""
    head_size: int = 0
    """Channels of one head; 0: the width of the model over ``heads``."""
    window: int = 8
    """Positions that sliding attention sees, its own included."""
    qk_norm: bool = False
    """Normalize queries and keys (arXiv 2302.05442)."""
    gate: str = "none"
    """Sigmoid of a projection of the input, times what a head has gathered: ``none``, ``head`` (one number a head) or
    ``channel`` (one a channel); arXiv 2505.06708."""
    conv_qkv: bool = False
    """Depthwise causal convolution on queries, keys and values."""
    token_shift: bool = False
    """Each channel of the token mixer's input blends its position with the one before (arXiv 2305.13048)."""
    value_residual: bool = False
    """Values are blended with those of the first block that attends (arXiv 2410.17897)."""
    channel: str = "gelu"
    """Activation of the MLP: ``relu``, ``relu2``, ``gelu``, ``silu``, the gated ``swiglu`` and ``geglu``; ``moe``: GELU
    experts, softly routed; ``none``."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP, of all its experts together, over the width of the model."""
    parallel: bool = False
    """Both mixers read the same stream, instead of the second one what the first one wrote."""

    @property
    def attends(self) -> bool:
        """Whether the token mixer is a form of attention."""
        return self.mixer in ATTENTION_MIXERS

    @property
    def key_heads(self) -> int:
        """Heads of keys and values, resolved."""
        return self.kv_heads or self.heads

    def d_head(self, width: int) -> int:
        """Channels of one head, resolved."""
        return self.head_size or width // self.heads


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What ``selfimprove.nets.transformer.build`` builds."""

    width: int = 64
    """Width of the residual stream."""
    blocks: tuple[Block, ...]
    """The blocks, first to last."""
    norm: str = "layernorm"
    """``layernorm`` or ``rmsnorm``, around the mixers and before the unembedding."""
    norm_placement: str = "pre"
    """``pre``: of a mixer's input; ``post``: of the stream after each addition (arXiv 1706.03762); ``sandwich``: of a
    mixer's input and of its output (arXiv 2105.13290)."""
    positions: str = "rope"
    """``rope`` (arXiv 2104.09864), ``learned``, ``alibi`` (arXiv 2108.12409) or ``none``."""
    residual_scale: str = "one"
    """What a mixer's output is multiplied by before it is added: ``one``; ``depth``: 1 / sqrt(2 blocks); ``learned``:
    a gain by channel (arXiv 2103.17239)."""
    embedding_residual: bool = False
    """Every block but the first adds a learned multiple of the embedding to its input."""
    unet_skips: bool = False
    """Every block of the second half adds a learned multiple of the input of its mirror image in the first half."""
    logit_softcap: float = 0.0
    """Logits are kept within this bound by a hyperbolic tangent (arXiv 2408.00118); 0 switches it off."""
    tie_embeddings: bool = False
    """Use the embedding as the unembedding."""
    zero_init: bool = False
    """Start the output projections of both mixers at zero."""

    @property
    def first_attending(self) -> int | None:
        """Index of the first block with attention, whose values a value residual carries on."""
        return next((index for index, block in enumerate(self.blocks) if block.attends), None)

    def blends_values(self, index: int) -> bool:
        """Whether a block blends its values with those of an earlier one."""
        block = self.blocks[index]
        return block.attends and block.value_residual and index != self.first_attending

    def mirror(self, index: int) -> int | None:
        """The block whose input a U-net skip adds to the input of block ``index``, if there is one."""
        other = len(self.blocks) - 1 - index
        return other if self.unet_skips and other < index else None

    def effective(self) -> dict[str, Any]:
        """Attributes by name, without those that change nothing; numbers that stand for others are resolved.

        Equal for two architectures that build the same model.
        """
        data: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.positions in ("rope", "alibi") and self.first_attending is None:
            data["positions"] = "none"  # nothing is left that could see them
        if len(self.blocks) == 1:
            del data["embedding_residual"], data["unet_skips"]
        data["blocks"] = [self._effective_block(index) for index in range(len(self.blocks))]
        return data

    def _effective_block(self, index: int) -> dict[str, Any]:
        block = self.blocks[index]
        data: dict[str, Any] = vars(block) | {"kv_heads": block.key_heads, "head_size": block.d_head(self.width)}
        for name in self._without_effect(index):
            data.pop(name, None)
        return data

    def _without_effect(self, index: int) -> Iterator[str]:
        block = self.blocks[index]
        if not block.attends:
            yield from OF_ATTENTION
        if block.mixer != "sliding_attention":
            yield "window"
        if index == self.first_attending:
            yield "value_residual"
        if block.mixer == "none":
            yield "token_shift"
        if block.channel == "none":
            yield "mlp_ratio"
        if "none" in (block.mixer, block.channel):
            yield "parallel"


def heads_fit(width: int, heads: int, head_size: int) -> bool:
    """Whether a head's size is whole, even (rotary pairs), and large enough to match anything.

    A size that is given must stay below the width: a head that is wider than the stream has nothing to fill it with.
    """
    if head_size:
        return head_size % 2 == 0 and MIN_HEAD_SIZE <= head_size < width
    return width % heads == 0 and (width // heads) % 2 == 0 and width // heads >= MIN_HEAD_SIZE


def check(architecture: Architecture) -> None:
    """Refuse values that are allowed one by one and do not go together.

    Raises:
        InvalidGenome: naming the path, the value, what is allowed beside the others, and the remedy.
    """
    for index, block in enumerate(architecture.blocks):
        path = f"architecture.blocks.{index}"
        if block.mixer == block.channel == "none":
            raise InvalidGenome(f"{path}.channel", "none", "a channel mixer beside mixer none", "or remove the block")
        if block.attends:
            _check_heads(block, architecture.width, path)
        if architecture.blends_values(index):
            _check_value_residual(architecture, index)


def goes_together(architecture: Architecture) -> bool:
    """Whether ``check`` has nothing against it."""
    try:
        check(architecture)
    except InvalidGenome:
        return False
    return True


def _check_heads(block: Block, width: int, path: str) -> None:
    if block.head_size and not heads_fit(width, block.heads, block.head_size):
        good = _listed("head_size", lambda size: size == 0 or heads_fit(width, block.heads, size))
        raise InvalidGenome(f"{path}.head_size", block.head_size, f"{good} at width {width}", "stay below the width")
    if not heads_fit(width, block.heads, block.head_size):
        good = _listed("heads", lambda count: heads_fit(width, count, 0))
        remedy = f"a head's size must be even and at least {MIN_HEAD_SIZE}; or set head_size"
        raise InvalidGenome(f"{path}.heads", block.heads, f"{good} at width {width}", remedy)
    if block.heads % block.key_heads:
        good = _listed("kv_heads", lambda count: count == 0 or block.heads % count == 0)
        limit = f"{good} beside {block.heads} heads"
        raise InvalidGenome(f"{path}.kv_heads", block.kv_heads, limit, "it must divide heads")


def _listed(name: str, good: Callable[[int], bool]) -> str:
    choices = FIELDS[f"architecture.blocks.*.{name}"].choices
    return ", ".join(str(choice) for choice in choices if isinstance(choice, int) and good(choice))


def _check_value_residual(architecture: Architecture, index: int) -> None:
    first = architecture.first_attending
    assert first is not None  # a block that blends values is not the first that attends
    own, source = (
        block.key_heads * block.d_head(architecture.width)
        for block in (architecture.blocks[index], architecture.blocks[first])
    )
    if own != source:
        limit = f"false: block {first} has {source} channels of values, block {index} has {own}"
        remedy = "give both blocks as many channels by kv_heads and head_size"
        raise InvalidGenome(f"architecture.blocks.{index}.value_residual", True, limit, remedy)
