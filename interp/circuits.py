"""Attention heads of known kinds: previous-token, duplicate-token and induction heads, heads that look at the answer.

A kind says which keys a query should attend to. With the definitions of TransformerLens's ``head_detector`` (after
Olsson et al. 2022, arXiv 2209.11895):

- ``previous_token``: the position before the query;
- ``duplicate_token``: earlier positions with the query's token;
- ``induction``: the positions after those;
- ``answer``: the one position that a task's answer can be read from, by the task's own account (``Batch.source``).

A score is the mean attention on these keys over the queries that have any, which for ``induction`` on repeated random
tokens is the prefix-matching score of Olsson et al. TransformerLens averages over all queries instead. The
first three kinds are read on random tokens in repeated order, where no statistics of a task help; the last one on the
task.

Not covered: what a head does with what it sees (its OV circuit; see `interp.ablation` and `interp.patching`). A
convolution or a token shift under the keys moves a token's information ahead, so that a head may serve a purpose while
it looks one or two positions beside the keys named here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import plotting
from interp.attention_keys import ANSWER, KINDS, Keys, answer, repeated_tokens
from interp.bench import Bench
from interp.hooked import HookedModel
from interp.verdict import NotApplicable, Unreadable
from selfimprove.seeds import derive
from selfimprove.tasks.batch import PAD, TAGS, UNSCORED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

THRESHOLD = 0.5
"""A head is of a kind from this excess on: half the way from even attention (0) to all of it on the kind's keys (1)."""
SEQUENCES = 48  # of repeated random tokens
MAX_ELEMENTS = 2**23  # of attention patterns held at once: 32 MiB


