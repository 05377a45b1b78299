"""A trained model as TransformerLens sees it: the same weights, with hook points where training had taps.

Training never imports TransformerLens. Here a deep copy of the model gets a ``HookPoint`` at every ``Tap`` and a class
that is a ``HookedRootModule`` as well, so that ``run_with_cache``, ``run_with_hooks``, ``ActivationCache``, activation
patching and ``transformer_lens.tools.analysis`` work on it, while ``forward`` stays the network's own.

Hooks have TransformerLens's names. Where it has none, these are ours, under ``blocks.{layer}`` unless said otherwise:

==================================== ===================================================================================
``hook_embed_out``, ``hook_skip_out`` what an embedding residual and a U-net skip add before ``hook_resid_pre``
``shift.hook_out``                   the token mixer's input after a token shift
``attn.hook_gate``                   the sigmoid gate of attention, ``[batch pos head]`` or ``[batch pos head d_head]``
``mixer.hook_in/gate/out``           a short convolution: its gated input, its output gate, its gated output
``mlp.hook_expert_weights``          the route of a mixture of experts, ``[batch pos expert]``
``hook_uncapped``                    of the model: logits before the soft cap
==================================== ===================================================================================

Names that stretch: ``hook_attn_out`` is what any token mixer adds to the stream, after the norm and scale that follow
it; ``hook_attn_scores`` of linear attention are its unnormalized weights; a parallel block has no ``hook_resid_mid``;
with norms after the additions ``hook_resid_mid/post`` see the normalized stream.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.cache import LayerwiseCache, require_sum, written_bias
from interp.verdict import NotApplicable
from selfimprove.nets.primitives import Tap
from selfimprove.nets.transformer import Transformer


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

    @property
    def attending(self) -> tuple[int, ...]:
        """Layers that have attention."""
        return tuple(layer for layer, block in enumerate(self.blocks) if block.has_attention)

    @property
    def joined(self) -> tuple[int, ...]:
        """Layers where an embedding residual or a skip joins the stream, so that the entry is not the end before it."""
        return tuple(n for n, block in enumerate(self.blocks) if block.joins_embedding or block.mirror is not None)

    @property
    def adapter(self) -> HookedModel:
        """Where TransformerLens looks for what comes after the unembedding: `apply_output_logits_transform`."""
        return self

    def apply_output_logits_transform(self, logits: Float[Tensor, "*lead vocab"]) -> Float[Tensor, "*lead vocab"]:
        """The soft cap, where there is one."""
        return self.capped(logits)

    def tokens_to_residual_directions(self, tokens: int | Int[Tensor, "*lead"]) -> Float[Tensor, "*lead d_model"]:
        """Direction of each token's logit after ``apply_ln_to_stack``: ``W_U`` with the final norm's gain folded in.

        The library divides by the cached scale only; without the gain its attributions would not add up to the logit.
        What they still leave out is one constant a token, the final norm's bias through ``W_U``, and the soft cap.
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

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """What biases add to the stream below a layer: those of the norms after the mixers, in a sandwich.

        Args:
            layer: 0 for none, the number of layers for all.
            mlp_input: count the token mixer of this layer as well.
            include_mlp_biases: count the channel mixers.

        Raises:
            NotApplicable: a stream that is no sum.
        """
        require_sum("accumulated_bias", self.blocks)
        total = torch.zeros(self.cfg.d_model, dtype=self.W_U.dtype, device=self.W_U.device)
        for index, block in enumerate(self.blocks[: layer + mlp_input]):
            mixers = ("attn", "mlp") if include_mlp_biases and index < layer else ("attn",)
            total = total + sum(written_bias(block, mixer).to(total) for mixer in mixers)
        return total


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
