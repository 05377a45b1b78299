"""Activation patching: which parts carry a task's answer (Meng et al. 2022, arXiv 2202.05262; Heimersheim & Nanda 2024,
arXiv 2404.15255).

Two runs: *clean* is an instance of a task, *corrupted* another instance of the same family whose answers differ.
``denoise`` puts one part's clean activation into the corrupted run: does it bring the clean answer back? ``noise`` puts
the corrupted one into the clean run: does it take it away? The first finds parts that suffice, the second parts that
are needed.

Another instance is the corruption that every family has, and it stays what the model was trained on, which noise on
embeddings is not. It changes all that an answer depends on at once (the bindings, the question, sometimes where things
stand), so a part that only carries the question shows as well.

The metric is the logit of the clean answer over the mean logit. A difference to the corrupted run's own answer would
count a part whose loss merely destroys the answer as half as important as one whose loss exchanges it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp import plotting
from interp.bench import Bench
from interp.components import HEADS, STREAM, Component, activations, affordable, components, run_replaced
from interp.hooked import HookedModel
from interp.verdict import NotApplicable, Unreadable
from selfimprove.tasks.batch import UNSCORED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Metric = Callable[[Float[Tensor, "batch pos vocab"]], Float[Tensor, ""]]
SEQUENCES = 32  # of a family, at most; each part costs two runs over all of them
MIN_GAP = 1.0
"""Least difference of the metric between clean and corrupted run, in logits: below it there is no answer to carry."""
NEEDED = 0.5
"""A part is needed if noise in it leaves at most this effect, and suffices if denoising it alone gives that much."""


@dataclass(frozen=True)
class Sweep:
    """A metric for one part after the other.

    Attributes:
        labels: the parts, as `Component.label`.
        values: the metric of the run in which the part is replaced.
    """

    labels: tuple[str, ...]
    values: Float[Tensor, " part"]


@dataclass(frozen=True)
class PatchResult:
    """What each part carries of one family's answers.

    Attributes:
        family: the task family.
        labels: the parts, as `Component.label`.
        denoise: effect of each part's clean activation in the corrupted run; 0: as corrupted, 1: as clean.
        noise: what is left with each part's corrupted activation in the clean run, on the same scale.
        clean, corrupted: the metric of both runs: logit of the clean answer over the mean logit.
        n: positions that it is a mean over.
    """

    family: str
    labels: tuple[str, ...]
    denoise: tuple[float, ...]
    noise: tuple[float, ...]
    clean: float
    corrupted: float
    n: int

    def needed(self, threshold: float = NEEDED) -> tuple[str, ...]:
        """Parts without whose clean activation at most ``threshold`` of the answer is left."""
        return tuple(label for label, left in zip(self.labels, self.noise, strict=True) if left <= threshold)

    def sufficient(self, threshold: float = NEEDED) -> tuple[str, ...]:
        """Parts whose clean activation alone brings at least ``threshold`` of the answer back."""
        return tuple(label for label, effect in zip(self.labels, self.denoise, strict=True) if effect >= threshold)

    def to_pandas(self) -> pd.DataFrame:
        """One row a part: ``family, part, denoise, noise``."""
        import pandas as pd

        columns = {"family": self.family, "part": self.labels, "denoise": self.denoise, "noise": self.noise}
        return pd.DataFrame(columns)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Parts by direction, in colors."""
        return plotting.heat_map(
            ax,
            list(zip(self.denoise, self.noise, strict=True)),
            rows=self.labels,
            columns=("clean into corrupted", "corrupted into clean"),
            title=f"What carries the answers of {self.family}",
            x="patch",
            y="part",
            unit="effect (0: as corrupted, 1: as clean)",
        )


def sweep(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    source: Mapping[str, Tensor],
    metric: Metric,
    parts: Sequence[Component],
) -> Sweep:
    """Replace one part after the other.

    Args:
        model: the hooked model.
        tokens: of the run that is patched.
        source: activations by hook of the run that they come from; an ``ActivationCache`` will do.
        metric: of the patched logits.
        parts: which parts.

    Raises:
        NotApplicable: no parts.
    """
    if not parts:
        raise NotApplicable("patch", f"{model.cfg.n_layers} blocks", "a block with a part of the kinds asked for")
    values = [metric(run_replaced(model, tokens, (part,), source)) for part in parts]
    return Sweep(tuple(part.label for part in parts), torch.stack(values))


