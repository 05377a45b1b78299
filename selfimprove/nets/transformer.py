"""A genome's architecture as a torch module: residual blocks with a tap at every canonical position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from selfimprove.genome.architecture import Architecture
from selfimprove.nets.blocks import Carried, TransformerBlock
from selfimprove.nets.prices import CONV_TAPS
from selfimprove.nets.primitives import NORM_EPS, Norm, Tap
from selfimprove.nets.token_mixers import Attention
from selfimprove.seeds import derive

INIT_GAIN = 0.02 * 768**0.5  # GPT-2 drew from N(0, 0.02) at width 768; the same gain at any width
_T = TypeVar("_T")
RESIDUAL_OUTPUTS = ("attn.W_O", "mixer.W_out", "mlp.W_out")


@dataclass(frozen=True)
class TransformerConfig:
    """What an analysis needs to know of a model, under TransformerLens's names.

    Attributes that are tuples have one value a layer, because blocks may differ; ``n_heads`` and ``act_fn`` are plain
    values where all layers agree. A layer without attention counts 0 heads, one without an MLP has 0 neurons.
    ``n_key_value_heads`` is None where every query has keys and values of its own.
    """

    n_layers: int
    d_model: int
    n_ctx: int
    d_vocab: int
    n_heads: int | tuple[int, ...]
    d_head: int | tuple[int, ...]
    d_mlp: int | tuple[int, ...]
    act_fn: str | tuple[str, ...]
    normalization_type: str
    positional_embedding_type: str
    eps: float = NORM_EPS
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    n_key_value_heads: int | tuple[int, ...] | None = None
    output_logits_soft_cap: float = -1.0
    attn_only: bool = False
    final_rms: bool = False
    use_attn_result: bool = False
    model_name: str = "selfimprove"

    @property
    def d_vocab_out(self) -> int:
        return self.d_vocab


def _uniform(values: tuple[_T, ...]) -> _T | tuple[_T, ...]:
    return values[0] if len(set(values)) == 1 else values


def _config(architecture: Architecture, vocab_size: int, context: int) -> TransformerConfig:
    blocks, width = architecture.blocks, architecture.width
    heads = tuple(block.heads if block.attends else 0 for block in blocks)
    key_heads = tuple(block.key_heads if block.attends else 0 for block in blocks)
    return TransformerConfig(
        n_layers=len(blocks),
        d_model=width,
        n_ctx=context,
        d_vocab=vocab_size,
        n_heads=_uniform(heads),
        d_head=_uniform(tuple(block.d_head(width) if block.attends else 0 for block in blocks)),
        d_mlp=_uniform(tuple(round(block.mlp_ratio * width) * (block.channel != "none") for block in blocks)),
        act_fn=_uniform(tuple(block.channel for block in blocks)),
        normalization_type={"layernorm": "LN", "rmsnorm": "RMS"}[architecture.norm],
        positional_embedding_type={"rope": "rotary", "learned": "standard"}.get(
            architecture.positions, architecture.positions
        ),
        n_key_value_heads=None if key_heads == heads else _uniform(key_heads),
        output_logits_soft_cap=architecture.logit_softcap or -1.0,
        final_rms=architecture.norm == "rmsnorm",
    )


class Embed(nn.Module):
    """Token embedding, ``W_E [vocab d_model]``."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(vocab_size, width))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return F.embedding(tokens, self.W_E)


class PosEmbed(nn.Module):
    """Learned absolute positions, ``W_pos [context d_model]``, broadcast over the batch."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(torch.empty(context, width))

    def forward(self, tokens: Shaped[Tensor, "batch pos ..."]) -> Float[Tensor, "batch pos d_model"]:
        return self.W_pos[: tokens.shape[1]].expand(tokens.shape[0], -1, -1)


class Unembed(nn.Module):
    """Logits from the residual stream by ``W_U [d_model vocab]``."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.W_U = nn.Parameter(torch.empty(width, vocab_size))

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos vocab"]:
        return x @ self.W_U


class TiedUnembed(nn.Module):
    """Logits by the transposed token embedding; holds no parameter of its own, so a checkpoint has it once."""

    def __init__(self, embed: Embed) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple, so that it is not registered a second time as a submodule

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        return self._embed[0].W_E.T

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos vocab"]:
        return x @ self.W_U


