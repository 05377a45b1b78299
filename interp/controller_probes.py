"""What a controller's residual stream carries about the parent that it is asked about.

The rows are parents drawn from the whole space (`selfimprove.controller.survey`). Each occurs once, in the training
rows or in the test rows, so that nothing can be known by heart. A quantity is asked for as a question with two answers:
is it in the upper half? Beside every probe stand two others:

- the *control*: the same probe on labels drawn for each parent alone. Nothing can be learned but by heart, so its test
  accuracy is what chance gives;
- the *description*: a linear probe on the description itself, one-hot. What the stream gives beyond it was computed;
  what it gives below it was lost on the way.

What the description does not hold can only be found as far as it goes with what it does hold. The remaining budget goes
with nothing, and stands here to show what 'not there' looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from interp import plotting
from interp.bench import residual_names
from interp.hooked import HookedModel
from interp.probes import ProbeResult, probe
from interp.rows import Rows
from selfimprove.controller.survey import Survey
from selfimprove.seeds import derive

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CHUNK = 512  # sequences in one pass, which bounds memory
DESCRIPTION = "description"


@dataclass(frozen=True)
class SurveyProbes:
    """One probe a quantity, at every layer, at one position.

    Attributes:
        position: index into the sequence at which the stream was read.
        stream: probes of the stream, by quantity.
        description: probes of the one-hot description, by quantity; empty where they were not asked for.
    """

    position: int
    stream: tuple[ProbeResult, ...]
    description: tuple[ProbeResult, ...] = ()

    def to_pandas(self) -> pd.DataFrame:
        """One row a quantity and place: accuracy with its 95 % interval, control, majority, rows."""
        import pandas

        rows = []
        for result in (*self.stream, *self.description):
            for at, layer in enumerate(result.layers):
                row = {"quantity": result.variable, "layer": layer, "accuracy": result.accuracy[at]}
                row |= {"low": result.low[at], "high": result.high[at], "control": result.control_accuracy[at]}
                rows.append(row | {"majority": result.majority, "n_train": result.n_train, "n_test": result.n_test})
        return pandas.DataFrame(rows)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy by place in the stream, one line a quantity."""
        title = f"What the controller's stream carries of a parent (position {self.position})"
        series = {result.variable: result.accuracy for result in self.stream}
        return plotting.lines(
            ax, series, self.stream[0].layers, title=title, x="place in the stream", y="accuracy on unseen parents"
        )


def probe_survey(
    model: HookedModel, survey: Survey, *, seed: int, position: int = -1, description: bool = False
) -> SurveyProbes:
    """Probe the stream of a controller for every quantity of a survey.

    Args:
        model: hooked controller.
        survey: parents; the first two thirds are learned from, the rest is scored on.
        seed: of the control's labels.
        position: of the sequence at which the stream is read; the last one by default, from which the first token of
            the action is predicted.
        description: probe the description as well; the same for every controller of a space.

    Raises:
        NotApplicable: a quantity that is the same for all.
        Unreadable: activations that are not finite.
    """
    tokens = torch.tensor(survey.prefixes)
    train = len(tokens) - len(tokens) // 3
    states = stream(model, tokens, position)
    layers = ("embed", *(f"blocks.{layer}" for layer in range(model.cfg.n_layers)))
    at = position % tokens.shape[1]
    found = tuple(_probe(name, layers, states, values, train, seed) for name, values in survey.quantities.items())
    if not description:
        return SurveyProbes(at, found)
    coded = one_hot(tokens)[None]
    spelled = (_probe(name, (DESCRIPTION,), coded, values, train, seed) for name, values in survey.quantities.items())
    return SurveyProbes(at, found, tuple(spelled))


def stream(model: HookedModel, tokens: Int[Tensor, "row pos"], position: int) -> NDArray[np.float32]:
    """The residual stream at one position after the embedding and every block, ``[layer row d_model]``."""
    wanted = residual_names(model.cfg.n_layers)
    parts = []
    for start in range(0, len(tokens), CHUNK):
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens[start : start + CHUNK], names_filter=lambda name: name in wanted)
        parts.append(torch.stack([cache[name][:, position] for name in wanted]))
    found: NDArray[np.float32] = torch.cat(parts, 1).numpy()
    return found


def one_hot(tokens: Int[Tensor, "row pos"]) -> NDArray[np.float32]:
    """One column for each token that occurs at each position, ``[row column]``."""
    columns = [tokens[:, at, None] == torch.unique(tokens[:, at])[None] for at in range(tokens.shape[1])]
    found: NDArray[np.float32] = torch.cat(columns, 1).float().numpy()
    return found


def upper_half(values: Sequence[float], train: int) -> NDArray[np.int64]:
    """1 for the upper half of a quantity by the median of the first ``train`` values, else 0.

    What is at the median goes with the half that it makes more nearly one.
    """
    found = np.asarray(values)
    median = np.median(found[:train])
    above, from_it = found > median, found >= median
    evenly: NDArray[np.bool_] = min((above, from_it), key=lambda half: abs(float(half[:train].mean()) - 0.5))
    return evenly.astype(np.int64)


def _probe(
    name: str,
    layers: Sequence[str],
    states: NDArray[np.float32],
    values: Sequence[float],
    train: int,
    seed: int,
) -> ProbeResult:
    labels = upper_half(values, train)
    types = np.arange(len(labels))  # every parent is a type of its own: the control can be learned only by heart
    parts = slice(None, train), slice(train, None)
    learned, scored = (Rows(states[:, part], labels[part], types[part]) for part in parts)
    return probe(name, layers, learned, scored, seed=derive(seed, name))
