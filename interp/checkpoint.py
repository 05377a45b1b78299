"""From a checkpoint's bytes to a model. The bytes are untrusted: safetensors only, exact names, shapes and types."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from safetensors import SafetensorError

from selfimprove.errors import InvalidCheckpoint
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer, build


def load_model(data: bytes, genome: Genome, *, vocab_size: int, context: int) -> Transformer:
    """The network of ``genome`` with the weights in ``data``, on the CPU, in evaluation mode.

    Values are not checked: non-finite weights load, and inspection reports them as unreadable.

    Raises:
        InvalidCheckpoint: not safetensors, or tensors other than this genome's.
    """
    try:
        state = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InvalidCheckpoint("load checkpoint", str(error), "a safetensors file") from error
    model = build(genome.architecture, vocab_size=vocab_size, context=context, seed=0, heads=genome.heads)
    expected = model.state_dict()
    _require_same("shapes", _shapes(state), _shapes(expected))
    _require_same("types", {k: v.dtype for k, v in state.items()}, {k: v.dtype for k, v in expected.items()})
    model.load_state_dict(state, strict=True)
    return model.eval()


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _require_same(what: str, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise InvalidCheckpoint(
                f"load checkpoint: {what} of {name}", found.get(name, "missing"), str(expected.get(name, "absent"))
            )
