"""The controller, read at the end of each generation: what its stream carries of a parent, what it would propose next.

It is read in a contained worker, as every checkpoint. What it draws comes back as token ids, and is decoded and judged
here, by the policy: a worker's own word on what would be denied counts for nothing. Nothing here can end a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from selfimprove.canonical import canonical, finite
from selfimprove.containment.policy import assess
from selfimprove.containment.supervisor import Completed, Job
from selfimprove.controller.survey import ALLOWANCE, PARENTS, Scale, survey, tally
from selfimprove.controller.transformer import WEIGHTS, TransformerProposer
from selfimprove.errors import SelfImproveError
from selfimprove.genome.genome import Genome
from selfimprove.loop.climbing import tasks_of
from selfimprove.loop.propensity import propensities, refused
from selfimprove.loop.reign import Reign
from selfimprove.loop.slots import Bench, describe
from selfimprove.loop.submission import REASON, printable
from selfimprove.nets.cost import Quote
from selfimprove.seeds import derive
from selfimprove.tasks.score import Proportion

INSPECTOR = "interp.controller_worker"
_VERDICTS = frozenset({"read", "unreadable", "failed", "not_applicable"})
_MOST = 1 << 16  # bytes of a worker's figures that a record keeps

Record = dict[str, Any]


def examine(bench: Bench, n: int, proposer: object, parent: Genome, ruling: Reign) -> Record:
    """Read the controller as generation ``n`` left it; the body of a ``controller_inspection`` record.

    Args:
        bench: workers and memory.
        n: the generation; 0: the controller has learned nothing yet.
        proposer: the run's controller. One that is no model has nothing to be read.
        parent: what it will be asked to edit next.
        ruling: its weights.

    Returns:
        ``verdict``, ``reason``; ``weights_sha256`` (None for the initial ones); ``proposals``: what became of those of
        this generation, which the controller of the one before made; and, where it was read, the figures of
        `interp.controller_reading`, with ``sampled`` in place of ``drawn``: how many of those the policy would deny.
    """
    record: Record = {"generation": n, "weights_sha256": None, "proposals": _fates(bench, n)}
    if not isinstance(proposer, TransformerProposer):
        reason = f"controller={bench.config.controller.name} is no model: there is nothing to read"
        return record | {"verdict": "not_applicable", "reason": reason}
    found = read_controller(bench, f"g{n:03d}/controller", n, proposer, parent, ruling)
    return record | {"weights_sha256": ruling.sha256} | found


def read_controller(
    bench: Bench, key: str, n: int, proposer: TransformerProposer, parent: Genome, ruling: Reign
) -> Record:
    """``verdict``, ``reason`` and figures of one controller: see ``examine``."""
    inputs = {WEIGHTS: bench.run_dir / ruling.weights} if ruling.weights else {}
    payload = _payload(bench, n, proposer, parent, ruling.sha256)
    outcome = bench.run_one(Job(key, "lens", INSPECTOR, payload, inputs, (), bench.limits()))
    if not isinstance(outcome, Completed):
        return {"verdict": "failed", "reason": describe(outcome)[1]}
    return _found(outcome.result, bench, n, proposer, parent)


def _payload(bench: Bench, n: int, proposer: TransformerProposer, parent: Genome, sha256: str | None) -> Record:
    config = bench.config.controller
    return {
        "op": "inspect_controller",
        **proposer.built(),
        "sha256": sha256,
        "survey": asdict(
            survey(bench.config.space, _scale(bench), min(PARENTS, 2 * bench.config.inspection.sequences))
        ),
        "parent": parent.to_json(),
        "asking": {
            "rows": _most_drawn(bench),
            "temperature": config.temperature,
            "epsilon": config.epsilon,
            "seed": derive(bench.config.seed, "inspect controller", n),
        },
    }


def _most_drawn(bench: Bench) -> int:
    """Proposals to draw and judge: 64 by default, of which none denied leaves a rate of up to 0.057."""
    return max(1, min(PARENTS, bench.config.inspection.sequences) // 3)


def _scale(bench: Bench) -> Scale:
    config = bench.config
    size = {"vocab_size": config.tasks.vocab_size, "context": config.tasks.context}
    return Scale.of(asdict(config.limits), **size, allowance_flops=config.allowance_flops)


def _fates(bench: Bench, n: int) -> dict[str, int]:
    """What this generation's proposals reached for, and how many were refused."""
    made, denied = ([b for b in bench.journal.all(kind) if b["generation"] == n] for kind in ("proposal", "denial"))
    return {"n": len(made), "denied": len(denied), "refused": refused(made, denied), **propensities(made, denied)}


