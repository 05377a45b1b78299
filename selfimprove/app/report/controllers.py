"""What the readings of the controller say, as frozen values.

Shared by the page and by tracking. A worker that held untrusted weights wrote the figures: every field is checked, and
what is missing or malformed is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfimprove.app.report.readings import Layers
from selfimprove.app.report.records import Records, integer, mapping, numbers, text
from selfimprove.app.report.scores import read_retention
from selfimprove.app.report.views import Retention
from selfimprove.canonical import finite


@dataclass(frozen=True)
class ControllerProbe:
    """One quantity in the controller's stream, accuracies by layer."""

    accuracy: Layers
    control: Layers
    majority: float | None

    @property
    def best(self) -> int | None:
        """The layer that it is read best at."""
        known = [(value, -layer) for layer, value in enumerate(self.accuracy) if value is not None]
        return -max(known)[1] if known else None


@dataclass(frozen=True)
class ControllerReading:
    """The controller after one generation, and what its proposals of that generation reached for.

    Attributes:
        generation: after which it was read.
        verdict, reason: as of an instrument.
        proposals: in the generation; None where they were not counted.
        counts: of those, by what became of them: ``denied`` a permit, ``refused`` (denied or invalid), ``forbidden``
            (a path that no edit reaches), ``over_caps`` (more than a cap allows).
        entropy: mean over the choices of proposals drawn for the reading, in nats.
        outside: probability that it gives by itself to first tokens that the grammar forbids, and never draws.
        drawn_denied: of the proposals drawn for the reading, those that the policy would deny.
        probes: by quantity.
    """

    generation: int
    verdict: str
    reason: str
    proposals: int | None
    counts: Mapping[str, int]
    entropy: float | None
    outside: float | None
    drawn_denied: Retention | None
    probes: Mapping[str, ControllerProbe]

    def share(self, name: str) -> Retention | None:
        """Share of the generation's proposals, with its interval; None where there were none."""
        return read_retention({"kept": self.counts.get(name), "n": self.proposals})


def read_controllers(records: Records) -> tuple[ControllerReading, ...]:
    """Every reading of the controller, in ledger order."""
    return tuple(filter(None, (read_controller(line.body) for line in records.of("controller_inspection"))))


def read_controller(body: Mapping[str, Any]) -> ControllerReading | None:
    """One ``controller_inspection`` record; None where it names no generation."""
    generation, proposals = integer(body.get("generation")), mapping(body.get("proposals"))
    if generation is None:
        return None
    counts = {name: count for name, value in proposals.items() if (count := integer(value)) is not None}
    return ControllerReading(
        generation=generation,
        verdict=text(body.get("verdict")) or "unknown",
        reason=text(body.get("reason")),
        proposals=counts.pop("n", None),
        counts=counts,
        entropy=finite(body.get("entropy")),
        outside=finite(body.get("outside_grammar")),
        drawn_denied=read_retention(mapping(body.get("sampled")).get("denied")),
        probes={name: _controller_probe(mapping(one)) for name, one in mapping(body.get("probes")).items()},
    )


def _controller_probe(body: Mapping[str, Any]) -> ControllerProbe:
    accuracy, control = numbers(body.get("accuracy")), numbers(body.get("control_accuracy"))
    return ControllerProbe(accuracy, control, finite(body.get("majority")))
