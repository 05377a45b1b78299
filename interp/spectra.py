"""Fourier spectra of modular tasks: which frequencies a network adds by (Nanda et al. 2023, arXiv 2301.05217).

A network that adds modulo ``p`` can turn each number into an angle, ``cos(2 pi k a / p)`` and ``sin(2 pi k a / p)`` at
a few key frequencies ``k``, and add angles. Then the embedding's spectrum over the numbers has a few high lines, and
so have the logits, as a function of the sum; nothing else in the logits is needed.

Not covered: which neurons carry a frequency, and frequencies that show in no embedding because a mixer makes them.
TransformerLens is not needed here, so that a training may measure itself on a machine that does not have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.plotting import axes
from interp.verdict import NotApplicable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

SMALLEST_MODULUS = 5  # below it there is one frequency, which stands out of nothing
SHUFFLES = 199
LEVEL = 0.02  # share of shuffles that may reach a key frequency's
ROUNDING = 1e-12  # of the squares of equal rows, which is left when their mean is subtracted
DROPPED = 1e-6  # of the variance, in channels that are left out


@dataclass(frozen=True)
class Spectrum:
    """Power by frequency of a function of the numbers modulo ``modulus``.

    Attributes:
        what: what was transformed, for titles.
        modulus: how many numbers there are.
        share: of the variance, by frequency 1, 2, ... ``modulus // 2``. Of an embedding they add up to 1, of logits to
            the share that depends on the sum alone.
        bar: what the largest share of any frequency stays below in all but `LEVEL` of `SHUFFLES` random orders of the
            numbers.
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
        ax = axes(ax, title=title, x="frequency (cycles per modulus)", y="share of the variance")
        ax.bar(range(1, len(self.share) + 1), self.share, label="share of the variance")
        ax.axhline(self.bar, color="black", linestyle="--", label="what shuffled numbers reach")
        ax.legend()
        return ax


def spectrum(rows: Float[Tensor, "number channel"], what: str = "embedding") -> Spectrum:
    """Spectrum of ``rows`` along the numbers, summed over the channels, and its key frequencies.

    A frequency is key if its share of the variance is above what the largest share reaches when the same rows are
    dealt to the numbers at random: a permutation test, whatever the modulus is and however the channels depend on each
    other. Few numbers have few orders: modulo 7, a frequency stands out only where it is the only one.

    Raises:
        NotApplicable: a modulus below `SMALLEST_MODULUS`, or rows that are all alike.
    """
    rows = _centered(rows.detach().double(), "embedding")
    chances = torch.stack([powers(rows[order]).max() for order in _orders(len(rows), rows.device)])
    return _spectrum(what, len(rows), powers(rows), chances, float(rows.square().sum()))


def sum_spectrum(logits: Float[Tensor, "*numbers answer"]) -> Spectrum:
    """Spectrum of the logits as a function of the sum, as shares of their variance over all problems.

    Logits are centered over the answers. Key frequencies are found as in `spectrum`, but that the numbers are shuffled
    before they are added: what is no function of their sum must not stand out.

    Raises:
        NotApplicable: a modulus below `SMALLEST_MODULUS`, or logits that are the same for all problems.
    """
    modulus, terms = logits.shape[0], logits.ndim - 1
    flat = logits.double().flatten(0, -2)
    rows = _centered(flat - flat.mean(-1, keepdim=True), "logits")
    numbers = torch.cartesian_prod(*[torch.arange(modulus, device=rows.device)] * terms).view(-1, terms)
    numbers = numbers[sums(modulus, terms, rows.device).flatten().argsort(stable=True)]
    place = modulus ** torch.arange(terms - 1, -1, -1, device=rows.device)

    def of_sum(order: Int[Tensor, " number"]) -> Float[Tensor, " frequency"]:
        shuffled = rows[(order[numbers] * place).sum(1)]
        by_the_sum = rearrange(shuffled, "(sum problem) channel -> sum problem channel", sum=modulus).mean(1)
        return powers(by_the_sum) * float(modulus ** (terms - 1))

    own = of_sum(torch.arange(modulus, device=rows.device))
    chances = torch.stack([of_sum(order).max() for order in _orders(modulus, rows.device)])
    return _spectrum("logits", modulus, own, chances, float(rows.square().sum()))


def _spectrum(
    what: str, modulus: int, own: Float[Tensor, " frequency"], chances: Float[Tensor, " shuffle"], total: float
) -> Spectrum:
    """Shares of ``total`` of the powers found, beside the largest ones of the shuffles."""
    if modulus < SMALLEST_MODULUS:
        raise NotApplicable("Fourier spectrum", f"modulus {modulus}", f"at least {SMALLEST_MODULUS}")
    bar = float(chances.quantile(1 - LEVEL, interpolation="higher"))
    return Spectrum(what, modulus, tuple((own / total).tolist()), bar / total, gini(own.sqrt()))