def patch_heads(
    model: HookedModel, corrupted: Int[Tensor, "batch pos"], clean: Mapping[str, Tensor], metric: Metric
) -> Sweep:
    """Patch ``hook_z`` of one head after the other, at all positions.

    Raises:
        NotApplicable: no block has attention.
    """
    return sweep(model, corrupted, clean, metric, components(model, HEADS))


def pair(targets: Int[Tensor, "batch pos"]) -> tuple[int, Bool[Tensor, "batch pos"]]:
    """How far to roll the instances to make corrupted ones, and at which positions an answer is lost by that.

    The distance is the one that leaves the most positions: those that are scored, and where the other instance asks
    for another answer or for none.

    Raises:
        NotApplicable: no such position.
    """
    scored = targets != UNSCORED
    lost = {shift: scored & (targets != targets.roll(shift, 0)) for shift in range(1, len(targets))}
    best = max(lost, key=lambda shift: (int(lost[shift].sum()), -shift), default=None)
    if best is None or not lost[best].any():
        raise NotApplicable("patch", f"{len(targets)} instances", "two instances of the family with different answers")
    return best, lost[best]


def answer_margin(targets: Int[Tensor, "batch pos"], where: Bool[Tensor, "batch pos"]) -> Metric:
    """Logit of the right answer over the mean logit, averaged over the positions ``where``."""

    def metric(logits: Float[Tensor, "batch pos vocab"]) -> Float[Tensor, ""]:
        read = logits[where]
        return (read.gather(-1, targets[where][:, None])[:, 0] - read.mean(-1)).mean()

    return metric


def patch(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    targets: Int[Tensor, "batch pos"],
    parts: Sequence[Component],
    *,
    family: str = "",
) -> PatchResult:
    """Patch one part after the other in both directions; each instance's corrupted one is another one of them.

    Args:
        model: the hooked model.
        tokens: instances of one family.
        targets: right answers, ``UNSCORED`` where none is asked for.
        parts: which parts.
        family: name for the result.

    Raises:
        NotApplicable: no parts, no answers that differ, or a model that does not tell the instances apart.
        Unreadable: a metric that is not finite.
    """
    tokens, targets = tokens.to(model.W_E.device), targets.to(model.W_E.device)
    shift, where = pair(targets)
    metric, other = answer_margin(targets, where), tokens.roll(shift, 0)
    logits, clean_seen = activations(model, tokens, parts)
    other_logits, other_seen = activations(model, other, parts)
    clean, corrupted = metric(logits).item(), metric(other_logits).item()
    gap = clean - corrupted
    if gap != gap:
        raise Unreadable(f"patch {family}", "a metric that is no number", "finite logits")
    if gap < MIN_GAP:
        limit = f"at least {MIN_GAP:g}: there is no answer to carry"
        raise NotApplicable(f"patch {family}", f"clean and corrupted logits {gap:.3g} apart", limit)
    effects = [
        tuple(((sweep(model, run, source, metric, parts).values - corrupted) / gap).tolist())
        for run, source in ((other, clean_seen), (tokens, other_seen))
    ]
    labels = tuple(part.label for part in parts)
    return PatchResult(family, labels, effects[0], effects[1], clean, corrupted, int(where.sum()))


def patch_family(bench: Bench, family: str, *, positions: bool = False) -> PatchResult:
    """Patching of the model on the bench, on test sequences of one family.

    Args:
        bench: the bench.
        family: the family.
        positions: the stream at the entry of each block, position by position, instead of all parts at all positions.
    """
    reading, model = bench.task("test", family), bench.hooked
    parts = components(model, STREAM, range(reading.tokens.shape[1])) if positions else components(model)
    few = affordable(parts, SEQUENCES)
    return patch(model, reading.tokens[:few], reading.targets[:few], parts, family=family)


def patching(bench: Bench) -> dict[str, Any]:
    """Instrument: effect of every part in both directions, by family; a family without answers to carry is left out.

    Raises:
        NotApplicable: no family has any.
    """
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for family in bench.suite.families:
        try:
            result = patch_family(bench, family)
        except NotApplicable as error:
            reasons[family] = str(error)
            continue
        found[family] = {
            "denoise": dict(zip(result.labels, result.denoise, strict=True)),
            "noise": dict(zip(result.labels, result.noise, strict=True)),
            "needed": result.needed(),
            "sufficient": result.sufficient(),
            "clean": result.clean,
            "corrupted": result.corrupted,
            "n": result.n,
        }
    if not found:
        raise NotApplicable("patching", "; ".join(reasons.values()), "a family that the model has learned something of")
    return {"patching": found, "patching_left_out": reasons}
