"""Entry of the sandboxed worker that reads controllers. Its weights are untrusted, as every checkpoint is.

Nothing is imported here but the standard library and what needs no torch: see `interp.worker`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from selfimprove.archive.files import read_all
from selfimprove.errors import ConfigError, InvalidCheckpoint

WEIGHTS = "weights"


def warm_up() -> None:
    """Read one small controller, so that a job does neither import nor first-call work."""
    import torch

    torch.set_num_threads(1)

    from interp.controller_reading import Asking, read_controller
    from selfimprove.controller.config import ControllerConfig
    from selfimprove.controller.grammar import Grammar
    from selfimprove.controller.policy import initial_weights, load_policy
    from selfimprove.controller.survey import Scale, describe, parents
    from selfimprove.genome.space import Space

    grammar, genome = Grammar(Space()), ControllerConfig().genome()
    network = load_policy(genome, grammar, initial_weights(genome, grammar, 0))
    few = describe(parents(grammar, 12), grammar, Scale(32, 24, 10**9, (("parameters", 1e6),)))
    read_controller(network, grammar, few, genome, Asking(rows=2, temperature=1.0, epsilon=0.5, seed=0))


def run(
    job: dict[str, Any],
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
    emit: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Read one controller.

    Args:
        job: ``{op: "inspect_controller", genome, space, init, sha256, survey, parent, asking}``: the controller's
            genome, the space of its grammar, the seed of its initial weights, the hash that its weights must have,
            the fields of ``Survey``, the genome that it will be asked about, the fields of ``Asking``.
        inputs: ``weights``, read-only; without it, the initial ones are drawn.
        outputs: unused; the record is the return value.
        emit: called as a sign of life.

    Returns:
        `interp.controller_reading.ControllerReading.to_json`.

    Raises:
        ConfigError: an unknown operation.
        InvalidCheckpoint: weights that do not fit the genome, or have another hash.
    """
    if job.get("op") != "inspect_controller":
        raise ConfigError("controller inspection job", job.get("op"), "op=inspect_controller")

    from interp.checkpoint import load_model
    from interp.controller_reading import Asking, read_controller
    from selfimprove.controller.grammar import Grammar
    from selfimprove.controller.policy import initial_weights, load_policy
    from selfimprove.controller.survey import Survey
    from selfimprove.genome.genome import Genome
    from selfimprove.genome.space import Space, SpaceConfig

    grammar, genome = Grammar(Space(SpaceConfig(**job["space"]))), Genome.from_json(job["genome"])
    if WEIGHTS in inputs:
        data = read_all(inputs[WEIGHTS])
        if (found := hashlib.sha256(data).hexdigest()) != job["sha256"]:
            raise InvalidCheckpoint("hash of the controller", found, job["sha256"], "run: selfimprove audit")
        network = load_model(data, genome, vocab_size=len(grammar), context=grammar.context)
    else:
        network = load_policy(genome, grammar, initial_weights(genome, grammar, job["init"]))
    emit({"instrument": "controller", "verdict": "loaded"})
    survey = Survey(tuple(map(tuple, job["survey"]["prefixes"])), job["survey"]["quantities"])
    return read_controller(network, grammar, survey, Genome.from_json(job["parent"]), Asking(**job["asking"])).to_json()
