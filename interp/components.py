"""Parts of a model that can be replaced in a run: heads, outputs of mixers, the stream at the entry of a block.

Only parts that exist, each labelled by its own layer (and head). Every kind of norm placement will do: what is replaced
is what a hook sees.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.hooked import HookedModel

Kind = Literal["head", "mixer", "mlp", "stream"]
HEADS: tuple[Kind, ...] = ("head",)
WRITERS: tuple[Kind, ...] = ("head", "mixer", "mlp")
"""What writes to the stream; the stream itself, at all positions together, carries nearly everything anyway."""
STREAM: tuple[Kind, ...] = ("stream",)
RUNS, LEAST_SEQUENCES = 768, 8


@dataclass(frozen=True)
class Component:
    """One part of a model.

    Attributes:
        label: ``L0H1``, ``L0 attention`` (or ``L0 convolution``), ``L0 mlp``, ``L0 stream`` (at the entry of the
            block); with ``@3`` behind it, at position 3 alone.
        kind: ``head``, ``mixer`` (of tokens), ``mlp``, ``stream``.
        hook: where it can be read and replaced.
        head: index on the head axis, for a head.
        position: None for all.
    """

    label: str
    kind: Kind
    hook: str
    head: int | None = None
    position: int | None = None

    @property
    def index(self) -> tuple[slice | int, ...]:
        """Which part of the hook's tensor ``[batch pos ...]``."""
        place = slice(None) if self.position is None else self.position
        return (slice(None), place) if self.head is None else (slice(None), place, self.head)


def components(
    model: HookedModel, kinds: Collection[Kind] = WRITERS, positions: Sequence[int] | None = None
) -> tuple[Component, ...]:
    """The parts of a model, layer by layer.

    Args:
        model: the hooked model.
        kinds: which kinds.
        positions: None for parts at all positions together; else one part for each of these.
    """
    block: Any
    found: list[Component] = []
    for layer, block in enumerate(model.blocks):
        at, heads = f"blocks.{layer}", block.attn.W_O.shape[0] if block.has_attention else 0
        found.append(Component(f"L{layer} stream", "stream", f"{at}.hook_resid_pre"))
        found += [Component(f"L{layer}H{head}", "head", f"{at}.attn.hook_z", head) for head in range(heads)]
        if block.has_mixer:
            name = "attention" if block.has_attention else "convolution"
            found.append(Component(f"L{layer} {name}", "mixer", f"{at}.hook_attn_out"))
        if block.has_mlp:
            found.append(Component(f"L{layer} mlp", "mlp", f"{at}.hook_mlp_out"))
    found = [part for part in found if part.kind in kinds]
    if positions is None:
        return tuple(found)
    return tuple(
        Component(f"{part.label} @{place}", part.kind, part.hook, part.head, place)
        for part in found
        for place in positions
    )


def affordable(parts: Sequence[Component], sequences: int) -> int:
    """How many of ``sequences`` a sweep over these parts may read: each part costs a run over all of them.

    So many that a sweep costs at most `RUNS` sequences (but at least `LEAST_SEQUENCES` a part): in a model with more
    heads and blocks a run costs more, and its cost should not grow with the square of the model's size.
    """
    return min(sequences, max(LEAST_SEQUENCES, RUNS // max(1, len(parts))))


def activations(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], parts: Sequence[Component]
) -> tuple[Float[Tensor, "batch pos vocab"], dict[str, Tensor]]:
    """Logits, and what the hooks of these parts see."""
    names = {part.hook for part in parts}
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, names_filter=lambda name: name in names)
    return logits, {name: cache[name] for name in names}


def hooks(
    parts: Sequence[Component], source: Mapping[str, Tensor]
) -> list[tuple[str | Callable[..., Any], Callable[..., Any]]]:
    """Forward hooks that give parts their values from ``source``: hook -> a tensor of its shape, or of one sequence."""
    return [(part.hook, partial(_put, index=part.index, value=source[part.hook])) for part in parts]


def run_replaced(
    model: HookedModel, tokens: Int[Tensor, "batch pos"], parts: Sequence[Component], source: Mapping[str, Tensor]
) -> Float[Tensor, "batch pos vocab"]:
    """Logits of a run in which some parts together have their values from ``source``, as `hooks` takes it."""
    with torch.no_grad():
        logits: Tensor = model.run_with_hooks(tokens, fwd_hooks=hooks(parts, source))
    return logits


def _put(activation: Tensor, hook: HookPoint, *, index: tuple[slice | int, ...], value: Tensor) -> Tensor:
    replaced = activation.clone()  # a skip or a residual may hold the same tensor
    replaced[index] = value[index]
    return replaced
