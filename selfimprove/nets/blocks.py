"""A residual block: where its mixers read, where they write, and what joins the stream from earlier on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selfimprove.genome.architecture import Architecture
from selfimprove.nets.channel_mixers import channel_mixer
from selfimprove.nets.primitives import Norm, Tap, TokenShift
from selfimprove.nets.token_mixers import Attention, ShortConv

EMBED_MIX = 0.1  # multiple of the embedding that an embedding residual starts with
SKIP_MIX = 1.0


@dataclass
class Carried:
    """What blocks hand on beside the stream, in one forward pass."""

    embedding: Float[Tensor, "batch pos d_model"]
    """The stream as the first block gets it."""
    inputs: list[Float[Tensor, "batch pos d_model"]] = field(default_factory=list)
    """The stream at the entry of every block so far."""
    values: Float[Tensor, "batch pos channels"] | None = None
    """Values of the first block that attends."""


class TransformerBlock(nn.Module):
    """A token mixer (``attn``, or ``mixer`` without attention), then a channel mixer (``mlp``); either may be missing.

    ``hook_resid_pre/mid/post`` see the stream at the entry, between the mixers (not in a parallel block), at the end;
    ``hook_attn_out`` and ``hook_mlp_out`` what is added to it, whichever mixer, norm and scale it comes from.
    ``hook_embed_out`` and ``hook_skip_out`` see what joins the stream before ``hook_resid_pre``.
    """

    def __init__(self, architecture: Architecture, index: int, context: int) -> None:
        super().__init__()
        block, width = architecture.blocks[index], architecture.width
        self.index, self.mirror = index, architecture.mirror(index)
        self.joins_embedding = architecture.embedding_residual and index > 0
        self.has_attention, self.has_mixer = block.attends, block.mixer != "none"
        self.has_mlp = block.channel != "none"
        self.parallel = block.parallel and self.has_mixer and self.has_mlp
        self.placement, self.learned_scale = architecture.norm_placement, architecture.residual_scale == "learned"
        self.scale = (2 * len(architecture.blocks)) ** -0.5 if architecture.residual_scale == "depth" else 1.0
        self._make_gains(width)
        self._make_norms(architecture.norm, width)
        if self.has_mixer and block.token_shift:
            self.shift = TokenShift(width)
        if self.has_attention:
            blends = architecture.blends_values(index)
            self.attn = Attention(block, width, context, positions=architecture.positions, blends_values=blends)
        elif self.has_mixer:
            self.mixer = ShortConv(width)
        if self.has_mlp:
            self.mlp = channel_mixer(block, width)
            self.hook_mlp_out = Tap()
        if self.has_mixer:
            self.hook_attn_out = Tap()
        if not self.parallel:
            self.hook_resid_mid = Tap()
        self.hook_resid_pre, self.hook_resid_post = Tap(), Tap()

    def _make_gains(self, width: int) -> None:
        if self.joins_embedding:
            self.embed_mix, self.hook_embed_out = nn.Parameter(torch.full((1,), EMBED_MIX)), Tap()
        if self.mirror is not None:
            self.skip_mix, self.hook_skip_out = nn.Parameter(torch.full((1,), SKIP_MIX)), Tap()
        if self.learned_scale and self.has_mixer:
            self.attn_scale = nn.Parameter(torch.ones(width))
        if self.learned_scale and self.has_mlp:
            self.mlp_scale = nn.Parameter(torch.ones(width))

    def _make_norms(self, kind: str, width: int) -> None:
        sandwich = self.placement == "sandwich"
        if self.has_mixer and not (self.parallel and self.placement == "post"):
            self.ln1 = Norm(kind, width)
        if self.has_mixer and sandwich:
            self.ln1_post = Norm(kind, width)
        if self.has_mlp:
            self.ln2 = Norm(kind, width)
        if self.has_mlp and sandwich:
            self.ln2_post = Norm(kind, width)

    def forward(self, x: Float[Tensor, "batch pos d_model"], carried: Carried) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_resid_pre(self._join(x, carried))
        carried.inputs.append(x)
        if self.parallel:
            x = x + self._token_mixer(x, carried) + self._channel_mixer(x)
        else:
            if self.has_mixer:
                x = x + self._token_mixer(x, carried)
                x = self.ln1(x) if self.placement == "post" else x
            x = self.hook_resid_mid(x)
            if self.has_mlp:
                x = x + self._channel_mixer(x)
        x = self.ln2(x) if self.placement == "post" and self.has_mlp else x
        out: Tensor = self.hook_resid_post(x)
        return out

    def _join(self, x: Tensor, carried: Carried) -> Tensor:
        if self.joins_embedding:
            x = x + self.hook_embed_out(self.embed_mix * carried.embedding)
        if self.mirror is not None:
            x = x + self.hook_skip_out(self.skip_mix * carried.inputs[self.mirror])
        return x

    def _token_mixer(self, x: Tensor, carried: Carried) -> Tensor:
        x = x if self.placement == "post" else self.ln1(x)
        x = self.shift(x) if hasattr(self, "shift") else x
        if self.has_attention:
            x, values = self.attn(x, carried.values)
            carried.values = values if carried.values is None else carried.values
        else:
            x = self.mixer(x)
        x = self.ln1_post(x) if self.placement == "sandwich" else x
        out: Tensor = self.hook_attn_out(self.scaled(x, "attn"))
        return out

    def _channel_mixer(self, x: Tensor) -> Tensor:
        x = self.mlp(x if self.placement == "post" else self.ln2(x))
        x = self.ln2_post(x) if self.placement == "sandwich" else x
        out: Tensor = self.hook_mlp_out(self.scaled(x, "mlp"))
        return out

    def scaled(self, x: Float[Tensor, "*lead d_model"], part: str) -> Float[Tensor, "*lead d_model"]:
        """What is added to the stream of what a mixer (``attn`` or ``mlp``) gave, by the residual scale."""
        if self.learned_scale:
            return x * self.get_parameter(f"{part}_scale")
        return x if self.scale == 1.0 else x * self.scale
