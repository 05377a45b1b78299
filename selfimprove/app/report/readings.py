"""What the inspections read inside the successors, as frozen values.

Shared by the page and by tracking. Workers that held untrusted weights wrote these figures: every field is checked, and
what is missing or malformed is None or empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfimprove.app.report.own_figures import own_figures
from selfimprove.app.report.records import Records, integer, mapping, numbers, text, texts
from selfimprove.app.report.scores import read_retention
from selfimprove.app.report.views import Retention
from selfimprove.canonical import finite
from selfimprove.tasks.score import Proportion

Layers = tuple[float | None, ...]
FATES_OF_HEADS = ("kept", "lost", "gained")
EVERYWHERE, RANDOM = "all", "control"  # places of an intervention: the whole stream, and along random directions


@dataclass(frozen=True)
class Instrument:
    """One inspection instrument and its verdict."""

    name: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class Condition:
    """Halt prompts of one sort.

    Attributes:
        name: of the sort, for example ``early``.
        inside: whether training had prompts like these.
        false: whether ``share`` counts false halts, and not the constraint kept.
        share: of the prompts.
    """

    name: str
    inside: bool
    false: bool
    share: Retention


@dataclass(frozen=True)
class Causal:
    """What the halted direction does, as shares of sequences that halt.

    Attributes:
        halted: with a halt token.
        without: the same, with the direction taken out of the whole stream.
        without_random: the same, with random directions taken out.
        plain: without a halt token.
        put: the same, with the direction put in.
        put_random: the same, with random directions put in.
    """

    halted: Retention | None
    without: Retention | None
    without_random: Retention | None
    plain: Retention | None
    put: Retention | None
    put_random: Retention | None


@dataclass(frozen=True)
class Transfer:
    """A variable's probe, trained on the parent, at the layer where the child's own reads best; accuracies.

    Attributes:
        variable: what is probed for.
        layer: index of that layer.
        child: the child's own probe.
        aligned: the parent's, after the child's stream was turned onto the parent's.
        direct: the parent's as it is; None between streams of other widths.
        majority: of always giving the most frequent label.
    """

    variable: str
    layer: int
    child: float
    aligned: float | None
    direct: float | None
    majority: float | None


@dataclass(frozen=True)
class Beside:
    """A child beside its parent.

    Attributes:
        cka: linear CKA of the last layers.
        cosine: of the two halted directions at the last layer, as they are.
        aligned: the same after the child's stream was turned onto the parent's.
        chance: size of the latter for random pairings.
        transfer: one variable after the other.
        heads: kinds of heads by what became of them, ``kept``, ``lost`` or ``gained``.
        retention: halt prompts kept by parent and child.
        without: what could not be compared, and why.
        positions: how many of a sequence both can read, and the child; None where the record does not say.
    """

    cka: float | None
    cosine: float | None
    aligned: float | None
    chance: float | None
    transfer: tuple[Transfer, ...]
    heads: Mapping[str, tuple[str, ...]]
    retention: tuple[Retention | None, Retention | None]
    without: Mapping[str, str]
    positions: tuple[int | None, int | None]


@dataclass(frozen=True)
class Inspection:
    """What was read inside one candidate, layers from the lowest up; accuracies and majority shares lie in 0..1.

    ``own`` holds figures of instruments of one's own, as text by name.
    """

    generation: int
    index: int | None
    status: str
    layers: int | None
    instruments: tuple[Instrument, ...]
    probes: Mapping[str, Layers]
    control: Mapping[str, Layers]
    logit_lens: Mapping[str, Layers]
    majority: Mapping[str, float] = field(default_factory=dict)
    coverage: float | None = None
    names: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    causal: Causal | None = None
    beside: Beside | None = None
    own: Mapping[str, str] = field(default_factory=dict)

    def instrument(self, name: str) -> Instrument | None:
        """The verdict of one instrument, if it was asked."""
        return next((one for one in self.instruments if one.name == name), None)

    @property
    def unread(self) -> tuple[str, ...]:
        """Instruments that should have read the model and did not."""
        return tuple(one.name for one in self.instruments if one.verdict not in ("read", "not_applicable"))

    @property
    def name(self) -> str:
        """``seed``, or the name of the candidate."""
        if self.index is not None and self.index < 0:
            return "seed"
        return f"g{self.generation}" + ("" if self.index is None else f"c{self.index:02d}")

    def kept(self, *, inside: bool) -> Retention | None:
        """The constraint in or out of distribution, over the prompts of all conditions that ask for it."""
        return _pooled(one.share for one in self.conditions if one.inside == inside and not one.false)

    @property
    def false_halts(self) -> Retention | None:
        """Sequences without a halt token that were halted all the same, over all conditions."""
        return _pooled(one.share for one in self.conditions if one.false)

    @property
    def worst(self) -> Condition | None:
        """The condition in which the constraint is kept least."""
        return min((one for one in self.conditions if not one.false), key=lambda one: one.share.rate, default=None)


def read_inspections(records: Records) -> tuple[Inspection, ...]:
    """Every inspection, in ledger order; the depth of what was inspected comes from its genome."""
    blocks: dict[str, int] = {}
    for line in records.of("genome"):
        architecture = mapping(mapping(line.body.get("genome")).get("architecture"))
        if isinstance(architecture.get("blocks"), list):
            blocks[text(line.body.get("sha256"))] = len(architecture["blocks"])
    found = (read_inspection(line.body, blocks.get(text(line.body.get("genome")))) for line in records.of("inspection"))
    return tuple(filter(None, found))


def read_inspection(body: Mapping[str, Any], blocks: int | None = None) -> Inspection | None:
    """One ``inspection`` record; None where it names no generation.

    Args:
        body: the record.
        blocks: depth of the network, where it is known.
    """
    generation, summary = integer(body.get("generation")), mapping(body.get("summary"))
    if generation is None:
        return None
    probes, control, lens = (_layers(summary.get(name)) for name in ("probes", "control", "logit_lens"))
    details = mapping(summary.get("probe_details"))
    majority = {name: finite(mapping(one).get("majority")) for name, one in details.items()}
    return Inspection(
        generation=generation,
        index=integer(body.get("index")),
        status=text(body.get("status")) or "unknown",
        layers=blocks,
        instruments=tuple(_instrument(name, mapping(one)) for name, one in mapping(body.get("instruments")).items()),
        probes=probes,
        control=control,
        logit_lens=lens,
        majority={name: share for name, share in majority.items() if share is not None},
        coverage=finite(body.get("coverage")),
        names=texts(summary.get("layers")),
        conditions=_conditions(mapping(summary.get("halt_behavior"))),
        causal=_causal(mapping(summary.get("halt_direction"))),
        beside=_beside(mapping(summary.get("comparison"))),
        own=own_figures(summary),
    )


def _instrument(name: str, body: Mapping[str, Any]) -> Instrument:
    return Instrument(name, text(body.get("verdict")) or "unknown", text(body.get("reason")))


def _conditions(body: Mapping[str, Any]) -> tuple[Condition, ...]:
    found = []
    for name, one in body.items():
        told = mapping(one)
        where, measure, share = told.get("distribution"), told.get("measure"), read_retention(told)
        if share is not None and where in ("in", "out") and measure in ("kept", "false"):
            found.append(Condition(name, where == "in", measure == "false", share))
    return tuple(found)


def _causal(body: Mapping[str, Any]) -> Causal | None:
    if not body:
        return None
    out, put = mapping(body.get("ablate")), mapping(body.get("patch"))
    values = (body.get("halted"), out.get(EVERYWHERE), out.get(RANDOM), body.get("plain"))
    return Causal(*map(read_retention, (*values, put.get(EVERYWHERE), put.get(RANDOM))))


def _beside(body: Mapping[str, Any]) -> Beside | None:
    if not body:
        return None
    drift, heads, kept = (mapping(body.get(name)) for name in ("halt_direction_drift", "heads", "retention"))
    fates = {name: text(mapping(one).get("fate")) for name, one in heads.items()}
    transfer = (_transfer(name, mapping(one)) for name, one in mapping(body.get("transfer")).items())
    rows, positions = body.get("cka"), mapping(body.get("positions"))
    return Beside(
        cka=_last(rows[-1]) if isinstance(rows, list) and rows else None,
        cosine=_last(drift.get("cosine")),
        aligned=_last(drift.get("aligned")),
        chance=_last(drift.get("chance")),
        transfer=tuple(filter(None, transfer)),
        heads={fate: tuple(name for name, became in fates.items() if became == fate) for fate in FATES_OF_HEADS},
        retention=(read_retention(kept.get("parent")), read_retention(kept.get("child"))),
        without={name: text(why) for name, why in mapping(body.get("without")).items()},
        positions=(integer(positions.get("read")), integer(positions.get("of"))),
    )


def _transfer(variable: str, body: Mapping[str, Any]) -> Transfer | None:
    child, aligned, direct = (numbers(body.get(name)) for name in ("child", "aligned", "direct"))
    known = [(value, -layer) for layer, value in enumerate(child) if value is not None]
    if not known:
        return None
    best = -max(known)[1]
    carried, bare = (values[best] if best < len(values) else None for values in (aligned, direct))
    return Transfer(variable, best, max(known)[0], carried, bare, finite(body.get("majority")))


def _last(value: object) -> float | None:
    found = numbers(value)
    return found[-1] if found else None


def _pooled(shares: Iterable[Retention]) -> Retention | None:
    counted = [(share.kept, share.n) for share in shares]
    if not counted:
        return None
    kept, n = map(sum, zip(*counted, strict=True))
    return read_retention(vars(Proportion.of(kept, n)))


def _layers(value: object) -> Mapping[str, Layers]:
    """Named layer sequences; a bare sequence is kept under the empty name and applies to every variable."""
    if isinstance(value, Mapping):
        return {name: sequence for name, item in mapping(value).items() if (sequence := numbers(item))}
    sequence = numbers(value)
    return {"": sequence} if sequence else {}
