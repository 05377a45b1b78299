"""Direct logit attribution: which parts write the right answer's logit into the stream (Elhage et al. 2021).

The final stream is the sum of what the embeddings, each head or other token mixer, each channel mixer and whatever
joins later wrote to it; through the final norm, its scale held, the right token's logit is the sum of their shares.
Read through TransformerLens's ``ActivationCache`` (``decompose_resid``, ``stack_head_results``, ``apply_ln_to_stack``)
as `interp.cache.LayerwiseCache` makes it follow each layer's own parts.

The shares leave out one constant a token, the final norm's bias through the unembedding, and they are of the logits
before a soft cap. Not covered: what a part does through later parts, and that the norm's scale depends on all of them.
With norms after the additions the stream is no sum, and the instrument does not apply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import plotting
from interp.bench import Bench
from interp.cache import LayerwiseCache
from interp.components import components
from interp.hooked import HookedModel
from interp.verdict import NotApplicable, Unreadable
from selfimprove.tasks.batch import UNSCORED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

WRITES = 0.25
"""Share of the margin from which on a part counts as one that writes the answer."""
MIN_MARGIN = 1.0  # logits
MAX_ELEMENTS = 2**23  # of a stack of parts held at once: 32 MiB


@dataclass(frozen=True)
class Attribution:
    """Each part's share of the right answers' logits, averaged over one family's scored positions.

    Attributes:
        family: the task family.
        labels: the parts: ``embed``, ``pos_embed``, ``L0 embed`` and ``L0 skip`` for what joins at the entry of a
            block, ``L0H1``, ``L0 convolution``, ``L0 mlp``, and ``L0 norm`` for the bias of a norm after attention,
            which no head writes.
        logit: share of the right token's logit.
        margin: share of the right token's logit over the mean logit of all tokens: what counts for the softmax.
        constant: of ``logit`` and ``margin``: what no part writes, so that the shares and it sum to the logit (margin).
        n: scored positions.
    """

    family: str
    labels: tuple[str, ...]
    logit: tuple[float, ...]
    margin: tuple[float, ...]
    constant: tuple[float, float]
    n: int

    def writers(self, threshold: float = WRITES) -> tuple[str, ...]:
        """Parts that write at least ``threshold`` of the margin; none where it is below `MIN_MARGIN`."""
        margin = sum(self.margin) + self.constant[1]
        named = [label for label, share in zip(self.labels, self.margin, strict=True) if share >= threshold * margin]
        return tuple(named) if margin >= MIN_MARGIN else ()

    def to_pandas(self) -> pd.DataFrame:
        """One row a part: ``family, part, logit, margin``."""
        import pandas as pd

        columns = {"family": self.family, "part": self.labels, "logit": self.logit, "margin": self.margin}
        return pd.DataFrame(columns)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Shares of logit and margin by part, in colors."""
        return plotting.heat_map(
            ax,
            list(zip(self.logit, self.margin, strict=True)),
            rows=self.labels,
            columns=("logit", "over the mean logit"),
            title=f"Who writes the answers of {self.family}",
            x="share of the right token's",
            y="part",
            unit="logit",
        )


def written(
    model: HookedModel, cache: LayerwiseCache
) -> tuple[Float[Tensor, "part batch pos d_model"], tuple[str, ...]]:
    """What each part wrote to the final stream, and the parts' labels; heads take the place of their layer's attention.

    Raises:
        NotApplicable: norms after the additions.
    """
    stack, names = cache.decompose_resid(return_labels=True)  # type: ignore[no-untyped-call]
    heads: dict[int, list[tuple[str, Tensor]]] = {}
    if model.attending:
        results, labels = cache.stack_head_results(return_labels=True)  # type: ignore[no-untyped-call]
        for label, row in zip(labels, results, strict=True):
            heads.setdefault(int(label[1 : label.index("H")]), []).append((label, row))
    rows: list[tuple[str, Tensor]] = []
    for name, row in zip(names, stack, strict=True):
        layer, _, part = name.partition("_")
        if not layer.isdigit():
            rows.append((name, row))
        elif part == "attn_out" and int(layer) in heads:
            own = heads[int(layer)]
            rows += own
            rest = row - torch.stack([result for _, result in own]).sum(0)
            if _has_bias_after(model, int(layer)):
                rows.append((f"L{layer} norm", rest))
        else:
            rows.append((f"L{layer} {_PARTS[part]}", row))
    return torch.stack([row for _, row in rows]), tuple(label for label, _ in rows)


