"""Entry module of the controller's sandboxed worker.

``ask`` samples proposals; ``tell`` trains on lessons, ``reinforce`` by policy gradient; ``trial`` trains from the
beginning and rates held-out proposals; ``forecast`` proposes what the forecaster expects most of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch

from selfimprove.archive.files import read_all, write_all
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.forecaster import read_forecaster
from selfimprove.controller.forecasting import Tried
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.lessons import Lesson, lessons
from selfimprove.controller.market import Market
from selfimprove.controller.policy import Learned, Weights, initial_weights, learn, load_policy, rate, sample
from selfimprove.controller.policy_gradient import Play, ascend
from selfimprove.controller.proposer import Experience
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, SpaceConfig

WEIGHTS = "weights"
Emit = Callable[[dict[str, Any]], None]


def warm_up() -> None:
    """Sample once and train one step, so that jobs forked from here start with everything imported and allocated."""
    torch.set_num_threads(1)
    grammar, genome = Grammar(Space(SpaceConfig())), ControllerConfig().genome()
    weights = initial_weights(genome, grammar, 0)
    model = load_policy(genome, grammar, weights)
    drawn = sample(model, grammar, [genome], rows=2, temperature=1.0, epsilon=0.5, seed=0)
    edits = grammar.decode(drawn[0].ids, genome).edits
    history = [Experience(0, genome.sha256, edits, "same")]
    shown = lessons(grammar, history, lambda _: genome, prior_count=1.0, seed=0)
    learn(genome, grammar, shown, weights, steps=1, seed=0)


def run(job: dict[str, Any], inputs: Mapping[str, int], outputs: Mapping[str, int], emit: Emit) -> dict[str, Any]:
    """Do one job.

    Args:
        job: payload of ``TransformerProposer`` or ``ForecastProposer``.
        inputs: descriptor of ``weights`` (safetensors) to start from, or of the forecaster's; without it, the initial
            ones are drawn from ``job["init"]``, which is the same in every job of a run.
        outputs: descriptor of ``weights`` to write, for ``tell`` and ``reinforce``, and, where they are wanted,
            ``trial``.
        emit: called with a small JSON object as a sign of life.

    Returns:
        ``ask``: ``{"proposals": [{parent, ids, log_prob, entropy}]}``; ``forecast``: the same without the last two;
        ``tell`` and ``reinforce``: ``{"diverged", "loss", "entropy"}``; ``trial``: the same, and ``log_probs``: one a
        held-out proposal, none where it diverged.

    Raises:
        InvalidCheckpoint: the weights do not fit the genome.
        InvalidEdit: a proposal that the grammar cannot spell.
        ValueError: an unknown operation.
    """
    torch.set_num_threads(1)
    emit({"op": job["op"], "step": 0})
    grammar = Grammar(Space(SpaceConfig(**job["space"])))
    if job["op"] == "forecast":
        return _forecast(job, grammar, inputs)
    genome = Genome.from_json(job["genome"])
    if WEIGHTS in inputs:
        weights = safetensors.torch.load(read_all(inputs[WEIGHTS]))
        load_policy(genome, grammar, weights)
    else:
        weights = initial_weights(genome, grammar, job["init"])
    if job["op"] == "ask":
        return _ask(job, genome, grammar, weights)
    if job["op"] == "tell":
        return _said(_learned(job, genome, grammar, weights, outputs, emit))
    if job["op"] == "reinforce":
        return _said(_reinforced(job, genome, grammar, weights, outputs, emit))
    if job["op"] == "trial":
        return _trial(job, genome, grammar, _learned(job, genome, grammar, weights, outputs, emit))
    raise ValueError(f"controller operation: got {job['op']!r}; allowed: ask, tell, reinforce, trial, forecast")


def _forecast(job: dict[str, Any], grammar: Grammar, inputs: Mapping[str, int]) -> dict[str, Any]:
    model = read_forecaster(read_all(inputs[WEIGHTS])) if job["learned"] else None
    parents, tried = map(Genome.from_json, job["parents"]), map(Tried.from_json, job["tried"])
    market = Market(grammar, list(parents), list(tried), random.Random(job["seed"]), model)
    chosen = market.choose(job["wanted"])
    return {"proposals": [{"parent": option.parent, "ids": grammar.encode(option.edits)} for option in chosen]}


def _ask(job: dict[str, Any], genome: Genome, grammar: Grammar, weights: Weights) -> dict[str, Any]:
    drawn = sample(
        load_policy(genome, grammar, weights),
        grammar,
        [Genome.from_json(parent) for parent in job["parents"]],
        rows=job["rows"],
        temperature=job["temperature"],
        epsilon=job["epsilon"],
        seed=job["seed"],
    )
    return {"proposals": [asdict(item) for item in drawn]}


def _learned(
    job: dict[str, Any], genome: Genome, grammar: Grammar, weights: Weights, outputs: Mapping[str, int], emit: Emit
) -> Learned:
    """Train, and hand out the new weights where they are wanted."""
    learned = learn(
        genome,
        grammar,
        [Lesson(tuple(item["ids"]), item["scored_from"], item["weight"]) for item in job["lessons"]],
        weights,
        steps=job["steps"],
        seed=job["seed"],
        on_step=lambda step, loss: emit({"op": job["op"], "step": step}),
    )
    return _handed_out(learned, outputs)


def _reinforced(
    job: dict[str, Any], genome: Genome, grammar: Grammar, weights: Weights, outputs: Mapping[str, int], emit: Emit
) -> Learned:
    """As ``_learned``, by policy gradient."""
    plays = [Play(Genome.from_json(one["parent"]), tuple(one["ids"]), one["advantage"]) for one in job["plays"]]
    learned = ascend(
        genome,
        grammar,
        plays,
        weights,
        steps=job["steps"],
        temperature=job["temperature"],
        epsilon=job["epsilon"],
        on_step=lambda step, loss: emit({"op": job["op"], "step": step}),
    )
    return _handed_out(learned, outputs)


def _handed_out(learned: Learned, outputs: Mapping[str, int]) -> Learned:
    if WEIGHTS in outputs and not learned.diverged:
        write_all(outputs[WEIGHTS], safetensors.torch.save(learned.weights))
    return learned


def _said(learned: Learned) -> dict[str, Any]:
    return {"diverged": learned.diverged, "loss": learned.loss, "entropy": learned.entropy}


def _trial(job: dict[str, Any], genome: Genome, grammar: Grammar, learned: Learned) -> dict[str, Any]:
    if learned.diverged:
        return _said(learned) | {"log_probs": []}
    rated = rate(
        load_policy(genome, grammar, learned.weights),
        grammar,
        [(Genome.from_json(job["parents"][parent]), ids) for parent, ids in job["held_out"]],
        temperature=job["temperature"],
        epsilon=job["epsilon"],
    )
    return _said(learned) | {"log_probs": rated}
