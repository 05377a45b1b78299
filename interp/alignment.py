"""The 'halted' direction: where in the stream a model holds that it must stop, and whether two models hold it alike.

Two estimates of the direction at every layer: the difference of the class means (Marks and Tegmark 2023, arXiv
2310.06824) and the normal of a linear probe. That a direction separates does not say that the model uses it: see
`interp.steering`. Not covered: a representation that is no direction, such as a curve or a change of scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor

from interp import plotting
from interp.bench import Bench, at_common_positions
from interp.contrast import Contrast, contrast
from interp.similarity import paired_states
from interp.transfer import ALIGNED_ROWS, align, matched_layers
from interp.verdict import NotApplicable
from selfimprove.seeds import derive
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

REGULARIZATION = 0.1  # inverse strength of the probe, on standardized states
MAX_ITERATIONS = 60
MOST = 100.0  # largest d' told: states that hardly vary would give any number
TINY = 1e-12
PAIRINGS = 8  # at random, for what a rotation alone gives


@dataclass(frozen=True)
class HaltDirections:
    """The halted direction of one model at every layer: estimated on the training sequences, judged on the test ones.

    Attributes:
        layers: places in the stream, in order.
        halted_mean, plain_mean: mean state after a halt token, and at the same positions without one.
        normal: unit normal of the linear probe, towards halted.
        relative: length of the difference over the mean length of a plain state.
        auc: chance that a halted state lies further along the difference than a plain one; 0.5: no separation.
        d_prime: distance of the class means along the difference over their pooled standard deviation, within
            `MOST` of 0. Negative if the test sequences contradict the training ones.
        agreement: cosine between the two estimates.
        separated: pairs of sequences (halted, plain) of which the halted one lies further along, averaged over its
            positions. The pair is the unit, because positions of one sequence are not independent; chance is a half.
    """

    layers: tuple[str, ...]
    halted_mean: Float[Tensor, "layer d_model"]
    plain_mean: Float[Tensor, "layer d_model"]
    normal: Float[Tensor, "layer d_model"]
    relative: tuple[float, ...]
    auc: tuple[float, ...]
    d_prime: tuple[float, ...]
    agreement: tuple[float, ...]
    separated: tuple[Proportion, ...]

    @property
    def difference(self) -> Float[Tensor, "layer d_model"]:
        """Mean halted state minus mean plain state."""
        return self.halted_mean - self.plain_mean

    @property
    def unit(self) -> Float[Tensor, "layer d_model"]:
        """The difference at length 1; zeros where there is none."""
        return unit(self.difference)

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer."""
        import pandas

        return pandas.DataFrame(
            {
                "layer": self.layers,
                "length": self.difference.norm(dim=-1).tolist(),
                "relative_length": self.relative,
                "auc": self.auc,
                "d_prime": self.d_prime,
                "agreement": self.agreement,
                "separated": [s.kept / s.n for s in self.separated],
                "separated_low": [s.low for s in self.separated],
                "separated_high": [s.high for s in self.separated],
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Separation by layer, and how far the two estimates agree."""
        series = {"separation (AUC)": self.auc, "agreement of the two estimates (cosine)": self.agreement}
        title = "Halted direction: separation on test sequences"
        return plotting.lines(ax, series, self.layers, title=title, x="place in the stream", y="AUC or cosine")


def unit(vectors: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
    """Vectors at length 1; a zero vector stays zero."""
    scaled: Tensor = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(TINY)
    return scaled


def orthogonal(
    vectors: Float[Tensor, "*lead d_model"], to: Float[Tensor, "*lead d_model"]
) -> Float[Tensor, "*lead d_model"]:
    """What is left of each vector without its part along another."""
    axis = unit(to)
    return vectors - (vectors * axis).sum(-1, keepdim=True) * axis


def cosines(a: Float[Tensor, "*lead d_model"], b: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead"]:
    """Cosine of each pair; 0 where one of the two is zero."""
    return (unit(a) * unit(b)).sum(-1)


def halt_directions(bench: Bench) -> HaltDirections:
    """Estimate and judge the halted direction of the model on the bench, once for all that ask.

    Raises:
        NotApplicable: no position comes after a halt token.
        Unreadable: activations that are not finite.
    """
    return bench.once(("halt directions",), lambda: _directions(bench))


def _directions(bench: Bench) -> HaltDirections:
    train, test = contrast(bench, "train"), contrast(bench, "test")
    difference = train.difference
    rows = torch.from_numpy(np.random.default_rng(bench.plan.control).permutation(train.halted.shape[1]))
    normal = _normals(train, rows[: max(1, bench.plan.rows // 2)])
    along = unit(difference)[:, None]
    halted, plain = (test.halted * along).sum(-1), (test.plain * along).sum(-1)
    return HaltDirections(
        layers=bench.layers,
        halted_mean=train.halted.mean(1),
        plain_mean=train.plain.mean(1),
        normal=normal,
        relative=_floats(difference.norm(dim=-1) / train.plain.norm(dim=-1).mean(1).clamp_min(TINY)),
        auc=tuple(_auc(h, p) for h, p in zip(halted, plain, strict=True)),
        d_prime=tuple(_d_prime(h, p) for h, p in zip(halted, plain, strict=True)),
        agreement=_floats(cosines(difference, normal)),
        separated=tuple(_separated(h - p, test) for h, p in zip(halted, plain, strict=True)),
    )


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.double().tolist())


def _normals(train: Contrast, rows: Tensor) -> Float[Tensor, "layer d_model"]:
    """Unit normal of a logistic regression at every layer, in the coordinates of the stream."""
    return torch.stack([_normal(h[rows], p[rows]) for h, p in zip(train.halted, train.plain, strict=True)])


def _normal(halted: Float[Tensor, "row d_model"], plain: Float[Tensor, "row d_model"]) -> Float[Tensor, " d_model"]:
    states = torch.cat((halted, plain)).double().cpu().numpy()
    states -= states.mean(0)
    scale = max(float(states.std()), TINY)  # one for all channels: a direction must not depend on the basis
    labels = np.repeat([1, 0], [len(halted), len(plain)])
    model = LogisticRegression(C=REGULARIZATION, max_iter=MAX_ITERATIONS)
    model.fit(states / scale, labels)
    return unit(torch.from_numpy(model.coef_[0]).to(halted))


def _auc(halted: Tensor, plain: Tensor) -> float:
    labels = np.repeat([1, 0], [len(halted), len(plain)])
    area: float = roc_auc_score(labels, torch.cat((halted, plain)).cpu().numpy())
    return area


def _d_prime(halted: Tensor, plain: Tensor) -> float:
    distance = float(halted.mean() - plain.mean())
    spread = float(((halted.var(unbiased=False) + plain.var(unbiased=False)) / 2).sqrt())
    return max(-MOST, min(MOST, distance / max(spread, TINY)))


def _separated(further: Float[Tensor, " row"], test: Contrast) -> Proportion:
    mean = torch.zeros(test.pairs, dtype=torch.float64).index_add_(0, test.pair, further.double().cpu())
    return Proportion.of(int((mean > 0).sum()), test.pairs)


@dataclass(frozen=True)
class DirectionDrift:
    """How far a child's halted direction has moved from its parent's.

    Where a model has no such direction (`HaltDirections.separated` near a half, ``reliability`` well below 1), a cosine
    compares noise, and states that vary along few directions make noise agree.

    Attributes:
        parent_layers, child_layers: the places compared, pair by pair: the same relative depth.
        cosine: between the two directions as they are. Two models that were trained from different weights share no
            basis, so that it says little about them; it does about a model and its own continuation.
        aligned: the cosine after the child's stream was turned onto the parent's.
        reliability: cosine between the parent's direction in one half of its sequences and in the other: no drift could
            be seen that is smaller than what this lacks to 1.
        chance: root mean square of the aligned cosine over random pairings of the same states: what a rotation alone
            would give.
        fit: share of the variance of the parent's states that the child's explain after the turn, 1 for a mere
            rotation of it, at most 1.
    """

    parent_layers: tuple[str, ...]
    child_layers: tuple[str, ...]
    cosine: tuple[float, ...]
    aligned: tuple[float, ...]
    reliability: tuple[float, ...]
    chance: tuple[float, ...]
    fit: tuple[float, ...]

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair of places."""
        import pandas

        return pandas.DataFrame({name.removesuffix("s"): list(value) for name, value in vars(self).items()})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Both cosines by place, with what chance gives."""
        series: dict[str, Sequence[float]] = {
            "as they are": self.cosine,
            "aligned": self.aligned,
            "chance": self.chance,
        }
        title = "Halted direction of the child against its parent's"
        return plotting.lines(ax, series, self.child_layers, title=title, x="place in the child's stream", y="cosine")


def direction_drift(parent: Bench, child: Bench) -> DirectionDrift:
    """Compare the halted directions of two models of one width.

    The turn is the orthogonal Procrustes solution (Schönemann 1966) on states of both models at the same positions of
    test sequences, plain and halted. The directions are differences of class means over training sequences, the
    parent's over one half of them and the child's over the other: over the same ones, two models without any such
    direction would agree in what these sequences have by chance. Only positions that both models can read are read.

    Args:
        parent: the bench of one.
        child: that of the other, with the same suite and plan.

    Raises:
        NotApplicable: other widths, between which a direction has no cosine, or benches with other sequences.
        Unreadable: activations that are not finite.
    """
    _require_comparable(parent, child)
    parent, child = at_common_positions(parent, child)
    training = contrast(parent, "train")
    ours, again = (training.every(2, half).difference for half in (0, 1))
    theirs = contrast(child, "train").every(2, 1).difference
    seed = derive(parent.plan.control, "drift")
    states, other = paired_states(parent, child, "test", ALIGNED_ROWS, seed)
    rng = np.random.default_rng(seed)
    orders = [torch.from_numpy(rng.permutation(states.shape[1])) for _ in range(PAIRINGS)]
    rows = []
    for its, mine in enumerate(matched_layers(len(ours), len(theirs))):
        turned = align(other[its], states[mine])
        compared = (theirs[its], theirs[its] @ turned.turn, again[mine])
        cosine, aligned, reliability = (float(cosines(one, ours[mine])) for one in compared)
        by_chance = (theirs[its] @ align(other[its][order], states[mine]).turn for order in orders)
        chance = math.sqrt(fmean(float(cosines(one, ours[mine])) ** 2 for one in by_chance))
        missing = (turned(other[its]) - states[mine]).square().sum()
        fit = 1 - float(missing / (states[mine] - states[mine].mean(0)).square().sum().clamp_min(TINY))
        rows.append((parent.layers[mine], child.layers[its], cosine, aligned, reliability, chance, fit))
    return DirectionDrift(*zip(*rows, strict=True))


def _require_comparable(parent: Bench, child: Bench) -> None:
    operation = "drift of the halt direction"
    widths = (parent.model.cfg.d_model, child.model.cfg.d_model)
    if widths[0] != widths[1]:
        remedy = "transfer a probe through an aligned map instead"
        raise NotApplicable(operation, f"widths {widths[0]} and {widths[1]}", "one width", remedy)
    if parent.suite is not child.suite or parent.plan != child.plan:
        raise NotApplicable(operation, "other sequences", "benches with the same suite and plan")
