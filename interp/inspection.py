"""Inspection of one model: every instrument run, every answer a value, one record at the end.

The readability check comes first: the hooked copy must give what the trained model gives, in finite numbers. Where it
fails nothing else is believed. An instrument that raises becomes a verdict with its reason, never an exception.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from interp import constraint, lenses, probes
from interp.ablation import ablation
from interp.addition import modular_spectrum
from interp.agreement import TOLERANCE, Agreement
from interp.attribution import attribution
from interp.behavior import halt_behavior
from interp.bench import Bench, Instrument, Plan, Reading, Suite
from interp.circuits import attention_heads
from interp.comparison import comparison
from interp.head_products import ov_qk
from interp.patching import patching
from interp.steering import halt_direction
from interp.verdict import NotApplicable, Unreadable, Verdict
from selfimprove.canonical import canonical
from selfimprove.errors import ConfigError
from selfimprove.nets.transformer import Transformer
from selfimprove.tasks.halt import LATENT as HALTED

SCHEMA = 1
DIGITS = 6  # of every number in a record: beyond that, fp32 has nothing to say
MAX_REASON = 400  # characters
MOST_BYTES = 3 << 15  # of one instrument's figures as JSON: far more than any shipped one has on two families
MOST_TOGETHER = 7 << 15  # of all figures: what a record has room for, less the verdicts

Status = Literal["complete", "incomplete", "failed"]


@dataclass(frozen=True)
class Inspection:
    """What all instruments said about one model.

    Attributes:
        instruments: verdict by instrument, in the order they ran.
        coverage: share of the applicable instruments that read the model, from 0 to 1.
        status: ``complete`` if every applicable one did, ``failed`` if the readability check did not, else
            ``incomplete``.
        summary: the figures, by name; plain JSON values, finite numbers only.
    """

    instruments: dict[str, Verdict]
    coverage: float
    status: Status
    summary: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "status": self.status,
            "coverage": round(self.coverage, DIGITS),
            "instruments": {name: verdict.to_json() for name, verdict in self.instruments.items()},
            "summary": self.summary,
        }


def readability(bench: Bench) -> dict[str, Any]:
    """Fused and hooked paths agree (see `interp.agreement`), on finite numbers, on every family, plain and halted.

    Raises:
        Unreadable: they do not.
    """
    training = bench.model.training
    bench.model.eval()
    try:
        families = bench.suite.families
        plain = [_agreement(bench, bench.task("test", family), f"on {family}") for family in families]
        halted = [_agreement(bench, bench.halted("test", family), f"on halted {family}") for family in families]
    finally:
        bench.model.train(training)
    worst = max(found.difference for found in plain)
    distance = max(found.distance for found in (*plain, *halted))
    return {
        "readability": {"worst_difference": worst, "tolerance": TOLERANCE, "worst_distance": distance},
        "layers": list(bench.layers),
    }


def _agreement(bench: Bench, reading: Reading, what: str) -> Agreement:
    if not torch.isfinite(reading.residual).all():
        raise Unreadable(f"activations {what}", "non-finite values", "finite numbers")
    with torch.no_grad():
        fused = bench.model(reading.tokens.to(bench.hooked.W_E.device))
    found = Agreement.of(fused, reading.logits, what)
    found.require(what)
    return found


def linear_probes(bench: Bench) -> dict[str, Any]:
    """Linear probes for every task latent of the suite, and for 'halted' over all families."""
    results = [probes.probe_variable(bench, v, families=f) for v, f in probes.task_variables(bench).items()]
    results.append(probes.probe_variable(bench, HALTED, families=bench.suite.families))
    return {
        "probes": {r.variable: list(r.accuracy) for r in results},
        "control": {r.variable: list(r.control_accuracy) for r in results},
        "probe_details": {
            r.variable: {
                "low": list(r.low),
                "high": list(r.high),
                "majority": r.majority,
                "n_train": r.n_train,
                "n_test": r.n_test,
                "features": r.features,
                "parameters": r.parameters,
                "converged": list(r.converged),
            }
            for r in results
        },
        "probe_places": {r.variable: {name: vars(place) for name, place in r.places.items()} for r in results},
    }


def logit_lens(bench: Bench) -> dict[str, Any]:
    """Logit lens by layer and family."""
    results = [lenses.lens_family(bench, family) for family in bench.suite.families]
    return {
        "logit_lens": {r.family: list(r.accuracy) for r in results},
        "logit_lens_log_prob": {r.family: list(r.log_prob) for r in results},
    }


def halt_retention(bench: Bench) -> dict[str, Any]:
    """Share of sequences in which the halt constraint holds."""
    result = constraint.bench_retention(bench)
    positions = {"positions_kept": result.positions_kept, "positions": result.positions}
    return {"retention": vars(result.sequences) | positions}


READABILITY = "readability"
INSTRUMENTS: dict[str, Instrument] = {
    READABILITY: readability,
    "probes": linear_probes,
    "logit_lens": logit_lens,
    "constraint": halt_retention,
    "comparison": comparison,
    "attention_heads": attention_heads,
    "attribution": attribution,
    "halt_behavior": halt_behavior,
    "halt_direction": halt_direction,
    "ablation": ablation,
    "patching": patching,
    "ov_qk": ov_qk,
    "modular_spectrum": modular_spectrum,
}


def register(name: str, instrument: Instrument) -> None:
    """Add an instrument: a function from a `Bench` to a part of the summary (a dict of JSON values).

    Raises:
        ConfigError: the name is taken.
    """
    if name in INSTRUMENTS:
        raise ConfigError("register instrument", name, "a name that is not taken", f"taken: {', '.join(INSTRUMENTS)}")
    INSTRUMENTS[name] = instrument


def instruments(names: Sequence[str] | None = None, modules: Sequence[str] = ()) -> dict[str, Instrument]:
    """The named instruments in the order given, all of them for ``None``; the readability check always, and first.

    Args:
        names: of the instruments.
        modules: of one's own that register some of them, for the message.

    Raises:
        ConfigError: an unknown name; the message lists those that exist.
    """
    remedy = f"import the module that registers it: {', '.join(modules)}" if modules else ""
    chosen = list(INSTRUMENTS) if names is None else list(names)
    for name in chosen:
        if name not in INSTRUMENTS:
            raise ConfigError("inspection instruments", name, ", ".join(INSTRUMENTS), remedy)
    return {name: INSTRUMENTS[name] for name in dict.fromkeys([READABILITY, *chosen])}


def inspect(
    model: Transformer,
    suite: Suite,
    plan: Plan,
    *,
    parent: Transformer | None = None,
    names: Sequence[str] | None = None,
    on_verdict: Callable[[str, Verdict], None] = lambda name, verdict: None,
) -> Inspection:
    """Run the readability check, then the named instruments, on one model.

    Args:
        model: a trained network; left as it was.
        suite: where sequences come from.
        plan: seeds and sizes. The same plan, models and suite give the same record.
        parent: the model that this one's genome was edited from, for the instruments that compare the two.
        names: which instruments; all of them by default.
        on_verdict: called after each one, for progress.

    Raises:
        ConfigError: an unknown instrument.
    """
    return inspect_bench(Bench(model, suite, plan, parent), names=names, on_verdict=on_verdict)


def inspect_bench(
    bench: Bench,
    *,
    names: Sequence[str] | None = None,
    on_verdict: Callable[[str, Verdict], None] = lambda name, verdict: None,
) -> Inspection:
    """As `inspect`, of a model that is on the bench already."""
    chosen = instruments(names)
    summary: dict[str, Any] = {}
    verdicts: dict[str, Verdict] = {}
    for name, instrument in chosen.items():
        check = verdicts.get(READABILITY)
        if check is None or check.verdict == "read":
            verdicts[name] = _run(instrument, bench, summary)
        else:
            verdicts[name] = Verdict("unreadable", f"not run: {check.reason}"[:MAX_REASON])
        on_verdict(name, verdicts[name])
    coverage = _coverage(list(verdicts.values()))
    readable = verdicts[READABILITY].verdict == "read"
    status: Status = "failed" if not readable else "complete" if coverage == 1 else "incomplete"
    return Inspection(verdicts, coverage, status, summary)


def _run(instrument: Instrument, bench: Bench, summary: dict[str, Any]) -> Verdict:
    """One instrument; its figures join ``summary`` only if it read the model."""
    try:
        figures = cast(dict[str, Any], _plain(instrument(bench), instrument.__name__))
        _check_size(figures, summary)
        _merge(summary, figures)
    except NotApplicable as error:
        return Verdict("not_applicable", str(error)[:MAX_REASON])
    except Unreadable as error:
        return Verdict("unreadable", str(error)[:MAX_REASON])
    except Exception as error:  # whatever else an instrument does wrong is its own failure, not the inspection's
        return Verdict("failed", f"{type(error).__name__}: {error}"[:MAX_REASON])
    return Verdict("read")


def _coverage(verdicts: Sequence[Verdict]) -> float:
    applicable = [v for v in verdicts if v.verdict != "not_applicable"]
    return sum(v.verdict == "read" for v in applicable) / len(applicable) if applicable else 0.0


def _check_size(figures: dict[str, Any], summary: dict[str, Any]) -> None:
    """Whether the figures leave room for those of the other instruments.

    Raises:
        ValueError: they do not.
    """
    size, room = len(canonical(figures)), min(MOST_BYTES, MOST_TOGETHER - len(canonical(summary)))
    if size > room:
        raise ValueError(f"{size} bytes of figures as JSON; allowed: {room}; return fewer")


def _merge(summary: dict[str, Any], figures: dict[str, Any]) -> None:
    """Join two levels deep, so that two instruments may both give probes; the same figure twice is a bug and raises."""
    for key, value in figures.items():
        old = summary.get(key)
        clash = key in summary and not (isinstance(old, dict) and isinstance(value, dict) and not old.keys() & value)
        if clash:
            raise ValueError(f"figure {key!r} was already given by another instrument")
    for key, value in figures.items():
        summary[key] = {**summary.get(key, {}), **value} if isinstance(value, dict) else value


def _plain(value: Any, where: str) -> Any:
    """Check that ``value`` is plain JSON and finite; floats are rounded to `DIGITS` significant digits.

    Raises:
        Unreadable: a number that is not finite.
        TypeError: something that JSON does not have.
    """
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Unreadable(where, value, "finite numbers")
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {str(k): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, where) for v in value]
    raise TypeError(f"{where}: {type(value).__name__} is no JSON value")