def _found(answer: Mapping[str, Any], bench: Bench, n: int, proposer: TransformerProposer, parent: Genome) -> Record:
    """A worker's answer, reduced to what a record consists of; ``failed`` where it has not that form."""
    try:
        verdict, reason = answer["verdict"], printable(str(answer["reason"]), REASON)
        if verdict not in _VERDICTS:
            raise ValueError(f"verdict {printable(str(verdict), REASON)}")
        if verdict != "read":
            return {"verdict": verdict, "reason": reason}
        figures: Record = {name: finite(answer[name]) for name in ("entropy", "outside_grammar")}
        figures |= _probed(answer["layers"], answer["probes"])
        if len(canonical(figures)) > _MOST:
            raise ValueError(f"more than {_MOST} bytes")
        sampled = _judged(answer["drawn"], bench, n, proposer, parent)
        return {"verdict": verdict, "reason": reason, **figures, "sampled": sampled}
    except (SelfImproveError, KeyError, TypeError, ValueError) as error:
        said = printable(f"the answer has not the form of a reading: {error}", REASON)
        return {"verdict": "failed", "reason": said}


def _probed(layers: Any, probes: Any) -> Record:
    """Probes by quantity, in their form: figures that are numbers, or one share a layer; ``accuracy`` is of these.

    Raises:
        ValueError: they have another one.
    """
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, str) for layer in layers):
        raise ValueError("layers: names")
    if not isinstance(probes, dict) or not all(isinstance(probe, dict) for probe in probes.values()):
        raise ValueError("probes: figures by quantity")
    for probe in probes.values():
        shares = [figure for figure in probe.values() if isinstance(figure, list)]
        numbers = [figure for figure in probe.values() if not isinstance(figure, list)]
        if not all(len(share) == len(layers) and all(map(_is_share, share)) for share in shares):
            raise ValueError("probes: a share for each layer")
        if not isinstance(probe.get("accuracy"), list) or any(finite(number) is None for number in numbers):
            raise ValueError("probes: an accuracy by layer, and numbers")
    return {"layers": layers, "probes": probes}


def _is_share(value: Any) -> bool:
    number = finite(value)
    return number is not None and 0 <= number <= 1


def _judged(drawn: Any, bench: Bench, n: int, proposer: TransformerProposer, parent: Genome) -> Record:
    """What the policy would make of proposals, given as token ids.

    Raises:
        InvalidEdit: ids that spell no proposal.
        ValueError: none, or more than were asked for.
    """
    if not isinstance(drawn, list) or not 0 < len(drawn) <= _most_drawn(bench):
        raise ValueError(f"drawn: 1 to {_most_drawn(bench)} proposals")
    tasks, limits, device = tasks_of(bench, n + 1), bench.config.limits, bench.config.device

    def denial(price: Quote) -> str | None:
        denied = assess(price, limits, device=device)
        return None if denied is None else denied.limit or ALLOWANCE

    pairs = [(parent, proposer.grammar.decode(ids, parent).genome) for ids in drawn]
    found = tally(pairs, _scale(bench), lambda genome: bench.price(genome, tasks), denial)
    return asdict(found) | {"denied": vars(Proportion.of(found.denied, found.n))}
