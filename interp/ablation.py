"""Ablation: what a task loses when one part of the model is taken away.

``zero`` replaces a part's output by zeros, ``mean`` by its mean over the other sequences at the same position, which
keeps what depends on the place alone (mean ablation after Wang et al. 2022, arXiv 2211.00593; with the sequence's own
output in the mean it would keep a share of its answer). Zeros may take a later part where it never was in training, so
where the two disagree, believe the mean.

Parts that stand in for one another, as two induction heads do, lose little each: take them away together (`ablate`
takes groups, too). Which parts belong together is not found here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import plotting
from interp.bench import Bench
from interp.components import Component, activations, affordable, components, run_replaced
from interp.hooked import HookedModel
from interp.verdict import NotApplicable, Unreadable
from selfimprove.tasks.batch import UNSCORED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

METHODS = ("zero", "mean")


@dataclass(frozen=True)
class AblationResult:
    """What each part is worth to one family.

    Attributes:
        family: the task family.
        labels: the parts, as `Component.label`.
        log_prob, accuracy: of the whole model over the scored positions; the former in nats.
        log_prob_drop, accuracy_drop: by method, how much lower they are without each part; negative where it is better
            off without.
        n: scored positions.
    """

    family: str
    labels: tuple[str, ...]
    log_prob: float
    accuracy: float
    log_prob_drop: Mapping[str, tuple[float, ...]]
    accuracy_drop: Mapping[str, tuple[float, ...]]
    n: int

    def to_pandas(self) -> pd.DataFrame:
        """One row a part and method: ``family, part, method, log_prob_drop, accuracy_drop``."""
        import pandas as pd

        rows = [
            {
                "family": self.family,
                "part": label,
                "method": method,
                "log_prob_drop": self.log_prob_drop[method][i],
                "accuracy_drop": self.accuracy_drop[method][i],
            }
            for method in self.log_prob_drop
            for i, label in enumerate(self.labels)
        ]
        return pd.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Drop in log-probability, parts by methods, in colors."""
        methods = list(self.log_prob_drop)
        return plotting.heat_map(
            ax,
            list(zip(*(self.log_prob_drop[method] for method in methods), strict=True)),
            rows=self.labels,
            columns=methods,
            title=f"What {self.family} loses without each part",
            x="ablation",
            y="part",
            unit="drop in log-probability (nats)",
        )


def ablate(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    targets: Int[Tensor, "batch pos"],
    parts: Sequence[Component] | Mapping[str, Sequence[Component]],
    *,
    family: str = "",
) -> AblationResult:
    """Take away one part after the other, or one group of parts after the other.

    Args:
        model: the hooked model.
        tokens: what it reads.
        targets: right answers, ``UNSCORED`` where none is asked for.
        parts: what is taken away; a group by name is taken away together.
        family: name for the result.

    Raises:
        NotApplicable: no parts, no scored position, or a single sequence.
        Unreadable: log-probabilities that are not finite.
    """
    tokens, targets = tokens.to(model.W_E.device), targets.to(model.W_E.device)
    groups = parts if isinstance(parts, Mapping) else {part.label: (part,) for part in parts}
    if not groups or not (targets != UNSCORED).any():
        raise NotApplicable("ablation", f"{len(groups)} parts", "at least one part and one scored position")
    if len(tokens) < 2:
        raise NotApplicable("mean ablation", f"{len(tokens)} sequence", "at least two: the mean is over the others")
    logits, seen = activations(model, tokens, [part for group in groups.values() for part in group])
    whole = _score(logits, targets)
    drops: dict[str, list[tuple[float, float]]] = {}
    for method in METHODS:
        source = replacement(seen, method)
        scores = [_score(run_replaced(model, tokens, group, source), targets) for group in groups.values()]
        drops[method] = [(whole[0] - log_prob, whole[1] - accuracy) for log_prob, accuracy in scores]
    return AblationResult(
        family,
        tuple(groups),
        *whole,
        {method: tuple(drop for drop, _ in values) for method, values in drops.items()},
        {method: tuple(drop for _, drop in values) for method, values in drops.items()},
        int((targets != UNSCORED).sum()),
    )


def replacement(seen: Mapping[str, Float[Tensor, "batch pos *rest"]], method: str) -> dict[str, Tensor]:
    """What parts are replaced by, hook -> ``[batch pos ...]``: zeros, or for each sequence the mean over the others."""
    if method == "zero":
        return {name: torch.zeros_like(value) for name, value in seen.items()}
    return {name: (value.sum(0) - value) / (len(value) - 1) for name, value in seen.items()}


def _score(logits: Float[Tensor, "batch pos vocab"], targets: Int[Tensor, "batch pos"]) -> tuple[float, float]:
    """Mean log-probability of the right answers, in nats, and their share of the largest logits."""
    scored = targets != UNSCORED
    answers, read = targets[scored], logits[scored]
    log_prob = float(read.log_softmax(-1).gather(-1, answers[:, None]).double().mean())
    if not torch.isfinite(read).all():
        raise Unreadable("ablation", "non-finite logits", "finite numbers")
    return log_prob, float((read.argmax(-1) == answers).double().mean())


def ablate_family(bench: Bench, family: str) -> AblationResult:
    """Ablation of every head and every mixer's output of the model on the bench, on one family's test sequences."""
    reading, parts = bench.task("test", family), components(bench.hooked)
    few = affordable(parts, len(reading.tokens))
    return ablate(bench.hooked, reading.tokens[:few], reading.targets[:few], parts, family=family)


def ablation(bench: Bench) -> dict[str, Any]:
    """Instrument: by family and part, the drop in log-probability (nats) and accuracy, by zeros and by means."""
    results = [ablate_family(bench, family) for family in bench.suite.families]
    return {
        "ablation": {
            r.family: {
                "log_prob": r.log_prob,
                "accuracy": r.accuracy,
                "n": r.n,
                **{
                    method: {
                        "log_prob_drop": dict(zip(r.labels, r.log_prob_drop[method], strict=True)),
                        "accuracy_drop": dict(zip(r.labels, r.accuracy_drop[method], strict=True)),
                    }
                    for method in METHODS
                },
            }
            for r in results
        }
    }
