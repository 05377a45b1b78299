"""Logit lens: what the model would answer if it stopped after each layer (nostalgebraist 2020).

The residual stream that TransformerLens cached is read through the model's own final norm, unembedding and soft cap,
for every genome alike. Where ``transformer_lens.tools.analysis.logit_lens`` applies, the two agree to 1e-5; it refuses
some genomes, and its import takes longer than an inspection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from interp import plotting
from interp.bench import Bench, residual_names
from interp.hooked import HookedModel
from interp.verdict import NotApplicable, Unreadable
from selfimprove.tasks.batch import UNSCORED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LensResult:
    """What each layer would answer, over the scored positions of one family.

    Attributes:
        family: the task family.
        layers: places in the residual stream, in order; the last one is the model's own answer.
        accuracy: share of scored positions whose largest logit is the right token's, one value a layer.
        log_prob: mean natural-log probability of the right token, one value a layer.
        n: scored positions.
    """

    family: str
    layers: tuple[str, ...]
    accuracy: tuple[float, ...]
    log_prob: tuple[float, ...]
    n: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer: ``family, layer, accuracy, log_prob``."""
        import pandas as pd

        columns = {"family": self.family, "layer": self.layers, "accuracy": self.accuracy, "log_prob": self.log_prob}
        return pd.DataFrame(columns)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy of what each layer would answer."""
        return plotting.lines(
            ax,
            {self.family: self.accuracy},
            self.layers,
            title=f"Logit lens on {self.family}",
            x="place in the residual stream",
            y="accuracy (share)",
        )


def lens_log_probs(model: HookedModel, cache: ActivationCache) -> Float[Tensor, "layer batch pos vocab"]:
    """Log-probabilities of every layer through this model's ``ln_final``, unembedding and soft cap."""
    with torch.no_grad():
        stack = torch.stack([cache[name] for name in residual_names(model.cfg.n_layers)])
        return torch.stack([model.capped(model.unembed(model.ln_final(x))).log_softmax(-1) for x in stack])


def summarize(
    log_probs: Float[Tensor, "layer batch pos vocab"], targets: Int[Tensor, "batch pos"]
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Accuracy and mean log-probability of the targets by layer, and the number of scored positions.

    Raises:
        NotApplicable: no position is scored.
        Unreadable: log-probabilities that are not finite.
    """
    scored = targets != UNSCORED
    if not scored.any():
        raise NotApplicable("logit lens", 0, "at least one scored position")
    answers = targets[scored].to(log_probs.device)
    read = log_probs[:, scored.to(log_probs.device)]
    right = read.gather(-1, answers.expand(read.shape[0], -1)[..., None])[..., 0]
    if not torch.isfinite(right).all():
        raise Unreadable("logit lens", "non-finite log-probabilities", "finite numbers")
    accuracy = (read.argmax(-1) == answers).double().mean(-1)
    return tuple(accuracy.tolist()), tuple(right.double().mean(-1).tolist()), int(scored.sum())


def lens_family(bench: Bench, family: str) -> LensResult:
    """Logit lens of the model on the bench over one family's test sequences."""
    reading = bench.task("test", family)
    accuracy, log_prob, n = summarize(lens_log_probs(bench.hooked, reading.cache), reading.targets)
    return LensResult(family, bench.layers, accuracy, log_prob, n)
