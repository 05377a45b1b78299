"""A trained model as TransformerLens sees it: the same weights, with hook points where training had taps.

Training never imports TransformerLens. Here a deep copy of the model gets a ``HookPoint`` at every ``Tap`` and a class
that is a ``HookedRootModule`` as well, so that ``run_with_cache``, ``run_with_hooks``, ``ActivationCache``, activation
patching and ``transformer_lens.tools.analysis`` work on it, while ``forward`` stays the network's own.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.slice import Slice

from interp.verdict import NotApplicable
from selfimprove.nets.blocks import Tap
from selfimprove.nets.transformer import Transformer


class LayerwiseCache(ActivationCache):
    """An ``ActivationCache`` whose head results follow each layer's own number of heads.

    The library labels ``cfg.n_heads`` rows a layer whatever the cache holds, and looks for ``hook_z`` in blocks that
    have no attention. Here every row is one existing head, named by its layer and its index in that layer.
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

    def stack_head_results(  # type: ignore[no-untyped-def]  # the library's own signature is wider than its annotations
        self, layer=-1, return_labels=False, incl_remainder=False, pos_slice=None, apply_ln=False
    ):
        """Each head's contribution to the residual stream, ``[head *batch_and_pos d_model]``.

        Arguments and result are the library's; blocks without attention have no rows. With ``incl_remainder`` the last
        row is the rest of the stream, so that the stack always adds up to it.

        Raises:
            NotApplicable: no attention below ``layer`` and no remainder asked for.
        """
        top = self.model.cfg.n_layers if layer is None or layer == -1 else layer
        positions = pos_slice if isinstance(pos_slice, Slice) else Slice(pos_slice)
        self._ensure_head_results()
        rows: list[Tensor] = []
        labels: list[str] = []
        for index, block in enumerate(self.model.blocks[:top]):
            if block.has_attention:
                result = positions.apply(self.cache_dict[f"blocks.{index}.attn.hook_result"], dim=-3)
                rows.extend(result.unbind(-2))
                labels.extend(f"L{index}H{head}" for head in range(result.shape[-2]))
        if incl_remainder:
            end = f"blocks.{top - 1}.hook_resid_post" if top else "blocks.0.hook_resid_pre"
            stream = positions.apply(self.cache_dict[end], dim=-2)
            rows.append(stream - torch.stack(rows).sum(0) if rows else stream)
            labels.append("remainder")
        if not rows:
            raise NotApplicable("stack_head_results", f"{top} blocks", "at least one block with attention")
        stack = torch.stack(rows)
        if apply_ln:
            stack = self.apply_ln_to_stack(stack, top, pos_slice=positions)
        return (stack, labels) if return_labels else stack


class HookedModel(HookedRootModule, Transformer):
    """A `Transformer` with TransformerLens's hooks and the attributes its utilities ask for. Made by `to_hooked`."""

    def run_with_cache(
        self, *args: Any, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Tensor, LayerwiseCache]:
        """Logits and an ``ActivationCache``; arguments as in ``HookedRootModule.run_with_cache``."""
        logits, cache = super().run_with_cache(*args, remove_batch_dim=remove_batch_dim, **kwargs)
        return logits, LayerwiseCache(cache, self, has_batch_dim=not remove_batch_dim)

    @property
    def b_U(self) -> Float[Tensor, " vocab"]:
        """Zeros: the unembedding has no bias. The final norm's own bias stays inside ``ln_final``."""
        return torch.zeros(self.W_U.shape[1], dtype=self.W_U.dtype, device=self.W_U.device)

    def tokens_to_residual_directions(self, tokens: int | Int[Tensor, "*lead"]) -> Float[Tensor, "*lead d_model"]:
        """Direction of each token's logit after ``apply_ln_to_stack``: ``W_U`` with the final norm's gain folded in.

        The library divides by the cached scale only; without the gain its attributions would not add up to the logit.
        What they still leave out is one constant a token: the final norm's bias through ``W_U``.
        """
        folded = self.W_U.T * self.ln_final.w
        return folded[torch.as_tensor(tokens, device=folded.device)]

    def to_tokens(self, tokens: Int[Tensor, "*batch pos"], **_: Any) -> Int[Tensor, "batch pos"]:
        """Token tensors pass through: these models read token ids, there is no text.

        Raises:
            NotApplicable: anything but a tensor.
        """
        if not isinstance(tokens, Tensor):
            raise NotApplicable("to_tokens", type(tokens).__name__, "a tensor of token ids", "there is no tokenizer")
        return tokens.unsqueeze(0) if tokens.ndim == 1 else tokens

    def to_single_token(self, token: object) -> int:
        """Raise: there is no tokenizer; pass token ids."""
        raise NotApplicable("to_single_token", token, "token ids", "there is no tokenizer")

    def accumulated_bias(self, *_: Any, **__: Any) -> Float[Tensor, " d_model"]:
        """Zeros: no sublayer adds a bias to the stream."""
        return torch.zeros(self.cfg.d_model, dtype=self.W_U.dtype, device=self.W_U.device)


def to_hooked(model: Transformer) -> HookedModel:
    """Deep copy of ``model`` for inspection: hook points for taps, explicit attention and norms, evaluation mode.

    Names of parameters and hooks are the model's own; the original is left as it was.
    """
    hooked: Any = copy.deepcopy(model)
    for parent in list(hooked.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Tap):
                setattr(parent, name, HookPoint())  # type: ignore[no-untyped-call]
    hooked.__class__ = HookedModel
    hooked.is_caching, hooked.context_level = False, 0
    weight = hooked.W_E
    hooked.cfg = dataclasses.replace(hooked.cfg, device=str(weight.device), dtype=weight.dtype)
    hooked.explicit = True
    for block in hooked.blocks:
        block.hook_out_is_single_residual_stream = True  # what logit_lens asks before it trusts hook_resid_post
    hooked.setup()
    hooked.eval()  # last: new hook points start in training mode, which the library refuses
    result: HookedModel = hooked
    return result
