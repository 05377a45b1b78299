"""Singular values of what each attention head compares (QK) and of what it moves (OV); after Elhage et al. 2021.

``QK = W_Q W_K^T`` scores a pair of stream vectors, ``OV = W_V W_O`` maps the stream of a key to what is written at the
query. Both are products of two thin matrices and are read through TransformerLens's ``FactoredMatrix``. Every head that
exists has a row, named by its own layer; queries that share keys and values are paired with those that they share.

What is linear beside them is folded in: the gain of the norm that reads the stream, and its centering; of what is
written, the gain of the norm that follows (and its centering), and the residual scale. What depends on the input or on
the distance is not: the divisors of norms, and what `Head.beside` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import FactoredMatrix

from interp.hooked import HookedModel
from interp.plotting import axes
from interp.verdict import NotApplicable, Unreadable
from selfimprove.nets.primitives import Norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from interp.bench import Bench


@dataclass(frozen=True)
class Head:
    """Singular values of one head.

    Attributes:
        label: ``L<layer>H<head>``.
        key_head: of its layer, whose keys and values it uses.
        qk, ov: singular values, largest first, as many as the head has channels.
        copying: sum over the absolute sum of the eigenvalues of ``W_E OV W_U``, real parts, from -1 to 1. Near 1, the
            head raises the logit of the very token that it attends to, whichever it is. The direct path alone: what
            later blocks make of its output is left out, and so is the rest of the token's stream.
        beside: what stands between these matrices and what the head does; empty for plain attention.
    """

    label: str
    key_head: int
    qk: tuple[float, ...]
    ov: tuple[float, ...]
    copying: float
    beside: tuple[str, ...]


@dataclass(frozen=True)
class HeadMatrices:
    """Singular values of all heads.

    Attributes:
        heads: layer by layer.
        left_out: layers without attention.
    """

    heads: tuple[Head, ...]
    left_out: tuple[int, ...]

    def to_pandas(self) -> DataFrame:
        """One row a head and circuit: ``head, circuit, top_share, effective_rank, size, copying``."""
        from pandas import DataFrame

        rows = [
            {
                "head": head.label,
                "circuit": circuit,
                "top_share": top_share(values),
                "effective_rank": effective_rank(values),
                "size": len(values),
                "copying": head.copying,
            }
            for head in self.heads
            for circuit, values in (("qk", head.qk), ("ov", head.ov))
        ]
        return DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Singular values of OV by rank, one line a head, each over its largest."""
        title = "Singular values of OV by head"
        ax = axes(ax, title=title, x="rank of the singular value", y="size (share of the head's largest)")
        for head in self.heads:
            values = torch.tensor(head.ov) / max(head.ov[0], torch.finfo(torch.float32).tiny)
            ax.plot(range(1, len(head.ov) + 1), values, marker="o", markersize=4, label=head.label)
        ax.legend()
        return ax


def top_share(values: tuple[float, ...]) -> float:
    """Share of the largest singular value in the squared Frobenius norm; 0 for a matrix of zeros."""
    squares = torch.tensor(values, dtype=torch.float64).square()
    return float(squares.max() / squares.sum()) if squares.sum() > 0 else 0.0


def effective_rank(values: tuple[float, ...]) -> float:
    """Exponential of the entropy of the singular values over their sum (Roy and Vetterli 2007); 0 for zeros.

    As many equal values have the rank that they should have; small ones beside large ones count for little.
    """
    sizes = torch.tensor(values, dtype=torch.float64)
    if not sizes.sum() > 0:
        return 0.0
    shares = sizes / sizes.sum()
    return float(torch.special.entr(shares).sum().exp())


def head_matrices(model: HookedModel) -> HeadMatrices:
    """Read every head of a model.

    Raises:
        NotApplicable: no block attends.
        Unreadable: weights that are not finite.
    """
    if not model.attending:
        raise NotApplicable("OV and QK", f"{model.cfg.n_layers} blocks", "at least one block with attention")
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise Unreadable("OV and QK", "non-finite weights", "finite numbers")
    heads = [head for layer in model.attending for head in _heads(model, layer)]
    left_out = tuple(layer for layer in range(model.cfg.n_layers) if layer not in model.attending)
    return HeadMatrices(tuple(heads), left_out)


