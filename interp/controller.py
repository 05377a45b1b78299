"""The controller of a run, generation by generation, as a hooked model with the contexts that it was asked in.

What it reads is the language of `selfimprove.controller.grammar`: what is asked for, thirteen choices of the parent,
then the edits. Nothing else: neither the remaining budget, nor a limit, nor a score, nor the generation.

This module and those beside it that read controllers import the grammar, the sampling and the policy's limits: what the
loop asks with is what is read here, and it is not written twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Int
from torch import Tensor

from interp.checkpoint import load_model
from interp.hooked import HookedModel, to_hooked
from interp.runs import _checked, _genome, ledger
from interp.verdict import NotApplicable
from selfimprove.containment.policy import Limits, assess
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.grammar import GOAL, Grammar
from selfimprove.controller.policy import initial_weights
from selfimprove.controller.survey import ALLOWANCE, Scale
from selfimprove.errors import RunError
from selfimprove.genome.edits import Edit, parse_edit
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.nets.cost import Quote
from selfimprove.nets.transformer import Transformer
from selfimprove.seeds import derive

Records = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Proposed:
    """One proposal of a run that the controller's grammar can spell.

    Attributes:
        generation, index: its place in the run; it was made by the controller of the generation before.
        parent: what it is an edit of.
        edits: what it changes.
        log_prob: natural log of the probability that the controller gave it, as its worker said; None for those that
            were drawn at random because the model repeated itself or failed.
        status: ``valid``, ``invalid`` or ``duplicate``.
        reach: ``forbidden`` or ``cap`` where it reached for what no edit may have, else empty.
        denied: whether the policy or the loss screen refused it.
        limit: the limit that it passed, None for any other reason or none.
    """

    generation: int
    index: int
    parent: Genome
    edits: tuple[Edit, ...]
    log_prob: float | None
    status: str
    reach: str
    denied: bool
    limit: str | None


@dataclass(frozen=True)
class ControllerGeneration:
    """The controller as one generation left it, ready to be read; 0 is the one that had learned nothing.

    Attributes:
        run_dir: the run folder.
        number: the generation after which it stood like this: it proposed the next one.
        genome: what the controller was built from.
        config: how it is asked.
        grammar: names of its tokens, and which may follow which.
        network: the model as it proposes (fused path).
        record: its ``controller`` record in the ledger; None for generation 0.
        inspection: its ``controller_inspection`` record, or None.
        proposals: of the whole run, oldest first.
        limits: of the run on each candidate.
        scale: what the run's prices depend on, with its tasks at their first levels.
        seed: root of the seeds of its examples.
    """

    run_dir: Path
    number: int
    genome: Genome
    config: ControllerConfig
    grammar: Grammar
    network: Transformer
    record: dict[str, Any] | None
    inspection: dict[str, Any] | None
    proposals: tuple[Proposed, ...]
    limits: Limits
    scale: Scale
    seed: int

    def __str__(self) -> str:
        """One line: which controller, and what became of its proposals."""
        made = self.made
        denied = sum(proposal.denied for proposal in made)
        loss = None if self.record is None else self.record["loss"]
        learned = "nothing was learned in it" if loss is None else f"loss {loss:.3g}"
        fate = f"{denied} of its {len(made)} proposals denied" if made else "it was not asked"
        return f"controller after generation {self.number} of {self.run_dir} ({learned}): {fate}"

    @cached_property
    def model(self) -> HookedModel:
        """The hooked copy."""
        return to_hooked(self.network)

    @property
    def made(self) -> tuple[Proposed, ...]:
        """The proposals that it made: those of the next generation."""
        return tuple(proposal for proposal in self.proposals if proposal.generation == self.number + 1)

    @cached_property
    def tokens(self) -> Int[Tensor, "proposal pos"]:
        """Context and action of every proposal of the run as it was asked for, padded to the longest.

        The same for every generation of a run, so that several controllers can be read on equal contexts.

        Raises:
            NotApplicable: the run has no proposal.
        """
        if not self.proposals:
            raise NotApplicable("tokens of a controller", "no proposal", "a run with at least one generation")
        return self.pad([self.sequence(proposal) for proposal in self.proposals])

    def sequence(self, proposal: Proposed) -> list[int]:
        """Token ids of one proposal, from ``<bos>`` to ``<eos>``; its action begins at ``PREFIX_TOKENS``."""
        return [*self.grammar.prefix(proposal.parent, GOAL), *self.grammar.encode(proposal.edits)]

    def pad(self, sequences: list[list[int]]) -> Int[Tensor, "row pos"]:
        """Sequences of different lengths as one tensor."""
        tokens = torch.full((len(sequences), max(map(len, sequences))), self.grammar.pad)
        for row, ids in enumerate(sequences):
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens

    def names(self, ids: Int[Tensor, " pos"] | list[int]) -> list[str]:
        """Names of tokens."""
        return [self.grammar.tokens[int(token)] for token in ids]

    def under(self, limits: Limits) -> ControllerGeneration:
        """The same controller, judged by other limits."""
        size = {name: getattr(self.scale, name) for name in ("vocab_size", "context", "allowance_flops")}
        return replace(self, limits=limits, scale=Scale.of(asdict(limits), **size))

    def denied(self, price: Quote) -> str | None:
        """The limit for which the policy would deny a price, by name; None if it is within all of them.

        Not covered: the loss screen, which trains, and what is left of the run's budget.
        """
        refused = assess(price, self.limits)
        return None if refused is None else refused.limit or ALLOWANCE


def load_controller(run_dir: str | Path, generation: int) -> ControllerGeneration:
    """Load the controller as it stood after one generation; 0: before it learned anything.

    Where an update failed or diverged, the weights before it are those that stand: where that generation handed over to
    a contender, the contender's.

    Raises:
        NotApplicable: the run's controller is no model.
        RunError: no such run or generation.
        InvalidCheckpoint: a file that is not what the ledger says it is.
    """
    run_dir = Path(run_dir)
    found = ledger(run_dir)
    run = next((body for kind, body in found if kind == "run"), None)
    if run is None:
        raise RunError("open run", str(run_dir), "a ledger that begins with a run record")
    config = ControllerConfig(**run["config"]["controller"])
    if config.name != "transformer":
        raise NotApplicable("load the controller", f"controller={config.name}", "a run whose controller is a model")
    updates = {body["generation"]: body for kind, body in found if kind == "controller"}
    if generation != 0 and generation not in updates:
        raise RunError("load controller", generation, f"0 or generations with a controller: {sorted(updates)}")
    grammar = Grammar(Space(SpaceConfig(**_tuples(run["config"]["space"]))))
    kept = [body for body in _learned(found) if body["generation"] <= generation]
    genome = _genome(found, run, kept[-1]["genome"]) if kept else config.genome()
    return ControllerGeneration(
        run_dir=run_dir,
        number=generation,
        genome=genome,
        config=config,
        grammar=grammar,
        network=_network(run_dir, run, genome, grammar, kept[-1] if kept else None),
        record=updates.get(generation),
        inspection=_of(found, "controller_inspection", generation),
        proposals=tuple(_proposals(found, run, grammar)),
        limits=Limits(**run["config"]["limits"]),
        scale=_scale(run["config"]),
        seed=run["root_seed"],
    )


def _learned(found: Records) -> list[dict[str, Any]]:
    """The records of the weights that the run's controller had, oldest first: updates, and trials that it came from."""
    handed = {body["generation"] for kind, body in found if kind == "handover" and body["accepted"]}
    return [
        body
        for kind, body in found
        if (kind == "controller" or (kind == "trial" and body["generation"] in handed)) and body["weights"]
    ]


