"""Policy gradient on the controller model. Needs torch; runs in the sandbox.

REINFORCE (Williams 1992), as it was first used for architectures by Zoph and Le (2017, arXiv 1611.01578): the
log-probability of what was proposed, times how much better it did than the baseline. A run gives few generations, and
one step for each would teach next to nothing; so several are taken, each action weighed by how much more likely it has
become since it was drawn, and left alone where that exceeds ``MOST`` (clipping: Schulman et al. 2017, arXiv 1707.06347;
their 1.2 is for thousands of updates, not for ten). The first step is REINFORCE's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfimprove.controller.grammar import GOAL, Grammar
from selfimprove.controller.policy import Learned, Weights, choice_probabilities, load_policy
from selfimprove.genome.genome import Genome
from selfimprove.nets.transformer import Transformer
from selfimprove.training.optimizers import make_optimizers

MOST = 4.0  # times as likely as when it was drawn, or one so-many-th


@dataclass(frozen=True)
class Play:
    """A proposal and what it was worth.

    Args:
        parent: the genome that it edits.
        ids: its action's token ids, up to ``<eos>``.
        advantage: its reward over the baseline, in standard deviations.
    """

    parent: Genome
    ids: tuple[int, ...]
    advantage: float


def ascend(
    genome: Genome,
    grammar: Grammar,
    plays: Sequence[Play],
    weights: Weights,
    *,
    steps: int,
    temperature: float,
    epsilon: float,
    on_step: Callable[[int, float], None] | None = None,
) -> Learned:
    """Make what did better than the baseline more likely, by the optimizer of the controller's own recipe.

    Args:
        genome: the controller's own; of its recipe the optimizer, the peak learning rate and the clip matter here.
        plays: at least one.
        weights: those that the plays were drawn with.
        steps: each over all plays.
        temperature: as they were drawn.
        epsilon: as they were drawn.
        on_step: called after each step with the steps taken and the loss.

    Returns:
        The loss is that of the last step; the entropy is per choice (nats), over the plays.

    Raises:
        InvalidEdit: ids that spell no proposal.
    """
    model = load_policy(genome, grammar, weights)
    chances = _Chances(grammar, plays, temperature, epsilon)
    advantages = torch.tensor([play.advantage for play in plays])
    optimizers, parameters = make_optimizers(model, genome.recipe), list(model.parameters())
    before = chances.log_probs(model).detach()
    loss = torch.zeros(())
    for step in range(steps):
        ratio = (chances.log_probs(model) - before).exp()
        loss = -torch.minimum(ratio * advantages, ratio.clamp(1 / MOST, MOST) * advantages).mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, genome.recipe.clip or torch.inf)
        for optimizer in optimizers:
            optimizer.step()
        if on_step is not None:
            on_step(step + 1, loss.item())
    end = {name: value.detach() for name, value in model.state_dict().items()}
    if not all(bool(value.isfinite().all()) for value in end.values()):
        return Learned(weights, 0.0, 0.0, diverged=True)
    return Learned(end, loss.item(), chances.entropy(model), diverged=False)


class _Chances:
    """The plays as one padded batch, and what could have stood in the place of each token."""

    def __init__(self, grammar: Grammar, plays: Sequence[Play], temperature: float, epsilon: float) -> None:
        rows = [[*grammar.prefix(play.parent, GOAL), *play.ids[:-1]] for play in plays]
        choices = [grammar.choices(play.ids, play.parent) for play in plays]
        self._inputs = nn.utils.rnn.pad_sequence(
            list(map(torch.tensor, rows)), batch_first=True, padding_value=grammar.pad
        )
        first = len(rows[0]) - len(plays[0].ids) + 1
        places = [(row, first - 1 + step) for row, play in enumerate(plays) for step in range(len(play.ids))]
        self._row, self._column = (torch.tensor(part) for part in zip(*places, strict=True))
        self._allowed = [allowed for of_play in choices for allowed in of_play]
        self._taken = torch.tensor([token for play in plays for token in play.ids])
        self._temperature, self._epsilon, self._count = temperature, epsilon, len(plays)

    def log_probs(self, model: Transformer) -> Tensor:
        """``[play]``: natural log of the probability with which each was drawn."""
        taken = self._of_choices(model).gather(1, self._taken.unsqueeze(1)).squeeze(1).log()
        return torch.zeros(self._count, dtype=taken.dtype).index_add(0, self._row, taken).float()

    def entropy(self, model: Transformer) -> float:
        """Mean over the choices, in nats."""
        with torch.inference_mode():
            return float(torch.special.entr(self._of_choices(model)).sum(-1).mean())

    def _of_choices(self, model: Transformer) -> Tensor:
        logits = model(self._inputs)[self._row, self._column]
        return choice_probabilities(logits / self._temperature, self._allowed, self._epsilon)