def circuits(model: HookedModel, layer: int) -> tuple[FactoredMatrix, FactoredMatrix]:
    """QK and OV of a layer's heads, each ``[head d_model d_model]`` in two factors, in float64."""
    block: Any = model.blocks[layer]
    attention = block.attn
    with torch.no_grad():
        w_q, w_k, w_v, w_o = (getattr(attention, f"W_{name}").double() for name in "QKVO")
        times = len(w_q) // len(w_k)
        w_k, w_v = w_k.repeat_interleave(times, 0), w_v.repeat_interleave(times, 0)
        if block.placement != "post":
            w_q, w_k, w_v = (_after(block.ln1, weight) for weight in (w_q, w_k, w_v))
        if block.placement == "sandwich":
            w_o = _before(block.ln1_post, w_o)
        w_o = block.scaled(w_o, "attn")
    return FactoredMatrix(w_q, w_k.transpose(-1, -2)), FactoredMatrix(w_v, w_o)


def _after(norm: Norm, weight: Float[Tensor, "*head d_model d_head"]) -> Float[Tensor, "*head d_model d_head"]:
    """A projection of a norm's output, as one of its input before the division: ``C diag(w) W``."""
    scaled = norm.w.double()[:, None] * weight
    return scaled - scaled.mean(-2, keepdim=True) if norm.centered else scaled


def _before(norm: Norm, weight: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "head d_head d_model"]:
    """A projection whose output a norm centers and scales by its gain."""
    centered = weight - weight.mean(-1, keepdim=True) if norm.centered else weight
    return centered * norm.w.double()


def _heads(model: HookedModel, layer: int) -> Iterator[Head]:
    attention: Any = model.blocks[layer].attn
    qk, ov = circuits(model, layer)
    with torch.no_grad():
        read = _after(model.ln_final, model.W_U.double())
        values = (model.W_E.double() @ ov @ read).eigenvalues
    size = values.abs().sum(-1)
    copying = torch.where(size > 0, values.real.sum(-1) / size, 0.0)
    times = attention.W_Q.shape[0] // attention.W_K.shape[0]
    beside = tuple(_beside(model, layer))
    for head in range(attention.W_Q.shape[0]):
        yield Head(
            label=f"L{layer}H{head}",
            key_head=head // times,
            qk=tuple(qk.S[head].tolist()),
            ov=tuple(ov.S[head].tolist()),
            copying=float(copying[head]),
            beside=beside,
        )


def _beside(model: HookedModel, layer: int) -> Iterator[str]:
    """What a layer's heads do that is in neither matrix, or makes them differ from what is computed."""
    block: Any = model.blocks[layer]
    attention = block.attn
    if block.placement == "post":
        yield "norm after the addition: what is written is divided and scaled together with the stream"
    if attention.linear:
        yield "linear attention: features of queries and keys are multiplied, not they themselves"
    if attention.rotary:
        yield "rotation: QK is that of a position with itself"
    if attention.qk_norm:
        yield "norms of queries and keys, with gains"
    if attention.conv:
        yield "convolution: queries, keys and values of the two positions before are mixed in"
    if hasattr(block, "shift"):
        yield "token shift: the position before is mixed in"
    if attention.gate != "none":
        yield f"gate by {attention.gate}: OV is that of an open gate"
    if attention.blends_values:
        yield "value residual: OV is that of the block's own values, before they are blended"


def ov_qk(bench: Bench) -> dict[str, Any]:
    """Singular values of OV and QK by head, in two figures each, and the copying score of OV.

    Raises:
        NotApplicable, Unreadable: as `head_matrices`.
    """
    found = head_matrices(bench.hooked)
    return {
        "ov_qk": {
            head.label: {
                "qk_top_share": top_share(head.qk),
                "qk_effective_rank": effective_rank(head.qk),
                "ov_top_share": top_share(head.ov),
                "ov_effective_rank": effective_rank(head.ov),
                "copying": head.copying,
                "beside": list(head.beside),
            }
            for head in found.heads
        }
    }
