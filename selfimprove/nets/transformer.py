"""A genome's architecture as a torch module: pre-norm residual blocks with a tap at every canonical position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from selfimprove.genome.genome import Architecture, Block
from selfimprove.nets.blocks import MLP, NORM_EPS, Attention, Norm, ShortConv, Tap
from selfimprove.nets.prices import CONV_TAPS
from selfimprove.seeds import derive

INIT_GAIN = 0.02 * 768**0.5  # GPT-2 drew from N(0, 0.02) at width 768; the same gain at any width
_T = TypeVar("_T")
RESIDUAL_OUTPUTS = ("attn.W_O", "mixer.W_out", "mlp.W_out")


@dataclass(frozen=True)
class TransformerConfig:
    """What an analysis needs to know of a model, under TransformerLens's names.

    Attributes that are tuples have one value a layer, because blocks may differ; ``n_heads`` and ``act_fn`` are plain
    values where all layers agree. A layer without attention counts 0 heads.
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
    n_key_value_heads: None = None
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
    return TransformerConfig(
        n_layers=len(blocks),
        d_model=width,
        n_ctx=context,
        d_vocab=vocab_size,
        n_heads=_uniform(heads),
        d_head=_uniform(tuple(width // n if n else 0 for n in heads)),
        d_mlp=_uniform(tuple(round(block.mlp_ratio * width) for block in blocks)),
        act_fn=_uniform(tuple(block.channel for block in blocks)),
        normalization_type={"layernorm": "LN", "rmsnorm": "RMS"}[architecture.norm],
        positional_embedding_type={"rope": "rotary", "learned": "standard", "none": "none"}[architecture.positions],
        final_rms=architecture.norm == "rmsnorm",
    )


class TransformerBlock(nn.Module):
    """Pre-norm residual block: a token mixer (``attn``, or ``mixer`` without attention), then a channel mixer."""

    def __init__(self, block: Block, architecture: Architecture, context: int) -> None:
        super().__init__()
        width = architecture.width
        self.ln1, self.ln2 = Norm(architecture.norm, width), Norm(architecture.norm, width)
        self.has_attention = block.attends
        if self.has_attention:
            self.attn = Attention(block, width, context, rope=architecture.positions == "rope")
        else:
            self.mixer = ShortConv(width)
        self.mlp = MLP(block, width)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = Tap(), Tap(), Tap()
        self.hook_attn_out, self.hook_mlp_out = Tap(), Tap()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_resid_pre(x)
        mix = self.attn if self.has_attention else self.mixer
        x = self.hook_resid_mid(x + self.hook_attn_out(mix(self.ln1(x))))
        out: Tensor = self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x))))
        return out


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

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
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
        cfg: its sizes under TransformerLens's names.
        explicit: False (default) for fused kernels; True to compute attention scores, patterns and norm scales through
            their taps. Both give the same logits within 1e-5.
    """

    def __init__(
        self, architecture: Architecture, *, vocab_size: int, context: int, heads: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        width = architecture.width
        self.cfg = _config(architecture, vocab_size, context)
        self.embed = Embed(vocab_size, width)
        self.hook_embed = Tap()
        self.learned_positions = architecture.positions == "learned"
        if self.learned_positions:
            self.pos_embed = PosEmbed(context, width)
            self.hook_pos_embed = Tap()
        self.blocks = nn.ModuleList(TransformerBlock(block, architecture, context) for block in architecture.blocks)
        self.ln_final = Norm(architecture.norm, width)
        self.unembed: Unembed | TiedUnembed = (
            TiedUnembed(self.embed) if architecture.tie_embeddings else Unembed(vocab_size, width)
        )
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
        logits: Tensor = self.unembed(self._final(tokens))
        return logits

    def predict(self, tokens: Int[Tensor, "batch pos"]) -> dict[int, Float[Tensor, "batch pos vocab"]]:
        """Logits of every head; those of head 0 are what calling the model gives."""
        x = self._final(tokens)
        return {0: self.unembed(x)} | {int(head): unembed(x) for head, unembed in self.heads.items()}

    def _final(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the final norm."""
        x = self.hook_embed(self.embed(tokens))
        if self.learned_positions:
            x = x + self.hook_pos_embed(self.pos_embed(tokens))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.ln_final(x)
        return out

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
