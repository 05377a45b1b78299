"""REINFORCE on the transformer's own policy model: the same proposals, another way to learn from them. No torch.

The reward of a proposal is its gain over its own parent (see ``worth``), less a moving average over the generations:
the baseline is subtracted in full, so that a generation in which all is bad makes nothing of it more likely, which
would not be so if each were compared with its own mean alone. What is left is divided by the spread of all rewards so
far. Learned is from the newest generation, which the restored weights have drawn: policy gradients are on-policy.
Proposals that filled up at random are among them, as the history does not tell them apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, pstdev

from selfimprove.controller.proposer import Experience, Price, Update
from selfimprove.controller.transformer import TransformerProposer
from selfimprove.controller.worth import worths
from selfimprove.seeds import derive

LEAST_SPREAD = 1e-3  # skill: rewards that differ by less do not differ


class ReinforceProposer(TransformerProposer):
    """A ``TransformerProposer`` that learns by policy gradient."""

    def gradient_price(self, plays: int) -> Price:
        """Price of one update on so many proposals: its steps, and two forward passes that count as one step."""
        return self._price(plays, self._config.steps + 1)

    def tell(self, history: Sequence[Experience], seed: int, more: int = 0) -> Update:
        """See ``Proposer.tell``. A diverged update is dropped and paid for; ``more`` is not spent.

        Raises:
            InvalidCheckpoint: the weights do not fit the controller's genome, or are not finite.
            InvalidEdit: the worker's answer is malformed.
        """
        rewards = [(one, worth) for one, worth in zip(history, worths(history), strict=True) if worth is not None]
        rewards = [(one, worth) for one, worth in rewards if one.edits]
        newest = max((one.generation for one in history), default=0)
        advantages = _advantages(rewards, self._config.baseline)
        plays = [
            {
                "parent": self._genome_of(one.parent).to_json(),
                "ids": self.grammar.encode(one.edits),
                "advantage": advantage,
            }
            for (one, _), advantage in zip(rewards, advantages, strict=True)
            if one.generation == newest
        ]
        if not plays:
            return Update(flops=0)
        payload = self._payload("reinforce", self.gradient_price(len(plays)), derive(seed, "train")) | {
            "plays": plays,
            "steps": self._config.steps,
            "temperature": self._config.temperature,
            "epsilon": self._config.epsilon,
        }
        return self._updated(payload)


class FrozenProposer(TransformerProposer):
    """A ``TransformerProposer`` that never learns: it proposes with its initial weights to the end."""

    def tell(self, history: Sequence[Experience], seed: int, more: int = 0) -> Update:
        """Nothing is learned, nothing is paid."""
        return Update(flops=0)


def _advantages(rewards: Sequence[tuple[Experience, float]], kept: float) -> list[float]:
    """Reward less the moving baseline before its generation (in the first: its mean), in spreads of all rewards."""
    by_generation: dict[int, list[float]] = defaultdict(list)
    for one, reward in rewards:
        by_generation[one.generation].append(reward)
    spread = max(pstdev([reward for _, reward in rewards]), LEAST_SPREAD) if rewards else 1.0
    baselines: dict[int, float] = {}
    baseline: float | None = None
    for generation in sorted(by_generation):
        mean = fmean(by_generation[generation])
        baselines[generation] = mean if baseline is None else baseline
        baseline = mean if baseline is None else kept * baseline + (1 - kept) * mean
    return [(reward - baselines[one.generation]) / spread for one, reward in rewards]
