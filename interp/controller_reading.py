"""One controller, read in one go: can it be read, what does its stream carry of a parent, what does it propose.

For every generation of a run, so it costs a fraction of a second. What it proposes is returned as it was drawn, for the
trusted side to decode and judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.agreement import Agreement
from interp.controller_probes import probe_survey
from interp.hooked import HookedModel, to_hooked
from interp.inspection import MAX_REASON, _plain
from interp.verdict import NotApplicable, Unreadable, Verdict
from selfimprove.controller.grammar import GOAL, Grammar
from selfimprove.controller.policy import sample
from selfimprove.controller.survey import Survey
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer
from selfimprove.seeds import derive

CHECKED = 64  # contexts on which the hooked copy is compared with the controller


@dataclass(frozen=True)
class Asking:
    """How proposals are drawn; see ``ControllerConfig``.

    Attributes:
        rows: proposals to draw.
        temperature, epsilon: of the sampling.
        seed: of the draws and of the control's labels.
    """

    rows: int
    temperature: float
    epsilon: float
    seed: int


@dataclass(frozen=True)
class ControllerReading:
    """What was read.

    Attributes:
        verdict: ``read``, ``unreadable`` (not finite, or the hooked copy is another model) or ``failed``.
        figures: where it was read: ``layers``; ``probes``, by quantity and layer; ``entropy``, mean over the choices
            made while drawing, in nats; ``outside_grammar``, the probability that the model by itself gives to tokens
            that the grammar forbids as the first one: they are never drawn; ``drawn``, token ids of the actions.
    """

    verdict: Verdict
    figures: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**self.verdict.to_json(), **self.figures}


def read_controller(
    network: Transformer, grammar: Grammar, survey: Survey, parent: Genome, asking: Asking
) -> ControllerReading:
    """Read a controller; never raises for what its weights do.

    Args:
        network: the controller.
        grammar: of its tokens.
        survey: parents to probe on.
        parent: what it will be asked to edit.
        asking: how.
    """
    try:
        model = to_hooked(network)
        opening = grammar.walk(parent).allowed
        _require_readable(network, model, torch.tensor(survey.prefixes[:CHECKED]), opening)
        figures = _probes(model, survey, asking.seed) | _draws(network, grammar, parent, asking)
        return ControllerReading(Verdict("read"), _plain(figures, "controller"))
    except NotApplicable as error:
        return ControllerReading(Verdict("not_applicable", str(error)[:MAX_REASON]))
    except Unreadable as error:
        return ControllerReading(Verdict("unreadable", str(error)[:MAX_REASON]))
    except Exception as error:
        return ControllerReading(Verdict("failed", f"{type(error).__name__}: {error}"[:MAX_REASON]))


def _require_readable(
    network: Transformer, model: HookedModel, tokens: Int[Tensor, "n pos"], opening: Sequence[int]
) -> None:
    """The hooked copy must give what the controller gives, in finite numbers.

    Also among the tokens that may open an action alone: the grammar masks all others, and what they are given hides
    nothing in a proposal.

    Raises:
        Unreadable: it does not.
    """
    with torch.no_grad():
        fused, hooked = network(tokens), model(tokens)
    Agreement.of(fused, hooked, "of the controller").require("of the controller")
    if opening:
        fused, hooked = (logits[..., list(opening)] for logits in (fused, hooked))
        Agreement.of(fused, hooked, "of its actions").require("of the controller's actions")


def _probes(model: HookedModel, survey: Survey, seed: int) -> dict[str, Any]:
    found = probe_survey(model, survey, seed=derive(seed, "labels")).stream
    shown = ("accuracy", "low", "high", "control_accuracy", "majority", "n_train", "n_test", "features")
    probes = {result.variable: {name: getattr(result, name) for name in shown} for result in found}
    return {"layers": found[0].layers, "probes": probes}


def _draws(network: Transformer, grammar: Grammar, parent: Genome, asking: Asking) -> dict[str, Any]:
    drawn = sample(network, grammar, [parent], **asdict(asking))
    if not drawn:
        raise NotApplicable("draw proposals", "none", "a parent that the space has edits of")
    with torch.no_grad():
        first = network(torch.tensor([grammar.prefix(parent, GOAL)]))[0, -1].softmax(-1)
    allowed = float(first[list(grammar.walk(parent).allowed)].sum())
    return {
        "entropy": sum(item.entropy for item in drawn) / len(drawn),
        "outside_grammar": max(0.0, 1 - allowed),
        "drawn": [item.ids for item in drawn],
    }
