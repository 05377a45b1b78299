"""Which keys the queries of a head of each kind attend to, and token sequences that tell the kinds apart.

Definitions are those of ``transformer_lens.head_detector``, for batches.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.verdict import NotApplicable
from selfimprove.tasks.batch import CONTENT, PAD

PREVIOUS, DUPLICATE, INDUCTION, ANSWER = "previous_token", "duplicate_token", "induction", "answer"
LEAST_TOKENS = 4  # different ones in a repeated segment: with fewer, the kinds' keys fall together

Keys = Bool[Tensor, "batch query key"]


def previous_token(tokens: Int[Tensor, "batch pos"]) -> Keys:
    """Keys of a previous-token head."""
    n = tokens.shape[1]
    return torch.eye(n, dtype=torch.bool, device=tokens.device).roll(-1, 1).tril(-1).expand(len(tokens), n, n)


def duplicate_token(tokens: Int[Tensor, "batch pos"]) -> Keys:
    """Keys of a duplicate-token head."""
    return (tokens[:, :, None] == tokens[:, None, :]).tril(-1)


def induction(tokens: Int[Tensor, "batch pos"]) -> Keys:
    """Keys of an induction head: one after those of a duplicate-token head, the query itself included."""
    shifted = torch.zeros_like(duplicate_token(tokens))
    shifted[:, :, 1:] = duplicate_token(tokens)[:, :, :-1]
    return shifted


def answer(source: Int[Tensor, "batch pos"]) -> Keys:
    """Keys of a head that looks at the answer: ``source``, where there is one."""
    place = torch.arange(source.shape[1], device=source.device)
    return source[:, :, None] == place  # `UNSCORED` is no position


KINDS = {PREVIOUS: previous_token, DUPLICATE: duplicate_token, INDUCTION: induction}


def repeated_tokens(
    vocab_size: int, length: int, count: int, *, seed: int, first: int = PAD
) -> Int[Tensor, "count length"]:
    """Sequences of ``first`` and a segment of different random content tokens, over and over.

    Each segment's length is drawn anew, between a quarter and a half of the sequence (or of the vocabulary, where it
    has fewer content tokens): with one length for all, a head that always looks the same distance back would pass for
    an induction head.

    Raises:
        NotApplicable: too short, or too small a vocabulary, for segments of `LEAST_TOKENS`.
    """
    low = CONTENT if vocab_size >= CONTENT + LEAST_TOKENS else 0
    most = min((length - 1) // 2, vocab_size - low)
    if most < LEAST_TOKENS:
        raise NotApplicable(
            "repeat random tokens", f"{most} different ones", f"at least {LEAST_TOKENS}, twice in a sequence"
        )
    generator = torch.Generator().manual_seed(seed)
    segment = low + torch.rand(count, vocab_size - low, generator=generator).argsort(1)
    sizes = torch.randint(max(LEAST_TOKENS, -(-most // 2)), most + 1, (count, 1), generator=generator)
    again = segment.gather(1, torch.arange(length - 1) % sizes)
    return torch.cat((torch.full((count, 1), first), again), 1)
