"""The learned controller on the trusted side: it prices, asks the sandboxed worker, trusts no answer. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from selfimprove.archive.checkpoint import ingest
from selfimprove.controller.answers import ENTRY, chosen, field, rows
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.lessons import lessons
from selfimprove.controller.proposer import Execute, Experience, GenomeOf, Price, Proposal, Update
from selfimprove.controller.random_search import Selection
from selfimprove.errors import InvalidEdit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.nets import cost
from selfimprove.seeds import derive

WEIGHTS = "weights"  # name of the input of ``ask`` and ``tell`` and of the output of ``tell`` and ``trial``


@dataclass(frozen=True)
class HeldOut:
    """A proposal whose outcome is known and that a controller on trial has not seen.

    Args:
        parent: the genome that it edits.
        ids: its action's token ids, in the grammar of the space.
    """

    parent: Genome
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """A controller trained from its beginning on one part of a history, and asked about the rest.

    Args:
        flops: price of both.
        loss: as in ``Update``; None where it diverged.
        log_probs: natural log of the probability of each held-out proposal; empty where it diverged.
        weights: as in ``Update``; None where it diverged.
    """

    flops: int
    loss: float | None = None
    log_probs: tuple[float, ...] = ()
    weights: bytes | None = None


class TransformerProposer:
    """Autoregressive transformer over edit tokens, built from a genome like any successor.

    Args:
        config: sampling and training settings.
        space: where the edits come from.
        execute: runs a job in the sandbox.
        genome_of: finds the parents of the history.
        seed: of the initial weights: every job of a run starts from the same ones until weights are restored.
        genome: the controller's own genome; default: ``config.genome()``. A promoted genome goes here.
    """

    def __init__(
        self,
        config: ControllerConfig,
        space: Space,
        execute: Execute,
        genome_of: GenomeOf,
        seed: int,
        genome: Genome | None = None,
    ) -> None:
        self.genome = genome or config.genome()
        self.grammar = Grammar(space)
        self._config = config
        self._space = space
        self._execute = execute
        self._genome_of = genome_of
        self._seed = seed
        self._weights: Path | None = None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes that the controller's weights must have."""
        genome = self.genome
        return cost.parameter_shapes(genome.architecture, len(self.grammar), self.grammar.context, genome.heads)

    def ask_price(self, count: int) -> Price:
        """Price of asking for ``count`` proposals: a forward pass, a third of a training step, per action token."""
        return self._price(count * self._config.oversample, self.grammar.action_tokens, forward_only=True)

    def tell_price(self, more: int = 0) -> Price:
        """Price of one update: its steps, and one more for measuring the result; ``more``: FLOPs to train for beyond.

        The steps are as many as the first controller's would cost: a genome pays for what it makes larger.
        """
        return self._price(self.genome.recipe.batch, self._steps(more) + 1)

    def trial_price(self, updates: int, held_out: int) -> Price:
        """Price of a trial: the training of so many updates at once, and a forward pass over what is held out."""
        batch = self.genome.recipe.batch
        training = self._price(batch, self._steps(updates=updates) + 1)
        rating = self._price(held_out, 1, forward_only=True)
        sums = {name: getattr(training, name) + getattr(rating, name) for name in ("flops", "tokens", "steps")}
        return replace(training, **sums, memory_bytes=max(training.memory_bytes, rating.memory_bytes))

    def ask(self, parents: Sequence[Genome], history: Sequence[Experience], count: int, seed: int) -> list[Proposal]:
        """See ``Proposer.ask``. Where the model repeats itself, random ones (``log_prob`` None) fill up.

        Raises:
            InvalidEdit: the worker's answer is not a list of valid, distinct proposals.
        """
        payload = self._payload("ask", self.ask_price(count), derive(seed, "sample")) | {
            "parents": [parent.to_json() for parent in parents],
            "rows": count * self._config.oversample,
            "temperature": self._config.temperature,
            "epsilon": self._config.epsilon,
        }
        answer = self._execute(payload, self._inputs(), ()).result
        selection = Selection(parents, history)
        for item in rows(answer, payload["rows"]):
            if len(selection.proposals) == count:
                break
            selection.offer(*self._proposal(item, parents))
        return selection.fill(self.grammar, count, derive(seed, "fill"))

    def tell(self, history: Sequence[Experience], seed: int, more: int = 0) -> Update:
        """See ``Proposer.tell``. A diverged update is dropped and paid for. ``more``: see ``tell_price``.

        Raises:
            InvalidCheckpoint: the weights do not fit the controller's genome, or are not finite.
            InvalidEdit: the worker's answer is malformed.
        """
        history = [one for one in history if one.edits and not one.is_unjudged]  # what was no edit cannot be spelled
        if not history:
            return Update(flops=0)
        price = self.tell_price(more)
        payload = self._payload("tell", price, derive(seed, "train")) | {
            "lessons": self._lessons(history, seed),
            "steps": price.steps - 1,
        }
        return self._updated(payload)

    def trial(self, history: Sequence[Experience], held_out: Sequence[HeldOut], updates: int, seed: int) -> Trial:
        """Train from the initial weights on a history, for what ``updates`` cost, and rate what it does not hold.

        Args:
            history: at least one experience; each has edits.
            held_out: what to rate; at least one.
            updates: how many updates the training costs as much as.
            seed: of the lessons' draws.

        Raises:
            InvalidCheckpoint: the weights do not fit this genome, or are not finite.
            InvalidEdit: the worker's answer is malformed.
        """
        parents = {one.parent.sha256: one.parent for one in held_out}
        places = {sha256: place for place, sha256 in enumerate(parents)}
        price = self.trial_price(updates, len(held_out))
        payload = self._payload("trial", price, derive(seed, "train")) | {
            "lessons": self._lessons(history, seed),
            "steps": self._steps(updates=updates),
            "parents": [parent.to_json() for parent in parents.values()],
            "held_out": [[places[one.parent.sha256], list(one.ids)] for one in held_out],
            "temperature": self._config.temperature,
            "epsilon": self._config.epsilon,
        }
        answer = self._execute(payload, {}, (WEIGHTS,))
        if field(answer.result, "diverged", bool):
            return Trial(price.flops)
        weights = answer.outputs.get(WEIGHTS, b"")
        ingest(weights, self.shapes)
        log_probs = field(answer.result, "log_probs", list)
        if len(log_probs) != len(held_out) or not all(type(p) is float and -math.inf < p <= 0 for p in log_probs):
            raise InvalidEdit("read the controller's log_probs", len(log_probs), f"{len(held_out)} numbers up to 0")
        return Trial(price.flops, field(answer.result, "loss", float), tuple(log_probs), weights)

    def restore(self, weights: Path | None) -> None:
        """See ``Proposer.restore``."""
        self._weights = weights

    def built(self) -> dict[str, Any]:
        """How the model is built, for whoever reads it: genome, space of its grammar, seed of its first weights."""
        return {"genome": self.genome.to_json(), "space": asdict(self._space.config), "init": self._seed}

    def _payload(self, operation: str, price: Price, seed: int) -> dict[str, Any]:
        return {
            "entry": ENTRY,
            "op": operation,
            "price": asdict(price),
            "seed": seed,
            **self.built(),
        }

    def _updated(self, payload: dict[str, Any]) -> Update:
        """Run a job that trains, and what came of it."""
        answer = self._execute(payload, self._inputs(), (WEIGHTS,))
        if field(answer.result, "diverged", bool):
            return Update(flops=payload["price"]["flops"])
        weights = answer.outputs.get(WEIGHTS, b"")
        ingest(weights, self.shapes)
        loss, entropy = (field(answer.result, name, float) for name in ("loss", "entropy"))
        return Update(payload["price"]["flops"], loss, entropy, weights)

    def _steps(self, more: int = 0, updates: int = 1) -> int:
        """Training steps for what some updates of the first controller cost, and ``more`` FLOPs; at least one."""
        first = self._config.genome()
        own, theirs = (self._quote(one, one.recipe.batch).flops_per_step for one in (self.genome, first))
        return max(1, (updates * self._config.steps * theirs + more) // own)

    def _lessons(self, history: Sequence[Experience], seed: int) -> list[dict[str, Any]]:
        prior, draws = self._config.prior_count, derive(seed, "rehearse")
        return [asdict(one) for one in lessons(self.grammar, history, self._genome_of, prior_count=prior, seed=draws)]

    def _inputs(self) -> dict[str, Path]:
        return {} if self._weights is None else {WEIGHTS: self._weights}

    def _price(self, batch: int, steps: int, *, forward_only: bool = False) -> Price:
        """Price of steps over whole contexts; a forward pass is a third of a step, and takes at most its memory."""
        step, context = self._quote(self.genome, batch, whole=forward_only), self.grammar.context
        flops = -(-step.flops_per_step * steps // 3) if forward_only else step.flops_per_step * steps
        return Price(step.parameters, flops, steps * batch * context, steps, step.memory_bytes)

    def _quote(self, genome: Genome, batch: int, *, whole: bool = False) -> cost.Quote:
        """Quote of a training; ``whole``: on whole sequences, as asking takes them, whatever its recipe trains on."""
        recipe = replace(genome.recipe, batch=batch, context=1.0 if whole else genome.recipe.context)
        size = {"vocab_size": len(self.grammar), "context": self.grammar.context}
        return cost.quote(replace(genome, recipe=recipe), **size, allowance_flops=0)

    def _proposal(self, item: object, parents: Sequence[Genome]) -> tuple[Proposal, Genome]:
        parent, walk = chosen(self.grammar, item, parents)
        log_prob, entropy = field(item, "log_prob", float), field(item, "entropy", float)
        if log_prob > 0:
            raise InvalidEdit("read the controller's log_prob", log_prob, "at most 0")
        return Proposal(parent, walk.edits, log_prob, entropy), walk.genome
