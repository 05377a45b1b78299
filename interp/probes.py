"""Linear probes: what each layer's residual stream carries about a variable, beside what any labels would give.

A probe is a multinomial logistic regression from the stream at one layer to a variable of the task. A control task
(Hewitt & Liang 2019, arXiv 1909.03368) gives each token type a random label with the variable's frequencies and trains
the same probe on it: accuracy far above the control's is a property of the representation, not of the probe.

Not covered: the intervals treat positions as independent, although positions of one sequence are not, so they are too
narrow. With a vocabulary smaller than the width the control is nearly always solvable at the embedding, so read
selectivity at later layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from interp.bench import Bench, Reading
from interp.verdict import NotApplicable, Unreadable
from selfimprove.seeds import derive
from selfimprove.tasks.batch import UNSCORED
from selfimprove.tasks.halt import LATENT as HALTED
from selfimprove.tasks.score import Proportion

REGULARIZATION = 0.1  # inverse strength; the same for every probe, so that accuracies compare
MAX_ITERATIONS = 60
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Rows:
    """Labelled positions: ``states [layer row d_model]``, ``labels [row]``, ``tokens [row]`` (the control's types)."""

    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    tokens: NDArray[np.int64]


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

    @property
    def selectivity(self) -> tuple[float, ...]:
        """Accuracy minus control accuracy, one value a layer."""
        return tuple(a - c for a, c in zip(self.accuracy, self.control_accuracy, strict=True))


def collect(readings: Sequence[Reading], variable: str, *, limit: int, seed: int) -> Rows:
    """At most ``limit`` positions at which ``variable`` is defined, drawn without replacement by ``seed``.

    Raises:
        NotApplicable: the variable is defined nowhere.
    """
    states, labels, tokens = [], [], []
    for reading in readings:
        defined = reading.latents[variable] != UNSCORED
        states.append(reading.residual[:, defined.to(reading.residual.device)].float().cpu().numpy())
        labels.append(reading.latents[variable][defined].numpy())
        tokens.append(reading.tokens[defined].numpy())
    state, label, token = np.concatenate(states, axis=1), np.concatenate(labels), np.concatenate(tokens)
    if not len(label):
        raise NotApplicable(f"probe {variable}", 0, "at least one position at which the variable is defined")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(label))[:limit])
    return Rows(state[:, chosen], label[chosen], token[chosen])


def control_labels(rows: Sequence[Rows], *, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Control-task labels for every set of rows: one random label a token type, drawn with the first set's frequencies.

    A type has the same label in every set, or the control could not be learned at all.
    """
    types = np.unique(np.concatenate([r.tokens for r in rows]))
    drawn = np.random.default_rng(seed).choice(np.sort(rows[0].labels), size=len(types))
    return tuple(drawn[np.searchsorted(types, r.tokens)] for r in rows)


def probe(variable: str, layers: Sequence[str], train: Rows, test: Rows, *, seed: int) -> ProbeResult:
    """Train and score one variable's probe and its control at every layer.

    Raises:
        NotApplicable: the variable has a single value among the training rows: there is nothing to tell apart.
        Unreadable: activations that are not finite.
    """
    values, counts = np.unique(train.labels, return_counts=True)
    if len(values) < 2:
        raise NotApplicable(f"probe {variable}", values.tolist(), "at least two values among the training positions")
    if not (np.isfinite(train.states).all() and np.isfinite(test.states).all()):
        raise Unreadable(f"probe {variable}", "non-finite activations", "finite numbers")
    control_train, control_test = control_labels((train, test), seed=seed)
    own, control, converged = [], [], []
    for x_train, x_test in zip(train.states, test.states, strict=True):
        x_train, x_test = _standardize(x_train, x_test)
        right, done = _fit(x_train, train.labels, x_test, test.labels)
        own.append(right)
        converged.append(done)
        control.append(_fit(x_train, control_train, x_test, control_test)[0])
    n = len(test.labels)
    shares, control_shares = [Proportion.of(k, n) for k in own], [Proportion.of(k, n) for k in control]
    return ProbeResult(
        variable=variable,
        layers=tuple(layers),
        accuracy=tuple(k / n for k in own),
        low=tuple(s.low for s in shares),
        high=tuple(s.high for s in shares),
        control_accuracy=tuple(k / n for k in control),
        control_low=tuple(s.low for s in control_shares),
        control_high=tuple(s.high for s in control_shares),
        majority=float(np.mean(test.labels == values[counts.argmax()])),
        n_train=len(train.labels),
        n_test=n,
        converged=tuple(converged),
    )


def probe_variable(bench: Bench, variable: str, *, families: Sequence[str], halt: bool = False) -> ProbeResult:
    """Probe one latent of the given families, pooled, at every layer of the model on the bench."""
    read = bench.halted if halt else bench.task
    seed = derive(bench.plan.control, variable)
    train, test = (
        collect(
            [read(role, family) for family in families],
            variable,
            limit=bench.plan.rows,
            seed=derive(seed, "rows", role),
        )
        for role in ("train", "test")
    )
    return probe(variable, bench.layers, train, test, seed=derive(seed, "labels"))


def task_variables(bench: Bench) -> dict[str, tuple[str, ...]]:
    """Each task latent of the suite, with the families that define it."""
    found: dict[str, list[str]] = {}
    for family in bench.suite.families:
        for name in sorted(bench.task("train", family).latents):
            if name != HALTED:
                found.setdefault(name, []).append(family)
    return {name: tuple(families) for name, families in found.items()}


def _standardize(
    train: NDArray[np.float32], test: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Zero mean and unit variance by the training rows' statistics; a constant feature becomes 0."""
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.where(spread > 1e-8, spread, 1.0)
    return (train - mean) / scale, (test - mean) / scale


def _fit(
    x_train: NDArray[np.float64], y_train: NDArray[np.int64], x_test: NDArray[np.float64], y_test: NDArray[np.int64]
) -> tuple[int, bool]:
    """Test rows answered rightly, and whether the fit converged."""
    if len(np.unique(y_train)) < 2:  # a control that drew one label for all types; scikit-learn would refuse it
        return int(np.sum(y_test == y_train[0])), True
    model = LogisticRegression(C=REGULARIZATION, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)  # recorded as a value: iterations are capped on purpose
        model.fit(x_train, y_train)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return int(np.sum(model.predict(x_test) == y_test)), converged