@dataclass(frozen=True)
class HeadScores:
    """How much each head attends to the keys of each kind.

    Attributes:
        heads: ``L<layer>H<head>`` of each head with a softmax pattern, in order.
        patterns: the kinds; ``answer/<family>`` for the answers of one family.
        scores: mean attention on the kind's keys, from 0 to 1, ``[head][pattern]``.
        even: the same for a head that attends evenly to all that it can see: what a score is compared with.
        queries: how many queries a kind's column is a mean over.
        left_out: layers without a row, ``L<layer>``, and why.
    """

    heads: tuple[str, ...]
    patterns: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    even: tuple[tuple[float, ...], ...]
    queries: tuple[int, ...]
    left_out: Mapping[str, str]

    def of(self, pattern: str) -> dict[str, float]:
        """Scores of one kind by head."""
        column = self.patterns.index(pattern)
        return {head: row[column] for head, row in zip(self.heads, self.scores, strict=True)}

    def excess(self, pattern: str) -> dict[str, float]:
        """Score by head on a scale from even attention (0) to all attention on the kind's keys (1)."""
        column = self.patterns.index(pattern)
        rows = zip(self.heads, self.scores, self.even, strict=True)
        return {head: (own[column] - even[column]) / max(1 - even[column], 1e-9) for head, own, even in rows}

    def kinds(self, threshold: float = THRESHOLD) -> dict[str, tuple[str, ...]]:
        """Heads by kind: those whose excess is at least ``threshold``. A head may be of several kinds, or of none."""
        return {
            pattern: tuple(head for head, value in self.excess(pattern).items() if value >= threshold)
            for pattern in self.patterns
        }

    def beside(self, other: HeadScores) -> HeadScores:
        """The kinds of both, of the same model's heads.

        Raises:
            ValueError: other heads.
        """
        if self.heads != other.heads:
            raise ValueError(f"heads differ: {self.heads} and {other.heads}")
        return replace(
            self,
            patterns=self.patterns + other.patterns,
            scores=tuple(a + b for a, b in zip(self.scores, other.scores, strict=True)),
            even=tuple(a + b for a, b in zip(self.even, other.even, strict=True)),
            queries=self.queries + other.queries,
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row a head and kind: ``head, pattern, score, even, excess, queries``."""
        import pandas as pd

        rows = [
            {
                "head": head,
                "pattern": pattern,
                "score": self.scores[i][j],
                "even": self.even[i][j],
                "excess": self.excess(pattern)[head],
                "queries": self.queries[j],
            }
            for i, head in enumerate(self.heads)
            for j, pattern in enumerate(self.patterns)
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Heads by kinds, in colors."""
        return plotting.heat_map(
            ax,
            self.scores,
            rows=self.heads,
            columns=self.patterns,
            title="What heads attend to",
            x="kind of key",
            y="head",
            unit="mean attention (share)",
            limits=(0.0, 1.0),
        )


def left_out(model: HookedModel) -> dict[str, str]:
    """Layers without a softmax pattern, ``L<layer>``, and what they have instead."""
    found = {}
    block: Any
    for layer, block in enumerate(model.blocks):
        if not block.has_attention:
            found[f"L{layer}"] = "a short convolution has no heads" if block.has_mixer else "no token mixer"
        elif block.attn.linear:
            found[f"L{layer}"] = "linear attention has no softmax pattern"
    return found


def score_heads(model: HookedModel, tokens: Int[Tensor, "batch pos"], keys: Mapping[str, Keys]) -> HeadScores:
    """Mean attention of every head on the keys of each kind, over the queries that have any.

    Args:
        model: the hooked model.
        tokens: what it reads.
        keys: kind -> which keys count for which query of which sequence.

    Raises:
        NotApplicable: no head has a softmax pattern, or a kind no keys.
        Unreadable: attention that is not finite.
    """
    wanted = torch.stack(list(keys.values())).to(model.W_E.device)
    queries = wanted.any(-1).sum((1, 2))
    for name, count in zip(keys, queries.tolist(), strict=True):
        if not count:
            raise NotApplicable(f"score heads by {name}", 0, "at least one query that has such keys")
    total = {layer: torch.zeros((), device=wanted.device) for layer in softmax_layers(model)}
    for rows, layer, pattern in _attention(model, tokens):
        total[layer] = total[layer] + torch.einsum("nhqk,pnqk->hp", pattern, wanted[:, rows].to(pattern.dtype))
    scores = {layer: (value / queries).tolist() for layer, value in total.items()}
    even = {layer: (_even(model, layer, wanted) / queries).tolist() for layer in scores}
    if not all(torch.isfinite(value).all() for value in total.values()):
        raise Unreadable("score heads", "non-finite attention", "finite numbers")
    return HeadScores(
        heads=tuple(f"L{layer}H{head}" for layer, rows in scores.items() for head in range(len(rows))),
        patterns=tuple(keys),
        scores=tuple(tuple(row) for rows in scores.values() for row in rows),
        even=tuple(tuple(even[layer]) for layer, rows in scores.items() for _ in rows),
        queries=tuple(queries.tolist()),
        left_out=left_out(model),
    )


def softmax_layers(model: HookedModel) -> tuple[int, ...]:
    """Layers whose heads have a softmax pattern."""
    out = left_out(model)
    return tuple(layer for layer in range(model.cfg.n_layers) if f"L{layer}" not in out)


def _attention(
    model: HookedModel, tokens: Int[Tensor, "batch pos"]
) -> Iterator[tuple[slice, int, Float[Tensor, "batch head query key"]]]:
    """Patterns by layer, a few sequences at a time."""
    layers = softmax_layers(model)
    if not layers:
        raise NotApplicable("attention heads", f"{model.cfg.n_layers} blocks", "a block with softmax attention")
    names = {f"blocks.{layer}.attn.hook_pattern": layer for layer in layers}
    heads = sum(model.get_parameter(f"blocks.{layer}.attn.W_O").shape[0] for layer in layers)
    step = max(1, MAX_ELEMENTS // (heads * tokens.shape[1] ** 2))
    for start in range(0, len(tokens), step):
        rows = slice(start, start + step)
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens[rows].to(model.W_E.device), names_filter=list(names))
        for name, layer in names.items():
            yield rows, layer, cache[name]


def _even(model: HookedModel, layer: int, wanted: Bool[Tensor, "pattern batch query key"]) -> Float[Tensor, " pattern"]:
    """Summed over queries: the attention on the wanted keys of a head that attends evenly to all it can see."""
    n = wanted.shape[-1]
    seen = torch.isfinite(model.get_buffer(f"blocks.{layer}.attn.bias")[0, :n, :n]).float()
    return torch.einsum("qk,pqk->p", seen / seen.sum(-1, keepdim=True), wanted.sum(1).float())


def repeated_scores(model: HookedModel, tokens: Int[Tensor, "batch pos"]) -> HeadScores:
    """The first three kinds, on tokens that `repeated_tokens` made."""
    return score_heads(model, tokens, {kind: keys(tokens) for kind, keys in KINDS.items()})


def answer_scores(bench: Bench, family: str) -> HeadScores:
    """Attention from each scored position of a family to the place that its answer can be read from.

    Raises:
        NotApplicable: the family knows no such places.
    """
    reading = bench.task("test", family)
    if reading.source is None:
        raise NotApplicable(f"answer heads on {family}", "no source", "a family that says where its answers stand")
    source = torch.where(reading.targets != UNSCORED, reading.source, UNSCORED)
    return score_heads(bench.hooked, reading.tokens, {f"{ANSWER}/{family}": answer(source)})


def bench_scores(bench: Bench) -> HeadScores:
    """All kinds for the model on the bench: the first three on repeated tokens, ``answer`` on each family that has it.

    Repeated tokens stand after the tag of the suite's first family, as the model is used to. Computed once for a bench.

    Raises:
        NotApplicable: no head has a softmax pattern, or sequences too short to repeat anything.
    """
    return bench.once(("attention heads",), lambda: _bench_scores(bench))


def bench_tokens(bench: Bench) -> Int[Tensor, "batch pos"]:
    """The repeated tokens that the model on the bench is read on."""
    first = next((TAGS[family] for family in bench.suite.families if family in TAGS), PAD)
    vocab, seed = bench.model.cfg.d_vocab, derive(bench.plan.test, "repeated tokens")
    return repeated_tokens(vocab, bench.context, SEQUENCES, seed=seed, first=first)


def _bench_scores(bench: Bench) -> HeadScores:
    scores = repeated_scores(bench.hooked, bench_tokens(bench))
    for family in bench.suite.families:
        try:
            scores = scores.beside(answer_scores(bench, family))
        except NotApplicable:  # a column less: the rest is read all the same
            continue
    return scores


def attention_heads(bench: Bench) -> dict[str, Any]:
    """Instrument: scores by head and kind, and which heads are of which kind."""
    scores = bench_scores(bench)
    return {
        "attention_heads": {
            "scores": {pattern: scores.of(pattern) for pattern in scores.patterns},
            "excess": {pattern: scores.excess(pattern) for pattern in scores.patterns},
            "kinds": scores.kinds(),
            "threshold": THRESHOLD,
            "queries": dict(zip(scores.patterns, scores.queries, strict=True)),
            "left_out": dict(scores.left_out),
        }
    }