class Transformer(nn.Module):
    """A causal language model over tokens of a small vocabulary.

    The prediction that counts is head 0's, ``unembed``: it is what calling the model gives, and what ``W_U`` reads.
    Further heads (``heads.1.W_U`` and so on, as a loss names them) exist for training alone.

    Attributes:
        architecture: what it was built from.
        cfg: its sizes under TransformerLens's names.
        explicit: False (default) for fused kernels; True to compute attention scores, patterns and norm scales through
            their taps. Both give the same logits within 1e-5.
    """

    def __init__(
        self, architecture: Architecture, *, vocab_size: int, context: int, heads: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        width = architecture.width
        self.architecture = architecture
        self.cfg = _config(architecture, vocab_size, context)
        self.embed = Embed(vocab_size, width)
        self.hook_embed = Tap()
        self.learned_positions = architecture.positions == "learned"
        if self.learned_positions:
            self.pos_embed = PosEmbed(context, width)
            self.hook_pos_embed = Tap()
        self.blocks = nn.ModuleList(
            TransformerBlock(architecture, index, context) for index in range(len(architecture.blocks))
        )
        self.ln_final = Norm(architecture.norm, width)
        self.unembed: Unembed | TiedUnembed = (
            TiedUnembed(self.embed) if architecture.tie_embeddings else Unembed(vocab_size, width)
        )
        if architecture.logit_softcap:
            self.hook_uncapped = Tap()
        self.heads = nn.ModuleDict({str(head): Unembed(vocab_size, width) for head in heads})

    @property
    def explicit(self) -> bool:
        return self.ln_final.explicit

    @explicit.setter
    def explicit(self, value: bool) -> None:
        for module in self.modules():
            if isinstance(module, Norm | Attention):
                module.explicit = value

    @property
    def W_E(self) -> Float[Tensor, "vocab d_model"]:
        return self.embed.W_E

    @property
    def W_U(self) -> Float[Tensor, "d_model vocab"]:
        return self.unembed.W_U

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        return self._scored(self._final(tokens))

    def predict(self, tokens: Int[Tensor, "batch pos"]) -> dict[int, Float[Tensor, "batch pos vocab"]]:
        """Logits of every head; those of head 0 are what calling the model gives."""
        x = self._final(tokens)
        return {0: self._scored(x)} | {int(head): self.capped(unembed(x)) for head, unembed in self.heads.items()}

    def _scored(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos vocab"]:
        """Logits of head 0."""
        logits: Tensor = self.unembed(x)
        return self.capped(self.hook_uncapped(logits)) if self.cfg.output_logits_soft_cap > 0 else logits

    def read(self, embedded: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos vocab"]:
        """Logits of head 0 for what is no sequence of tokens, each position in the place of a token's embedding."""
        return self._scored(self._through(embedded))

    def _final(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the final norm."""
        return self._through(self.embed(tokens))

    def _through(self, embedded: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_embed(embedded)
        if self.learned_positions:
            x = x + self.hook_pos_embed(self.pos_embed(embedded))
        carried = Carried(embedding=x)
        for block in self.blocks:
            x = block(x, carried)
        out: Tensor = self.ln_final(x)
        return out

    def capped(self, logits: Float[Tensor, "*lead vocab"]) -> Float[Tensor, "*lead vocab"]:
        """Logits within the soft cap, which ``hook_uncapped`` sees before it; the same ones where there is none."""
        cap = self.cfg.output_logits_soft_cap
        return cap * (logits / cap).tanh() if cap > 0 else logits

    def reset(self, seed: int, *, zero_init: bool, gain: float = 1.0) -> None:
        """Draw the weights anew, matrices ``gain`` times as large as usual.

        Each parameter has its own stream, derived from the seed and its name: parameters that two architectures share
        start equal, which takes noise out of the comparison of a parent with its edited child.
        """
        std = gain * INIT_GAIN / self.cfg.d_model**0.5
        residual = 0.0 if zero_init else std / (2 * self.cfg.n_layers) ** 0.5
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                last = name.rpartition(".")[2]
                if last.startswith("conv"):
                    generator = torch.Generator().manual_seed(derive(seed, "init", name))
                    parameter.uniform_(-(CONV_TAPS**-0.5), CONV_TAPS**-0.5, generator=generator)
                if last.startswith("W_"):
                    generator = torch.Generator().manual_seed(derive(seed, "init", name))
                    parameter.normal_(0.0, residual if name.endswith(RESIDUAL_OUTPUTS) else std, generator=generator)


def build(
    architecture: Architecture,
    *,
    vocab_size: int,
    context: int,
    seed: int,
    heads: tuple[int, ...] = (),
    gain: float = 1.0,
) -> Transformer:
    """Build a model on the CPU, in float32, its weights a pure function of the arguments.

    Args:
        architecture: a valid architecture; validity is the genome's business and not checked again.
        vocab_size: number of tokens.
        context: longest sequence, in tokens.
        seed: of the weights; global random state is neither read nor changed.
        heads: prediction heads beside head 0, as ``Genome.heads`` says; a checkpoint has them too.
        gain: of the initial matrices over the usual one, as the recipe says; without effect on weights that are loaded.
    """
    model = Transformer(architecture, vocab_size=vocab_size, context=context, heads=heads)
    model.reset(seed, zero_init=architecture.zero_init, gain=gain)
    return model
