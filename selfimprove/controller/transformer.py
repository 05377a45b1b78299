"""The learned controller on the trusted side: it prices, asks the sandboxed worker, trusts no answer. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from selfimprove.archive.checkpoint import ingest
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

ENTRY = "selfimprove.controller.worker"
WEIGHTS = "weights"  # name of the input of both operations and of the output of ``tell``


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

    def tell_price(self) -> Price:
        """Price of one update: its steps, and one more for measuring the result."""
        return self._price(self.genome.recipe.batch, self._config.steps + 1)

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
        for item in _rows(answer, payload["rows"]):
            if len(selection.proposals) == count:
                break
            selection.offer(*self._proposal(item, parents))
        return selection.fill(self.grammar, count, derive(seed, "fill"))

    def tell(self, history: Sequence[Experience], seed: int) -> Update:
        """See ``Proposer.tell``. A diverged update is dropped and paid for.

        Raises:
            InvalidCheckpoint: the weights do not fit the controller's genome, or are not finite.
            InvalidEdit: the worker's answer is malformed.
        """
        history = [experience for experience in history if experience.edits]  # what was no edit cannot be spelled
        if not history:
            return Update(flops=0)
        shown = lessons(
            self.grammar,
            history,
            self._genome_of,
            prior_count=self._config.prior_count,
            seed=derive(seed, "rehearse"),
        )
        payload = self._payload("tell", self.tell_price(), derive(seed, "train")) | {
            "lessons": [asdict(lesson) for lesson in shown],
            "steps": self._config.steps,
        }
        answer = self._execute(payload, self._inputs(), (WEIGHTS,))
        if _field(answer.result, "diverged", bool):
            return Update(flops=payload["price"]["flops"])
        weights = answer.outputs.get(WEIGHTS, b"")
        ingest(weights, self.shapes)
        loss, entropy = (_field(answer.result, name, float) for name in ("loss", "entropy"))
        return Update(payload["price"]["flops"], loss, entropy, weights)

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

    def _inputs(self) -> dict[str, Path]:
        return {} if self._weights is None else {WEIGHTS: self._weights}

    def _price(self, batch: int, steps: int, *, forward_only: bool = False) -> Price:
        """Price of steps over whole contexts; a forward pass is a third of a step, and takes at most its memory."""
        genome, context = replace(self.genome, recipe=replace(self.genome.recipe, batch=batch)), self.grammar.context
        step = cost.quote(genome, vocab_size=len(self.grammar), context=context, allowance_flops=0)
        flops = -(-step.flops_per_step * steps // 3) if forward_only else step.flops_per_step * steps
        return Price(step.parameters, flops, steps * batch * context, steps, step.memory_bytes)

    def _proposal(self, item: object, parents: Sequence[Genome]) -> tuple[Proposal, Genome]:
        parent = _field(item, "parent", int)
        if not 0 <= parent < len(parents):
            raise InvalidEdit("read the controller's parent", parent, f"0 to {len(parents) - 1}")
        walk = self.grammar.decode(_field(item, "ids", list), parents[parent])
        log_prob, entropy = _field(item, "log_prob", float), _field(item, "entropy", float)
        if log_prob > 0:
            raise InvalidEdit("read the controller's log_prob", log_prob, "at most 0")
        return Proposal(parent, walk.edits, log_prob, entropy), walk.genome


def _rows(answer: object, limit: int) -> list[Any]:
    rows: list[Any] = _field(answer, "proposals", list)
    if len(rows) > limit:
        raise InvalidEdit("read the controller's proposals", f"{len(rows)} of them", f"at most {limit}")
    return rows


def _field(value: object, name: str, kind: type) -> Any:
    """Read one field of an untrusted JSON object, of exactly this type; numbers must be finite."""
    found = value.get(name) if isinstance(value, Mapping) else None
    if type(found) is not kind or (isinstance(found, float) and not math.isfinite(found)):
        raise InvalidEdit(f"read the controller's {name}", type(found).__name__, f"a (finite) {kind.__name__}")
    return found