def _orders(modulus: int, device: torch.device) -> Iterator[Int[Tensor, " number"]]:
    """The shuffles, always the same."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(SHUFFLES):
        yield torch.randperm(modulus, generator=generator).to(device)


def _centered(rows: Float[Tensor, "row channel"], what: str) -> Float[Tensor, "row channel"]:
    """Rows without their mean, in their principal axes, of which those with next to no variance are left out.

    Raises:
        NotApplicable: rows that are all alike.
    """
    around = rows - rows.mean(0)
    variance, axis = torch.linalg.eigh(around.T @ around)
    if not variance.sum() > ROUNDING * rows.square().sum():
        raise NotApplicable("Fourier spectrum", f"{what} all alike", "numbers that the network tells apart")
    kept: Tensor = around @ axis[:, variance.cumsum(0) > DROPPED * variance.sum()]
    return kept


def powers(rows: Float[Tensor, "number channel"]) -> Float[Tensor, " frequency"]:
    """Sum of squares at each frequency from 1 on, over numbers and channels; without the constant term it is all."""
    power: Tensor = torch.fft.rfft(rows, dim=0).abs().square().sum(1)[1:] * (2 / len(rows))
    if len(rows) % 2 == 0:
        power[-1] /= 2  # a cosine alone; all others stand for themselves and their conjugate
    return power


def gini(values: Float[Tensor, " n"]) -> float:
    """Gini coefficient of numbers that are not negative: 0 if all are equal, ``1 - 1/n`` if all but one are 0."""
    ordered = values.double().sort().values
    n = len(ordered)
    weight = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=ordered.device) - n - 1
    return float((weight * ordered).sum() / (n * ordered.sum()))


def by_sum(logits: Float[Tensor, "*numbers answer"]) -> Float[Tensor, "modulus answer"]:
    """Mean of the logits over all problems with the same sum, by that sum."""
    modulus = logits.shape[0]
    order = sums(modulus, logits.ndim - 1, logits.device).flatten().argsort(stable=True)
    return rearrange(logits.flatten(0, -2)[order], "(sum problem) answer -> sum problem answer", sum=modulus).mean(1)


def of_frequencies(
    logits: Float[Tensor, "*numbers answer"], frequencies: Sequence[int]
) -> Float[Tensor, "*numbers answer"]:
    """The part of the logits along ``cos(w (a + b))`` and ``sin(w (a + b))``, ``w = 2 pi k / p``, for each ``k``.

    Two directions a frequency in the 2D Fourier basis over ``(a, b)``, as the paper's code projects them; likewise for
    more terms.
    """
    modulus = logits.shape[0]
    transformed = torch.fft.rfft(by_sum(logits), dim=0)
    kept = torch.zeros_like(transformed)
    chosen = list(frequencies)
    kept[chosen] = transformed[chosen]
    part: Tensor = torch.fft.irfft(kept, n=modulus, dim=0)[sums(modulus, logits.ndim - 1, logits.device)]
    return part


def sums(modulus: int, terms: int = 2, device: torch.device | str = "cpu") -> Int[Tensor, "*numbers"]:
    """The sum of every problem, modulo ``modulus``; one axis a term."""
    number = torch.arange(modulus, device=device)
    total = number
    for _ in range(terms - 1):
        total = (total[..., None] + number) % modulus
    return total


def nats(logits: Float[Tensor, "*numbers answer"]) -> Float[Tensor, "*numbers"]:
    """Cross-entropy of the right answer to every problem."""
    right = sums(logits.shape[0], logits.ndim - 1, logits.device)
    return -logits.log_softmax(-1).gather(-1, right[..., None])[..., 0]


@dataclass(frozen=True)
class Progress:
    """How much of what a network computes is addition by some frequencies: the paper's progress measures.

    Attributes:
        frequencies: those that are kept or removed.
        losses: mean cross-entropy over the ``p`` answers, in nats, from logits in float64, by ``<logits>_<problems>``.
            Logits: ``full`` as they are; ``restricted`` to the part of these frequencies and the constant part;
            ``excluded``, all but the part of these frequencies. Problems: ``all``, and where it is known which ones
            were trained on ``train`` and ``test``. The paper's excluded loss is ``excluded_train``.
        explained: the frequencies' share of the variance of the logits over the problems, logits centered over the
            answers.
    """

    frequencies: tuple[int, ...]
    losses: Mapping[str, float]
    explained: float

    def to_pandas(self) -> DataFrame:
        """One row a loss: ``logits, problems, nats``."""
        from pandas import DataFrame

        rows = [(*name.split("_"), nats) for name, nats in self.losses.items()]
        return DataFrame(rows, columns=["logits", "problems", "nats"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """A bar a loss, on a logarithmic axis."""
        named = ", ".join(map(str, self.frequencies)) or "none"
        title = f"Losses with only and without some frequencies ({named})"
        ax = axes(ax, title=title, x="logits and problems", y="cross-entropy (nats)")
        ax.bar([name.replace("_", "\n") for name in self.losses], list(self.losses.values()))
        ax.set_yscale("log")
        return ax


def progress(
    logits: Float[Tensor, "*numbers answer"],
    frequencies: Sequence[int],
    trained: Bool[Tensor, "*numbers"] | None = None,
) -> Progress:
    """Losses of modular addition with only, and without, the given frequencies.

    Args:
        logits: of the answers 0 to ``p - 1``, for every problem, one axis a term.
        frequencies: from 1 to ``p // 2``.
        trained: which problems were trained on, where that is known and not all.
    """
    logits = logits.double()
    mean, part = logits.flatten(0, -2).mean(0), of_frequencies(logits, frequencies)
    by_logits = {"full": nats(logits), "restricted": nats(part + mean), "excluded": nats(logits - part)}
    problems: dict[str, Any] = {"all": ...} if trained is None else {"all": ..., "train": trained, "test": ~trained}
    losses = {
        f"{name}_{which}": float(loss[of].mean()) for which, of in problems.items() for name, loss in by_logits.items()
    }
    return Progress(tuple(frequencies), losses, _variance(part) / _variance(logits - mean))


def _variance(logits: Float[Tensor, "*numbers answer"]) -> float:
    return float((logits - logits.mean(-1, keepdim=True)).square().mean())