_PARTS = {"attn_out": "convolution", "mlp_out": "mlp", "embed_out": "embed", "skip_out": "skip"}


def _has_bias_after(model: HookedModel, layer: int) -> bool:
    """Whether a norm with a bias stands between the heads of a layer and the stream."""
    block: Any = model.blocks[layer]
    return block.placement == "sandwich" and block.ln1_post.b is not None


def cache_names(name: str) -> bool:
    """Hooks that an attribution reads."""
    return name.endswith(_READ)


_READ = (
    *("hook_embed", "hook_pos_embed", "hook_embed_out", "hook_skip_out", "hook_attn_out", "hook_mlp_out"),
    *("attn.hook_z", "ln1_post.hook_scale", "ln_final.hook_scale"),
)


def attribute(
    model: HookedModel, cache: LayerwiseCache, directions: Float[Tensor, "*kind batch pos d_model"]
) -> tuple[Float[Tensor, "part *kind batch pos"], tuple[str, ...]]:
    """Each part's share of the final stream's projection on ``directions``, and the parts' labels.

    Args:
        model: the hooked model.
        cache: of the hooks in `cache_names`, with its batch axis.
        directions: as ``model.tokens_to_residual_directions`` gives them, with the final norm's gain in them.

    Raises:
        NotApplicable: norms after the additions.
    """
    stack, labels = written(model, cache)
    scaled = cache.apply_ln_to_stack(stack, layer=-1, has_batch_dim=True)
    return torch.einsum("pbtd,...btd->p...bt", scaled, directions), labels


def attribute_family(bench: Bench, family: str) -> Attribution:
    """Attribution of the model on the bench over one family's test sequences, a few sequences at a time.

    Raises:
        NotApplicable: norms after the additions, or no scored position.
        Unreadable: shares that are not finite.
    """
    reading, model = bench.task("test", family), bench.hooked
    tokens, targets = reading.tokens.to(model.W_E.device), reading.targets.to(model.W_E.device)
    scored = targets != UNSCORED
    if not scored.any():
        raise NotApplicable(f"attribution on {family}", 0, "at least one scored position")
    with torch.no_grad():
        average = model.tokens_to_residual_directions(torch.arange(model.cfg.d_vocab)).mean(0)
        total = torch.zeros(())
        labels: tuple[str, ...] = ()
        for rows in _chunks(model, tokens):
            _, cache = model.run_with_cache(tokens[rows], names_filter=cache_names)
            answers = model.tokens_to_residual_directions(targets[rows].clamp(min=0))
            shares, labels = attribute(model, cache, torch.stack((answers, answers - average)))
            total = total + (shares * scored[rows]).double().sum((-2, -1))
        constant = _constant(model, targets[scored])
    if not torch.isfinite(total).all():
        raise Unreadable(f"attribution on {family}", "non-finite shares", "finite numbers")
    n = int(scored.sum())
    logit, margin = (total / n).T.tolist()
    return Attribution(family, labels, tuple(logit), tuple(margin), constant, n)


def _chunks(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> Iterator[slice]:
    parts = len(components(model)) + 2 * model.cfg.n_layers + 2  # at most: with joins and both embeddings
    step = max(1, MAX_ELEMENTS // (parts * tokens.shape[1] * model.cfg.d_model))
    yield from (slice(start, start + step) for start in range(0, len(tokens), step))


def _constant(model: HookedModel, answers: Int[Tensor, " n"]) -> tuple[float, float]:
    """What no part writes, on average over these answers: the final norm's bias through the unembedding."""
    bias = model.ln_final.b
    if bias is None:
        return 0.0, 0.0
    offsets = bias @ model.W_U
    mine = offsets[answers].double().mean()
    return float(mine), float(mine - offsets.double().mean())


def attribution(bench: Bench) -> dict[str, Any]:
    """Instrument: by family, each part's share of the right answers' logits, and of their margin over the mean."""
    results = [attribute_family(bench, family) for family in bench.suite.families]
    return {
        "attribution": {
            r.family: {
                "logit": dict(zip(r.labels, r.logit, strict=True)),
                "margin": dict(zip(r.labels, r.margin, strict=True)),
                "constant": {"logit": r.constant[0], "margin": r.constant[1]},
                "writers": r.writers(),
                "n": r.n,
            }
            for r in results
        }
    }
