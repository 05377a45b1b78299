"""How alike two models' streams are: linear CKA of every layer of one with every layer of the other.

Centered kernel alignment (Kornblith et al. 2019, arXiv 1905.00414) does not see rotations and scales of a stream, so
that it compares models of other widths and other initial weights. The estimator is the debiased one (Song et al. 2012;
Nguyen et al. 2021, arXiv 2010.15327): the usual one calls unrelated streams alike where features are as many as rows.
It works on Gram matrices, so that its cost grows linearly with the width.

Not covered: CKA is dominated by a stream's largest directions, and says nothing about small ones that may matter.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.bench import Bench, Reading, Role

Streams = Float[Tensor, "layer row d_model"]


def linear_cka(parent: Streams, child: Streams) -> Float[Tensor, "child_layer parent_layer"]:
    """Debiased linear CKA of each layer with each: 1 for streams that differ by a rotation and a scale, 0 on average
    for unrelated ones (single values may be slightly negative), 0 for a stream that does not vary.

    Args:
        parent, child: states of both models at the same rows, of which there are at least four.
    """
    theirs, ours = _grams(parent), _grams(child)
    cross = _hsic(ours[:, None], theirs[None])
    own = _hsic(ours, ours)[:, None] * _hsic(theirs, theirs)[None]
    found: Tensor = torch.where(own > 0, cross / own.clamp_min(1e-30).sqrt(), 0.0)
    return found


def _grams(streams: Streams) -> Float[Tensor, "layer row row"]:
    """Gram matrices of centered, unit-size streams in double precision, diagonals removed as the estimator wants."""
    x = streams.double()
    x = x - x.mean(1, keepdim=True)
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None]
    gram: Tensor = x @ x.mT
    return gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))


def _hsic(a: Float[Tensor, "*lead row row"], b: Float[Tensor, "*lead row row"]) -> Float[Tensor, "*lead"]:
    """The unbiased estimator of Song et al. 2012, up to a factor that cancels, of matrices without diagonals."""
    n = a.shape[-1]
    sums, others = a.sum(-1), b.sum(-1)
    total = sums.sum(-1) * others.sum(-1) / ((n - 1) * (n - 2))
    shared = torch.einsum("...rc,...rc->...", a, b)
    result: Tensor = shared + total - 2 / (n - 2) * (sums * others).sum(-1)
    return result


def paired_states(parent: Bench, child: Bench, role: Role, limit: int, seed: int) -> tuple[Streams, Streams]:
    """States of both models at the same positions of the same sequences, plain and halted, of every family.

    Positions past the shorter context are left out; at most ``limit`` are drawn, without replacement.
    """
    context = min(parent.context, child.context)
    reads: list[Callable[[Bench, str], Reading]] = [
        lambda bench, family: bench.task(role, family),
        lambda bench, family: bench.halted(role, family),
    ]
    places = [(read, family) for family in child.suite.families for read in reads]
    counts = [len(read(child, family).tokens) * context for read, family in places]
    chosen = np.sort(np.random.default_rng(seed).permutation(sum(counts))[:limit])
    first, ours, theirs = 0, [], []
    for (read, family), count in zip(places, counts, strict=True):
        mine = torch.from_numpy(chosen[(chosen >= first) & (chosen < first + count)] - first)
        row, pos = mine // context, mine % context
        theirs.append(read(parent, family).residual[:, row, pos].cpu())
        ours.append(read(child, family).residual[:, row, pos].cpu())
        first += count
    return torch.cat(theirs, 1), torch.cat(ours, 1)
