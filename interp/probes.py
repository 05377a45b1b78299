"""Linear probes: what each layer's residual stream carries about a variable, beside what any labels would give.

A probe is a multinomial logistic regression from the stream at one layer to a variable of the task. A control task
(Hewitt & Liang 2019, arXiv 1909.03368) gives each token type a random label with the variable's frequencies and trains
the same probe on it: accuracy far above the control's is a property of the representation, not of the probe.

A probe has at least `ROWS_A_FEATURE` training rows a feature, so that it cannot memorize: where the stream is wider,
it reads the leading principal components of the training rows. Of scrambled labels such a probe gets about two thirds
of its own training rows right with two classes and about half with 3 to 16 (0.71 and 0.57 at the most, in 192 trials
from 128 to 1024 rows; 0.69 with 32 classes); with two rows a feature it gets 0.85 of two classes right, and all of 8.

Accuracy is told for all test rows and by position class, of the one probe that was trained on all: early, middle and
late third of the sequence. 'Halted' is read at the same positions with and without a halt token before them
(`interp.rows`), so that half of the answers are right by chance.

Not covered: the intervals treat positions as independent, although positions of one sequence are not, so they are too
narrow. With a vocabulary smaller than the width the control is nearly always solvable at the embedding, so read
selectivity at later layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from interp import plotting
from interp.bench import Bench
from interp.rows import THIRDS, Rows, check_rows, control_labels, variable_rows
from selfimprove.seeds import derive
from selfimprove.tasks.halt import LATENT as HALTED
from selfimprove.tasks.score import Proportion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

REGULARIZATION = 0.1  # inverse strength; the same for every probe, so that accuracies compare
MAX_ITERATIONS = 60
TOLERANCE = 1e-3
ROWS_A_FEATURE = 8  # least; see the top of this page
ROUNDING = 1e-6  # of the largest spread: what varies less is float32's rounding, and must not be blown up to read it


@dataclass(frozen=True)
class Places:
    """Accuracy of a probe and its control on the test rows of one position class, one value a layer; ``n`` rows."""

    accuracy: tuple[float, ...]
    control_accuracy: tuple[float, ...]
    n: int


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of one variable's probe at every layer, on sequences it was not trained on.

    Attributes:
        variable: name of the variable.
        layers: places in the residual stream, in order.
        accuracy: share of test positions answered rightly, one value a layer.
        low, high: 95 % Wilson interval of it.
        control_accuracy: the same probe on random labels by token type.
        control_low, control_high: 95 % Wilson interval of that.
        majority: accuracy of always answering the most frequent training label.
        n_train, n_test: positions.
        converged: whether the fit met its tolerance within the capped iterations.
        features: what a probe reads of the stream: its width, or its leading principal components.
        parameters: of one probe: weights and biases.
        places: the same accuracies by position class.
    """

    variable: str
    layers: tuple[str, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    control_accuracy: tuple[float, ...]
    control_low: tuple[float, ...]
    control_high: tuple[float, ...]
    majority: float
    n_train: int
    n_test: int
    converged: tuple[bool, ...]
    features: int
    parameters: int
    places: dict[str, Places]

    @property
    def selectivity(self) -> tuple[float, ...]:
        """Accuracy minus control accuracy, one value a layer."""
        return tuple(a - c for a, c in zip(self.accuracy, self.control_accuracy, strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """One row a layer and position class; ``positions`` is ``all`` for all test rows."""
        import pandas

        every = Places(self.accuracy, self.control_accuracy, self.n_test)
        rows = [
            {
                "variable": self.variable,
                "layer": layer,
                "positions": name,
                "accuracy": place.accuracy[at],
                "control_accuracy": place.control_accuracy[at],
                "selectivity": place.accuracy[at] - place.control_accuracy[at],
                "n_test": place.n,
            }
            for name, place in {"all": every, **self.places}.items()
            for at, layer in enumerate(self.layers)
        ]
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy, control and selectivity by layer."""
        constant = [self.majority] * len(self.layers)
        series = {
            "accuracy": self.accuracy,
            "control": self.control_accuracy,
            "selectivity": self.selectivity,
            "a constant answer": constant,
        }
        title, x = f"Linear probe for {self.variable}", "place in the stream"
        return plotting.lines(ax, series, self.layers, title=title, x=x, y="share of test positions")


@dataclass(frozen=True)
class Probe:
    """A trained probe.

    Attributes:
        mean: of the training rows, ``[d_model]``.
        basis: the principal components that are read, ``[d_model feature]``; None: the stream as it is.
        scale: standard deviation of each feature over the training rows.
        model: the regression; a label, where there was only one among the training rows.
        converged: whether the fit met its tolerance.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64] | None
    scale: NDArray[np.float64]
    model: LogisticRegression | int
    converged: bool

    def features(self, states: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the regression reads of ``states [row d_model]``."""
        return _project(states - self.mean, self.basis) / self.scale

    def predict(self, states: NDArray[np.float32]) -> NDArray[np.int64]:
        """A label for each of ``states [row d_model]``."""
        if isinstance(self.model, int):
            return np.full(len(states), self.model)
        labels: NDArray[np.int64] = self.model.predict(self.features(states))
        return labels


def feature_limit(rows: int) -> int:
    """Most features that a probe with so many training rows may have."""
    return max(1, rows // ROWS_A_FEATURE)


def train_probe(states: NDArray[np.float32], *labels: NDArray[np.int64]) -> tuple[Probe, ...]:
    """One probe for each set of labels, on the same ``states [row d_model]``: reduced where too wide, standardized."""
    mean = states.mean(0, dtype=np.float64)
    x = states - mean
    basis = _components(x, feature_limit(len(x)))
    read = _project(x, basis)
    spread = read.std(0)
    noise = max(1e-8, ROUNDING * spread.max(initial=0.0))
    scale = np.where(spread > noise, spread, 1.0)  # a constant feature becomes 0
    return tuple(Probe(mean, basis, scale, *_fit(read / scale, y)) for y in labels)


def probe(variable: str, layers: Sequence[str], train: Rows, test: Rows, *, seed: int) -> ProbeResult:
    """Train and score one variable's probe and its control at every layer.

    Raises:
        NotApplicable: the variable has a single value among the training rows: there is nothing to tell apart.
        Unreadable: activations that are not finite.
    """
    values, counts = check_rows(variable, train, test)
    control_train, control_test = control_labels((train, test), seed=seed)
    own, control, converged = [], [], []
    for x_train, x_test in zip(train.states, test.states, strict=True):
        mine, other = train_probe(x_train, train.labels, control_train)
        own.append(mine.predict(x_test) == test.labels)
        control.append(other.predict(x_test) == control_test)
        converged.append(mine.converged)
    n, features = len(test.labels), min(train.states.shape[-1], feature_limit(len(train.labels)))
    shares, control_shares = ([Proportion.of(int(r.sum()), n) for r in right] for right in (own, control))
    return ProbeResult(
        variable=variable,
        layers=tuple(layers),
        accuracy=_means(own),
        low=tuple(s.low for s in shares),
        high=tuple(s.high for s in shares),
        control_accuracy=_means(control),
        control_low=tuple(s.low for s in control_shares),
        control_high=tuple(s.high for s in control_shares),
        majority=float(np.mean(test.labels == values[counts.argmax()])),
        n_train=len(train.labels),
        n_test=n,
        converged=tuple(converged),
        features=features,
        parameters=(features + 1) * (1 if len(values) == 2 else len(values)),
        places=_by_class(test.classes, own, control),
    )


def _means(right: Sequence[NDArray[np.bool_]]) -> tuple[float, ...]:
    return tuple(float(r.mean()) for r in right)


def _by_class(
    classes: NDArray[np.str_] | None, own: Sequence[NDArray[np.bool_]], control: Sequence[NDArray[np.bool_]]
) -> dict[str, Places]:
    if classes is None:
        return {}
    present = [name for name in THIRDS if (classes == name).any()]
    masks = {name: classes == name for name in present}
    return {
        name: Places(_means([r[mask] for r in own]), _means([r[mask] for r in control]), int(mask.sum()))
        for name, mask in masks.items()
    }


def probe_variable(bench: Bench, variable: str, *, families: Sequence[str]) -> ProbeResult:
    """Probe one latent of the given families, or 'halted', pooled, at every layer; computed once for all that ask.

    Raises:
        NotApplicable: a family that does not have the variable, or as `probe`.
        Unreadable: as `probe`.
    """
    key = ("probe", variable, tuple(families))
    seed = derive(bench.plan.control, variable, "labels")
    return bench.once(
        key,
        lambda: probe(variable, bench.layers, *variable_rows(bench, variable, families=families), seed=seed),
    )


def task_variables(bench: Bench) -> dict[str, tuple[str, ...]]:
    """Each task latent of the suite, with the families that define it."""
    found: dict[str, list[str]] = {}
    for family in bench.suite.families:
        for name in sorted(bench.task("train", family).latents):
            if name != HALTED:
                found.setdefault(name, []).append(family)
    return {name: tuple(families) for name, families in found.items()}


def _project(x: NDArray[np.float64], basis: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return x if basis is None else x @ basis


def _components(x: NDArray[np.float64], limit: int) -> NDArray[np.float64] | None:
    """The ``limit`` leading principal components of centered rows, ``[d_model limit]``; None: there are no more."""
    width = x.shape[1]
    if width <= limit:
        return None
    vectors: NDArray[np.float64] = scipy.linalg.eigh(x.T @ x, subset_by_index=(width - limit, width - 1))[1]
    return vectors


def _fit(x: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[LogisticRegression | int, bool]:
    """The regression, and whether it converged."""
    if len(np.unique(labels)) < 2:  # a control that drew one label for all types; scikit-learn would refuse it
        return int(labels[0]), True
    model = LogisticRegression(C=REGULARIZATION, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)  # recorded as a value: iterations are capped on purpose
        model.fit(x, labels)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return model, not any(issubclass(w.category, ConvergenceWarning) for w in caught)
