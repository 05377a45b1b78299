"""Trials of an Optuna study as the forecaster reads them: in their order, and the points that have no outcome.

Only the order of outcomes is read, and it is Optuna's own (``TPESampler``): trials that kept all constraints by their
value, then pruned ones, those that got further first, then those that broke a constraint, by how much. Of a trial that
runs or failed the point is known and no outcome. Imports no torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
WITHOUT_OUTCOME = (TrialState.RUNNING, TrialState.FAIL)
ATTRIBUTE = "selfimprove:relative_params"
LONGEST = 2045  # characters of an attribute that all of Optuna's storages keep

Array = NDArray[np.float64]


def finished(study: Study) -> list[FrozenTrial]:
    """Trials with an outcome, the oldest first; of one that was pruned before it had a parameter nothing is known."""
    return [trial for trial in study.get_trials(deepcopy=False, states=FINISHED) if trial.params]


def places(trials: Sequence[FrozenTrial], direction: StudyDirection) -> Float[Array, " trial"]:
    """Place of each trial in the order of outcomes, the best at 0; equal ones share a place."""
    sign = 1.0 if direction == StudyDirection.MINIMIZE else -1.0
    standings = [_standing(trial, sign) for trial in trials]
    order = {standing: place for place, standing in enumerate(sorted(set(standings)))}
    return np.array([order[standing] for standing in standings], dtype=np.float64)


def _standing(trial: FrozenTrial, sign: float) -> tuple[int, float, float]:
    """Sort key, better is less."""
    broken = sum(amount for amount in trial.constraints.values() if amount > 0)
    if broken:
        return 2, broken, 0.0
    if trial.state == TrialState.COMPLETE:
        return 0, _lessened(trial.value, sign), 0.0
    last = max(trial.intermediate_values, default=None)
    return (1, 1.0, 0.0) if last is None else (1, -last, _lessened(trial.intermediate_values[last], sign))


def _lessened(value: float | None, sign: float) -> float:
    """A value where less is better; what is no number is worst."""
    return math.inf if value is None or math.isnan(value) else sign * value


def announce(
    study: Study, trial: FrozenTrial, values: Mapping[str, Any], space: Mapping[str, BaseDistribution]
) -> None:
    """Store which values a trial will have, for those who ask before it has taken them up, in other processes too."""
    text = json.dumps({name: space[name].to_internal_repr(value) for name, value in values.items()})
    for at in range(0, len(text), LONGEST):
        study._storage.set_trial_system_attr(trial._trial_id, f"{ATTRIBUTE}:{at // LONGEST}", text[at : at + LONGEST])


def without_outcome(
    study: Study, trial: FrozenTrial, space: Mapping[str, BaseDistribution]
) -> Iterator[Mapping[str, Any]]:
    """Values of the other trials that run, or failed; those that are announced, where one has not taken them up yet."""
    for other in study.get_trials(deepcopy=False, states=WITHOUT_OUTCOME):
        values = dict(other.params)
        if other.state == TrialState.RUNNING:  # what was enqueued is taken up whatever is proposed beside it
            values = _announced(other, space) | other.system_attrs.get("fixed_params", {}) | values
        if values and other.number != trial.number:
            yield values


def _announced(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    parts: list[str] = []
    while (part := trial.system_attrs.get(f"{ATTRIBUTE}:{len(parts)}")) is not None:
        parts.append(part)
    try:
        said = json.loads("".join(parts) or "{}")
    except json.JSONDecodeError:  # read between two of its parts
        return {}
    return {name: space[name].to_external_repr(value) for name, value in said.items() if name in space}
