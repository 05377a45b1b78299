"""An ``ActivationCache`` that reads every genome of the space rightly, whose layers may differ in every part."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities.slice import Slice

from interp.verdict import NotApplicable

JOINING = ("embed_out", "skip_out")
"""Taps of what joins the stream at the entry of a block: an embedding residual, a U-net skip."""


class LayerwiseCache(ActivationCache):
    """An ``ActivationCache`` that follows each layer's own parts.

    The library labels ``cfg.n_heads`` rows a layer whatever the cache holds, and looks for ``hook_z``, for
    ``hook_resid_mid`` and for both outputs in every block. Here every row is a part that exists, named by its layer
    (and head). With norms after the additions (placement ``post``) the stream is no sum of what was written to it:
    what decomposes it raises `NotApplicable`, what only reads it works.
    """

    def _ensure_head_results(self) -> bool:
        cached = True
        for layer, block in enumerate(self.model.blocks):
            name = f"blocks.{layer}.attn.hook_result"
            if block.has_attention and name not in self.cache_dict:
                cached = False
                z = self.cache_dict[f"blocks.{layer}.attn.hook_z"]
                self.cache_dict[name] = torch.einsum("...hd,hdm->...hm", z, block.attn.W_O)
        return cached

    def _written(self, layer: int) -> Float[Tensor, "*batch pos head d_model"]:
        """What each head adds to the stream: its result through the norm after it, its scale held, and its gains.

        The bias of that norm belongs to no head.
        """
        block = self.model.blocks[layer]
        result = self.cache_dict[f"blocks.{layer}.attn.hook_result"]
        if block.placement == "sandwich":
            norm = block.ln1_post
            scale = self.cache_dict[f"blocks.{layer}.ln1_post.hook_scale"].unsqueeze(-2)
            result = (result - result.mean(-1, keepdim=True) if norm.centered else result) / scale * norm.w
        written: Tensor = block.scaled(result, "attn")
        return written

    def _require_sum(self, operation: str) -> None:
        if any(block.placement == "post" for block in self.model.blocks):
            raise NotApplicable(operation, "norm placement post", "a stream that is the sum of what is written to it")

    def _up_to(self, layer: int | None) -> int:
        return int(self.model.cfg.n_layers) if layer is None or layer == -1 else layer

    def stack_head_results(  # type: ignore[no-untyped-def]  # the library's own signature is wider than its annotations
        self, layer=-1, return_labels=False, incl_remainder=False, pos_slice=None, apply_ln=False
    ):
        """Each head's contribution to the residual stream, ``[head *batch_and_pos d_model]``.

        Arguments and result are the library's; blocks without attention have no rows. With ``incl_remainder`` the last
        row is the rest of the stream, so that the stack always adds up to it.

        Raises:
            NotApplicable: no attention below ``layer`` and no remainder asked for, or a stream that is no sum.
        """
        self._require_sum("stack_head_results")
        top = self._up_to(layer)
        positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        self._ensure_head_results()
        rows: list[Tensor] = []
        labels: list[str] = []
        for index, block in enumerate(self.model.blocks[:top]):
            if block.has_attention:
                result = positions.apply(self._written(index), dim=-3)
                rows.extend(result.unbind(-2))
                labels.extend(f"L{index}H{head}" for head in range(result.shape[-2]))
        if incl_remainder:
            end = f"blocks.{top - 1}.hook_resid_post" if top else "blocks.0.hook_resid_pre"
            stream = positions.apply(self.cache_dict[end], dim=-2)
            rows.append(stream - torch.stack(rows).sum(0) if rows else stream)
            labels.append("remainder")
        if not rows:
            raise NotApplicable("stack_head_results", f"{top} blocks", "at least one block with attention")
        return self._stacked(rows, labels, top, positions, apply_ln=apply_ln, return_labels=return_labels)

    def accumulated_resid(  # type: ignore[no-untyped-def]
        self, layer=None, incl_mid=False, apply_ln=False, pos_slice=None, mlp_input=False, return_labels=False
    ):
        """The stream at each layer, ``[layer *batch_and_pos d_model]``; as in the library, but for parallel blocks.

        They have no middle, and no row for it.

        Raises:
            NotApplicable: ``mlp_input`` of a parallel block.
        """
        top, count = self._up_to(layer), self.model.cfg.n_layers
        positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        if mlp_input and self.model.blocks[top].parallel:
            raise NotApplicable("accumulated_resid", f"mlp_input of the parallel block {top}", "a block with a middle")
        names: dict[str, str] = {}
        for index in range(min(top + 1, count)):
            names[f"{index}_pre"] = f"blocks.{index}.hook_resid_pre"
            if ((incl_mid and index < top) or (mlp_input and index == top)) and not self.model.blocks[index].parallel:
                names[f"{index}_mid"] = f"blocks.{index}.hook_resid_mid"
        if top == count:
            names["final_post"] = f"blocks.{count - 1}.hook_resid_post"
        rows = [positions.apply(self.cache_dict[name], dim=-2) for name in names.values()]
        ln = {"mlp_input": mlp_input, "has_batch_dim": self.has_batch_dim, "recompute_ln": top == count}
        return self._stacked(rows, list(names), top, positions, apply_ln=apply_ln, return_labels=return_labels, **ln)

    def decompose_resid(  # type: ignore[no-untyped-def]
        self,
        layer=None,
        mlp_input=False,
        mode="all",
        apply_ln=False,
        pos_slice=None,
        incl_embeds=True,
        return_labels=False,
    ):
        """What was written to the stream up to layer ``layer``, ``[component *batch_and_pos d_model]``.

        As in the library; a missing mixer has no row, and with ``mode="all"`` an embedding residual or a skip has one,
        so that the stack adds up to the stream.

        Raises:
            NotApplicable: a stream that is no sum.
        """
        self._require_sum("decompose_resid")
        top = self._up_to(layer)
        positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        parts = {"all": (*JOINING, "attn_out", "mlp_out"), "attn": ("attn_out",), "mlp": ("mlp_out",)}[mode]
        names = {"embed": "hook_embed", "pos_embed": "hook_pos_embed"} if incl_embeds else {}
        for index in range(top):
            names |= {f"{index}_{part}": f"blocks.{index}.hook_{part}" for part in parts}
        if top < self.model.cfg.n_layers:  # what enters it, and for its MLP what its token mixer writes
            entering = (part for part in parts if part in JOINING or (mlp_input and part == "attn_out"))
            names |= {f"{top}_{part}": f"blocks.{top}.hook_{part}" for part in entering}
        names = {label: name for label, name in names.items() if name in self.cache_dict}
        if not names:
            raise NotApplicable("decompose_resid", f"mode {mode}", "a part of this kind below the layer")
        rows = [positions.apply(self.cache_dict[name], dim=-2) for name in names.values()]
        return self._stacked(
            rows, list(names), top, positions, apply_ln=apply_ln, return_labels=return_labels, mlp_input=mlp_input
        )

    def apply_ln_to_stack(  # type: ignore[no-untyped-def]
        self, residual_stack, layer=None, mlp_input=False, *args: Any, **kwargs: Any
    ):
        """As in the library, for a layer whose mixer reads the stream through a norm.

        Raises:
            NotApplicable: a norm that is missing, or that comes after the addition.
        """
        top = self._up_to(layer)
        if top < self.model.cfg.n_layers:
            name = "ln2" if mlp_input else "ln1"
            block = self.model.blocks[top]
            if block.placement == "post" or not hasattr(block, name):
                raise NotApplicable(f"norm {name} of block {top}", "no such norm", "a norm between stream and mixer")
        return super().apply_ln_to_stack(residual_stack, layer, mlp_input, *args, **kwargs)

    def _stacked(  # type: ignore[no-untyped-def]
        self, rows, labels, top, positions, *, apply_ln, return_labels, **ln: Any
    ):
        stack = torch.stack(rows)
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, top, pos_slice=positions, **ln)
        return (stack, labels) if return_labels else stack
