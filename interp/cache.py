"""An ``ActivationCache`` that reads every genome of the space rightly, whose layers may differ in every part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.utilities.slice import Slice

from interp.verdict import NotApplicable

JOINING = ("embed_out", "skip_out")
"""Taps of what joins the stream at the entry of a block: an embedding residual, a U-net skip."""
NORM_AFTER = {"attn": "ln1_post", "mlp": "ln2_post"}
"""The norm between a mixer and the stream, in a sandwich."""


class LayerwiseCache(ActivationCache):
    """An ``ActivationCache`` that follows each layer's own parts.

    The library labels ``cfg.n_heads`` rows a layer whatever the cache holds, and looks for ``hook_z``, for
    ``hook_resid_mid`` and for both outputs in every block. Here every row is a part that exists, named by its layer
    (and head or neuron). With norms after the additions (placement ``post``) the stream is no sum of what was written
    to it: what decomposes it raises `NotApplicable`, what only reads it works.
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

    def _written(self, layer: int, result: Float[Tensor, "*batch pos part d_model"], mixer: str) -> Tensor:
        """What parts of a mixer add to the stream: their results through the norm after it, its scale held, and gains.

        The bias of that norm belongs to no part: see `written_bias`.
        """
        block, name = self.model.blocks[layer], NORM_AFTER[mixer]
        if block.placement == "sandwich":
            norm = getattr(block, name)
            scale = self.cache_dict[f"blocks.{layer}.{name}.hook_scale"].unsqueeze(-2)
            result = (result - result.mean(-1, keepdim=True) if norm.centered else result) / scale * norm.w
        written: Tensor = block.scaled(result, mixer)
        return written

    def _heads(self, layer: int) -> Float[Tensor, "*batch pos head d_model"]:
        self._ensure_head_results()
        return self._written(layer, self.cache_dict[f"blocks.{layer}.attn.hook_result"], "attn")

    def _neurons(self, layer: int) -> Float[Tensor, "*batch pos neuron d_model"]:
        post = self.cache_dict[f"blocks.{layer}.mlp.hook_post"]
        return self._written(layer, post.unsqueeze(-1) * self.model.blocks[layer].mlp.W_out, "mlp")

    def _require_sum(self, operation: str) -> None:
        require_sum(operation, self.model.blocks)

    def _require_middle(self, operation: str, layer: int) -> None:
        if layer < self.model.cfg.n_layers and self.model.blocks[layer].parallel:
            raise NotApplicable(operation, f"mlp_input of the parallel block {layer}", "a block with a middle")

    def _at(self, names: Mapping[str, str], positions: Slice) -> dict[str, Tensor]:
        """Rows of what is cached under names, by label."""
        return {label: positions.apply(self.cache_dict[name], dim=-2) for label, name in names.items()}

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
        top, positions = self._up_to(layer), _slice(pos_slice)
        rows: dict[str, Tensor] = {}
        for index, block in enumerate(self.model.blocks[:top]):
            if block.has_attention:
                rows |= _labelled(f"L{index}H", positions.apply(self._heads(index), dim=-3))
        if incl_remainder:
            rows["remainder"] = self._remainder(rows, self._entry(top), positions)
        if not rows:
            raise NotApplicable("stack_head_results", f"{top} blocks", "at least one block with attention")
        return self._stacked(rows, top, positions, apply_ln=apply_ln, return_labels=return_labels)

    def get_neuron_results(  # type: ignore[no-untyped-def]
        self, layer, neuron_slice=None, pos_slice=None, project_output_onto=None
    ):
        """What each neuron of a block adds to the stream, ``[*batch_and_pos neuron d_model]``; as in the library.

        Raises:
            NotApplicable: a block without an MLP, or a stream that is no sum.
        """
        self._require_sum("get_neuron_results")
        if not self.model.blocks[layer].has_mlp:
            raise NotApplicable("get_neuron_results", f"block {layer}", "a block with an MLP")
        result = _slice(pos_slice).apply(self._neurons(layer), dim=-3)
        result = _slice(neuron_slice).apply(result, dim=-2)
        return result if project_output_onto is None else result @ project_output_onto

    def stack_neuron_results(  # type: ignore[no-untyped-def]
        self,
        layer,
        pos_slice=None,
        neuron_slice=None,
        return_labels=False,
        incl_remainder=False,
        apply_ln=False,
        project_output_onto=None,
        mlp_input=False,
    ):
        """Each neuron's contribution to the residual stream, ``[neuron *batch_and_pos d_model]``.

        As in the library; each layer's rows are its own neurons, and layer 0 is the entry of the first block.

        Raises:
            NotApplicable: no MLP below ``layer`` and no remainder asked for, ``mlp_input`` of a parallel block, or a
                stream that is no sum.
        """
        self._require_sum("stack_neuron_results")
        top, positions = self._up_to(layer), _slice(pos_slice)
        if mlp_input:
            self._require_middle("stack_neuron_results", top)
        rows: dict[str, Tensor] = {}
        for index, block in enumerate(self.model.blocks[:top]):
            if block.has_mlp:
                own = _labelled(f"L{index}N", positions.apply(self._neurons(index), dim=-3))
                kept = _slice(neuron_slice).apply(torch.arange(len(own)), dim=0).reshape(-1)
                rows |= {label: own[label] for label in (f"L{index}N{neuron}" for neuron in kept.tolist())}
        if incl_remainder:
            end = f"blocks.{top}.hook_resid_mid" if mlp_input else self._entry(top)
            rows["remainder"] = self._remainder(rows, end, positions)
        if not rows:
            raise NotApplicable("stack_neuron_results", f"{top} blocks", "at least one block with an MLP")
        return self._stacked(
            rows,
            top,
            positions,
            apply_ln=apply_ln,
            return_labels=return_labels,
            onto=project_output_onto,
            mlp_input=mlp_input,
        )

    def accumulated_resid(  # type: ignore[no-untyped-def]
        self, layer=None, incl_mid=False, apply_ln=False, pos_slice=None, mlp_input=False, return_labels=False
    ):
        """The stream at each layer, ``[layer *batch_and_pos d_model]``; as in the library, but for parallel blocks.

        They have no middle, and no row for it.

        Raises:
            NotApplicable: ``mlp_input`` of a parallel block.
        """
        top, count, positions = self._up_to(layer), self.model.cfg.n_layers, _slice(pos_slice)
        if mlp_input:
            self._require_middle("accumulated_resid", top)
        names: dict[str, str] = {}
        for index in range(min(top + 1, count)):
            names[f"{index}_pre"] = f"blocks.{index}.hook_resid_pre"
            if ((incl_mid and index < top) or (mlp_input and index == top)) and not self.model.blocks[index].parallel:
                names[f"{index}_mid"] = f"blocks.{index}.hook_resid_mid"
        if top == count:
            names["final_post"] = f"blocks.{count - 1}.hook_resid_post"
        rows = self._at(names, positions)
        ln = {"mlp_input": mlp_input, "has_batch_dim": self.has_batch_dim, "recompute_ln": top == count}
        return self._stacked(rows, top, positions, apply_ln=apply_ln, return_labels=return_labels, **ln)

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
            NotApplicable: ``mlp_input`` of a parallel block, or a stream that is no sum.
        """
        self._require_sum("decompose_resid")
        top, positions = self._up_to(layer), _slice(pos_slice)
        if mlp_input:
            self._require_middle("decompose_resid", top)
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
        rows = self._at(names, positions)
        return self._stacked(rows, top, positions, apply_ln=apply_ln, return_labels=return_labels, mlp_input=mlp_input)

    def get_full_resid_decomposition(  # type: ignore[no-untyped-def]
        self,
        layer=None,
        mlp_input=False,
        expand_neurons=True,
        apply_ln=False,
        pos_slice=None,
        return_labels=False,
        project_output_onto=None,
    ):
        """What every part wrote to the stream up to layer ``layer``, ``[part *batch_and_pos d_model]``.

        The rows of `decompose_resid`, attention in heads and (with ``expand_neurons``) MLPs in neurons, and last
        ``bias``: what the norms after these added. As in the library, but in the order in which parts write, and with
        a row for whatever else a genome has, so that the stack adds up to the stream.

        Raises:
            NotApplicable: ``mlp_input`` of a parallel block, or a stream that is no sum.
        """
        self._require_sum("get_full_resid_decomposition")
        top, positions = self._up_to(layer), _slice(pos_slice)
        stack, labels = self.decompose_resid(top, mlp_input, pos_slice=positions, return_labels=True)  # type: ignore[no-untyped-call]
        rows: dict[str, Tensor] = {}
        bias = torch.zeros_like(stack[0])
        for label, row in zip(labels, stack, strict=True):
            number, _, part = label.partition("_")
            if part == "attn_out" and self.model.blocks[int(number)].has_attention:
                rows |= _labelled(f"L{number}H", positions.apply(self._heads(int(number)), dim=-3))
                bias = bias + written_bias(self.model.blocks[int(number)], "attn")
            elif part == "mlp_out" and expand_neurons:
                rows |= _labelled(f"L{number}N", positions.apply(self._neurons(int(number)), dim=-3))
                bias = bias + written_bias(self.model.blocks[int(number)], "mlp")
            else:
                rows[label] = row
        return self._stacked(
            rows | {"bias": bias},
            top,
            positions,
            apply_ln=apply_ln,
            return_labels=return_labels,
            onto=project_output_onto,
            mlp_input=mlp_input,
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

    def _entry(self, layer: int) -> str:
        """The stream below a layer, as `stack_head_results` adds up to it."""
        return f"blocks.{layer - 1}.hook_resid_post" if layer else "blocks.0.hook_resid_pre"

    def _remainder(self, rows: Mapping[str, Tensor], name: str, positions: Slice) -> Tensor:
        stream: Tensor = positions.apply(self.cache_dict[name], dim=-2)
        return stream - torch.stack(list(rows.values())).sum(0) if rows else stream

    def _stacked(  # type: ignore[no-untyped-def]
        self, rows, top, positions, *, apply_ln, return_labels, onto=None, **ln: Any
    ):
        stack = torch.stack(list(rows.values()))
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, top, pos_slice=positions, **ln)
        stack = stack if onto is None else stack @ onto
        return (stack, list(rows)) if return_labels else stack


def written_bias(block: Any, mixer: str) -> Float[Tensor, ""] | Float[Tensor, " d_model"]:
    """What the norm after a mixer (``attn`` or ``mlp``) adds to the stream at every position; 0 where none does."""
    bias = getattr(getattr(block, NORM_AFTER[mixer], None), "b", None)
    found: Tensor = torch.zeros(()) if bias is None else block.scaled(bias, mixer)
    return found


def require_sum(operation: str, blocks: Iterable[Any]) -> None:
    """The stream is the sum of what is written to it.

    Raises:
        NotApplicable: norms come after the additions.
    """
    if any(block.placement == "post" for block in blocks):
        raise NotApplicable(operation, "norm placement post", "a stream that is the sum of what is written to it")


def _slice(given: Any) -> Slice:
    return given if isinstance(given, Slice) else Slice(given)


def _labelled(prefix: str, parts: Float[Tensor, "*batch_and_pos part d_model"]) -> dict[str, Tensor]:
    return {f"{prefix}{number}": row for number, row in enumerate(parts.unbind(-2))}