def controllers(run_dir: str | Path) -> tuple[int, ...]:
    """Generations of a run that `load_controller` knows, in order: 0 and every one that taught its controller."""
    return (0, *sorted({body["generation"] for kind, body in ledger(Path(run_dir)) if kind == "controller"}))


def _network(
    run_dir: Path, run: Mapping[str, Any], genome: Genome, grammar: Grammar, kept: Mapping[str, Any] | None
) -> Transformer:
    if kept is not None:
        data = _checked(run_dir, kept["weights"], kept["sha256"])
    else:
        data = safetensors.torch.save(initial_weights(genome, grammar, derive(run["root_seed"], "controller", "init")))
    return load_model(data, genome, vocab_size=len(grammar), context=grammar.context)


def _scale(config: Mapping[str, Any]) -> Scale:
    size = {name: config["tasks"][name] for name in ("vocab_size", "context")}
    return Scale.of(config["limits"], **size, allowance_flops=config["allowance_flops"])


def _proposals(found: Records, run: dict[str, Any], grammar: Grammar) -> list[Proposed]:
    """Every proposal whose edits the grammar can spell; others were never written by a controller's model."""
    said = {body["generation"]: body["proposals"] for kind, body in found if kind == "ask"}
    denials = {(body["generation"], body["index"]): body for kind, body in found if kind == "denial"}
    genomes: dict[str, Genome] = {}
    proposals = []
    for kind, body in found:
        if kind != "proposal" or not body["edits"] or body["status"] == "invalid":
            continue
        n, index, parent = body["generation"], body["index"], body["parent"]
        if parent not in genomes:
            genomes[parent] = _genome(found, run, parent)
        edits = tuple(map(parse_edit, body["edits"]))
        denial = denials.get((n, index))
        limit = None if denial is None else denial["limit"]
        log_prob = said[n][index]["log_prob"]
        proposals.append(
            Proposed(
                n, index, genomes[parent], edits, log_prob, body["status"], body["reach"], denial is not None, limit
            )
        )
    return proposals


def _of(found: Records, kind: str, generation: int) -> dict[str, Any] | None:
    return next((body for k, body in found if k == kind and body["generation"] == generation), None)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that a frozen configuration holds."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
