"""How a model adds: the spectra of its embedding and of its answers on the suite's modular addition.

Sees the first problem of a sequence, with every combination of numbers. In the suite each term has symbols of its own,
so that there is an embedding a term; answers are the first term's symbols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.spectra import Progress, Spectrum, progress, spectrum, sum_spectrum, sums
from interp.verdict import NotApplicable, Unreadable
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.batch import CONTENT, TAGS
from selfimprove.tasks.families.modular import NAME, Modular
from selfimprove.tasks.suite import TaskSuite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from interp.bench import Bench

CHUNK = 4096  # problems answered at once


@dataclass(frozen=True)
class Layout:
    """Where numbers stand in a model's vocabulary.

    Attributes:
        modulus: numbers, and answers, are 0 to ``modulus - 1``.
        terms: token of the number 0 of each term; the others follow it.
        answer: token of the answer 0.
        before: tokens before the first term.
        after: tokens after the last one.
    """

    modulus: int
    terms: tuple[int, ...]
    answer: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    @property
    def vocab_size(self) -> int:
        """Fewest tokens of a vocabulary that has all of these."""
        return 1 + max(*self.before, *self.after, *(t + self.modulus - 1 for t in (*self.terms, self.answer)))


def equation(modulus: int) -> Layout:
    """``a b =``, as in Nanda et al. 2023: one symbol a number, and one more."""
    return Layout(modulus, terms=(0, 0), answer=0, after=(modulus,))


def family_layout(setting: Modular) -> Layout:
    """The first problem of a sequence of the suite's family: ``tag a b``, or with more terms."""
    terms = tuple(CONTENT + term * setting.modulus for term in range(setting.terms))
    return Layout(setting.modulus, terms=terms, answer=CONTENT, before=(TAGS[NAME],))


def answers(model: Transformer, layout: Layout) -> Float[Tensor, "*numbers answer"]:
    """Logits of the answers, at the last position of every problem, float64, one axis a term.

    Raises:
        Unreadable: logits that are not finite.
    """
    number = torch.arange(layout.modulus)
    parts = [*(torch.tensor([token]) for token in layout.before), *(first + number for first in layout.terms)]
    parts += [torch.tensor([token]) for token in layout.after]
    tokens = torch.cartesian_prod(*parts).to(model.W_E.device)
    asked = slice(layout.answer, layout.answer + layout.modulus)
    with torch.no_grad():
        logits = torch.cat([model(chunk)[:, -1, asked] for chunk in torch.split(tokens, CHUNK)]).double()
    if not torch.isfinite(logits).all():
        raise Unreadable("modular addition", "non-finite logits", "finite numbers")
    return logits.view(*[layout.modulus] * len(layout.terms), layout.modulus)


@dataclass(frozen=True)
class Addition:
    """Spectra of a model that adds, and what its key frequencies do for it.

    Attributes:
        embeddings: of each term's symbols.
        logits: of the answers' logits, as a function of the sum.
        progress: losses with only, and without, the key frequencies of the logits.
        accuracy: share of all problems that are answered rightly.
    """

    embeddings: tuple[Spectrum, ...]
    logits: Spectrum
    progress: Progress
    accuracy: float

    def to_pandas(self) -> DataFrame:
        """One row a spectrum and frequency: ``of, frequency, share, key``."""
        from pandas import concat

        return concat([one.to_pandas().assign(of=one.what) for one in (*self.embeddings, self.logits)])

    def plot(self, ax: Axes | None = None) -> Axes:
        """The spectrum of the logits."""
        return self.logits.plot(ax)


def read_addition(model: Transformer, layout: Layout) -> Addition:
    """Read a model that adds two or more numbers.

    Raises:
        NotApplicable: a modulus that is too small for a spectrum, or numbers that the model does not tell apart.
        Unreadable: logits that are not finite.
    """
    modulus, logits = layout.modulus, answers(model, layout)
    starts = dict.fromkeys(layout.terms)  # terms that share their symbols have one embedding
    names = ["embedding"] if len(starts) == 1 else [f"embedding of term {term}" for term in range(len(starts))]
    embeddings = [spectrum(model.W_E[first : first + modulus], name) for first, name in zip(starts, names, strict=True)]
    by_the_sum = sum_spectrum(logits)
    right = logits.argmax(-1) == sums(modulus, len(layout.terms), logits.device)
    return Addition(tuple(embeddings), by_the_sum, progress(logits, by_the_sum.key), float(right.double().mean()))


def modular_spectrum(bench: Bench) -> dict[str, Any]:
    """Key frequencies of modular addition in embedding and logits, and losses with only and without them.

    Raises:
        NotApplicable: a suite without modular addition, or as in `read_addition`.
    """
    suite = bench.suite
    if not isinstance(suite, TaskSuite) or NAME not in suite.families:
        raise NotApplicable("spectrum", f"families {', '.join(suite.families)}", f"a suite with the family {NAME}")
    setting = suite.config.setting(NAME)
    assert isinstance(setting, Modular)  # what the registry has under this name
    found = read_addition(bench.model, family_layout(setting))
    return {
        "spectrum": {
            "modulus": setting.modulus,
            "terms": setting.terms,
            "embedding_key": [list(one.key) for one in found.embeddings],
            "embedding_gini": [one.gini for one in found.embeddings],
            "logit_key": list(found.logits.key),
            "logit_gini": found.logits.gini,
            "explained": found.progress.explained,
            "accuracy": found.accuracy,
            **{f"{name}_nats": loss for name, loss in found.progress.losses.items()},
        }
    }
