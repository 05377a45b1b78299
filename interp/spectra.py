"""Fourier spectra of modular tasks: which frequencies a network adds by (Nanda et al. 2023, arXiv 2301.05217).

A network that adds modulo ``p`` can turn each number into an angle, ``cos(2 pi k a / p)`` and ``sin(2 pi k a / p)`` at
a few key frequencies ``k``, and add angles. Then the embedding's spectrum over the numbers has a few high lines, and
so have the logits, as a function of the sum; nothing else in the logits is needed.

Not covered: which neurons carry a frequency, and frequencies that show in no embedding because a mixer makes them.
TransformerLens is not needed here, so that a training may measure itself on a machine that does not have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.plotting import axes
from interp.verdict import NotApplicable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SMALLEST_MODULUS = 5  # below it there is one frequency, which stands out of nothing
SHUFFLES = 199
ROUNDING = 1e-12  # of the power of equal rows, which the transform leaves at other frequencies


@dataclass(frozen=True)
class Spectrum:
    """Power by frequency of a function of the numbers modulo ``modulus``.

    Attributes:
        what: what was transformed, for titles.
        modulus: how many numbers there are.
        share: of the power without the constant term, by frequency 1, 2, ... ``modulus // 2``; sums to 1.
        bar: largest share of any frequency that was found among `SHUFFLES` shuffles of the numbers.
        gini: Gini coefficient of the frequencies' amplitudes: 0 if all are equal, near 1 for a single line of many.
    """

    what: str
    modulus: int
    share: tuple[float, ...]
    bar: float
    gini: float

    @property
    def key(self) -> tuple[int, ...]:
        """Key frequencies, in order: those whose share is above ``bar``."""
        return tuple(k for k, share in enumerate(self.share, 1) if share > self.bar)

    def to_pandas(self) -> DataFrame:
        """One row a frequency: ``frequency, share, key``."""
        from pandas import DataFrame

        frequency = range(1, len(self.share) + 1)
        return DataFrame({"frequency": frequency, "share": self.share, "key": [k in self.key for k in frequency]})

    def plot(self, ax: Axes | None = None) -> Axes:
        """A bar a frequency, and the line that a key frequency lies above."""
        title = f"Fourier spectrum of the {self.what}, modulus {self.modulus}"
        ax = axes(ax, title=title, x="frequency (cycles per modulus)", y="share of power")
        ax.bar(range(1, len(self.share) + 1), self.share, label="share of power")
        ax.axhline(self.bar, color="black", linestyle="--", label="most that a shuffle reaches")
        ax.legend()
        return ax


def spectrum(rows: Float[Tensor, "number channel"], what: str = "embedding") -> Spectrum:
    """Spectrum of ``rows`` along the numbers, summed over the channels, and its key frequencies.

    A frequency is key if its share of the power exceeds every share of every frequency in `SHUFFLES` random orders of
    the same rows: a permutation test at a level of half a percent for the whole spectrum, whatever the modulus is and
    however the channels depend on each other. Below modulus 7 shuffles hit upon the numbers' own order too often for
    anything to stand out. The shuffles are always the same.

    Raises:
        NotApplicable: a modulus below `SMALLEST_MODULUS`, or rows that are all alike.
    """
    rows = rows.detach().double().cpu()
    modulus = len(rows)
    if modulus < SMALLEST_MODULUS:
        raise NotApplicable("Fourier spectrum", f"modulus {modulus}", f"at least {SMALLEST_MODULUS}")
    power = powers(rows)
    if not power.sum() > ROUNDING * rows.square().sum():
        raise NotApplicable("Fourier spectrum", "rows that are all alike", "numbers that the network tells apart")
    if rows.shape[1] > modulus:  # as many channels hold the same products of rows
        basis, scale, _ = torch.linalg.svd(rows, full_matrices=False)
        rows = basis * scale
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.randperm(modulus, generator=generator) for _ in range(SHUFFLES)])
    bar = powers(rows[orders]).amax() / power.sum()
    share = power / power.sum()
    return Spectrum(what, modulus, tuple(share.tolist()), float(bar), gini(share.sqrt()))


def powers(rows: Float[Tensor, "*set number channel"]) -> Float[Tensor, "*set frequency"]:
    """Power at the frequencies from 1 on, summed over channels; the constant term is left out."""
    power: Tensor = torch.fft.rfft(rows, dim=-2).abs().square().sum(-1)[..., 1:]
    if rows.shape[-2] % 2 == 0:
        power[..., -1] /= 2  # a cosine alone; all others stand for themselves and their conjugate
    return power


def gini(values: Float[Tensor, " n"]) -> float:
    """Gini coefficient of numbers that are not negative: 0 if all are equal, ``1 - 1/n`` if all but one are 0."""
    ordered = values.double().sort().values
    n = len(ordered)
    weight = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=ordered.device) - n - 1
    return float((weight * ordered).sum() / (n * ordered.sum()))


def by_sum(logits: Float[Tensor, "p p answer"]) -> Float[Tensor, "p answer"]:
    """Mean of ``logits[a, b]`` over the pairs with the same ``(a + b) mod p``, by that sum."""
    number = torch.arange(logits.shape[0], device=logits.device)
    return logits[number[None], (number[:, None] - number[None]) % len(number)].mean(1)


def of_frequencies(logits: Float[Tensor, "p p answer"], frequencies: Sequence[int]) -> Float[Tensor, "p p answer"]:
    """The part of the logits along ``cos(w (a + b))`` and ``sin(w (a + b))``, ``w = 2 pi k / p``, for each ``k``.

    Two directions a frequency in the 2D Fourier basis over ``(a, b)``, as the paper's code projects them.
    """
    p = logits.shape[0]
    transformed = torch.fft.rfft(by_sum(logits), dim=0)
    kept = torch.zeros_like(transformed)
    chosen = list(frequencies)
    kept[chosen] = transformed[chosen]
    back: Tensor = torch.fft.irfft(kept, n=p, dim=0)[sums(p, logits.device)]
    return back


@dataclass(frozen=True)
class Progress:
    """How much of what a network computes is addition by key frequencies: the paper's progress measures, in nats.

    Cross-entropies are over the ``p`` answers, in float64. Restricted: only the key frequencies' part of the logits
    and the constant one are kept. Excluded: the key frequencies' part is removed, everything else kept.

    Attributes:
        key: the frequencies.
        full_train, full_test, full_all: loss of the logits as they are, over both parts of the pairs and all.
        restricted_train, restricted_test, restricted_all: the same, restricted.
        excluded_train: loss on the training pairs, excluded.
        explained: the key frequencies' share of the logits' variance over the pairs, logits centered over the answers.
    """

    key: tuple[int, ...]
    full_train: float
    full_test: float
    full_all: float
    restricted_train: float
    restricted_test: float
    restricted_all: float
    excluded_train: float
    explained: float

    def to_pandas(self) -> DataFrame:
        """One row a loss: ``logits, pairs, nats``."""
        from pandas import DataFrame

        names = [name for name in vars(self) if name.startswith(("full", "restricted", "excluded"))]
        rows = [(*name.split("_"), getattr(self, name)) for name in names]
        return DataFrame(rows, columns=["logits", "pairs", "nats"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """A bar a loss, on a logarithmic axis."""
        table = self.to_pandas()
        title = f"Losses with and without the frequencies {', '.join(map(str, self.key))}"
        ax = axes(ax, title=title, x="logits and pairs", y="cross-entropy (nats)")
        ax.bar([f"{row.logits}\n{row.pairs}" for row in table.itertuples()], table.nats)
        ax.set_yscale("log")
        return ax


def progress(logits: Float[Tensor, "p p answer"], trained: Bool[Tensor, "p p"], frequencies: Sequence[int]) -> Progress:
    """Losses of modular addition with only, and without, the given frequencies.

    Args:
        logits: of the answers 0 to ``p - 1``, for every pair ``(a, b)``.
        trained: which pairs were trained on.
        frequencies: key frequencies, from 1 to ``p // 2``.
    """
    logits = logits.double()
    mean, key = logits.mean((0, 1)), of_frequencies(logits, frequencies)
    restricted = nats(key + mean)
    full, excluded = nats(logits), nats(logits - key)
    around = logits - mean
    around = around - around.mean(-1, keepdim=True)
    inside = key - key.mean(-1, keepdim=True)

    def of(loss: Tensor, pairs: Tensor | None = None) -> float:
        return float((loss if pairs is None else loss[pairs]).mean())

    return Progress(
        tuple(frequencies),
        of(full, trained),
        of(full, ~trained),
        of(full),
        of(restricted, trained),
        of(restricted, ~trained),
        of(restricted),
        of(excluded, trained),
        explained=float(inside.square().sum() / around.square().sum()),
    )


def nats(logits: Float[Tensor, "p p answer"]) -> Float[Tensor, "p p"]:
    """Cross-entropy of the sum at every pair."""
    return -logits.log_softmax(-1).gather(-1, sums(logits.shape[0], logits.device)[..., None])[..., 0]


def sums(modulus: int, device: torch.device | str = "cpu") -> Int[Tensor, "p p"]:
    """``(a + b) mod p`` of every pair."""
    number = torch.arange(modulus, device=device)
    return (number[:, None] + number[None]) % modulus
