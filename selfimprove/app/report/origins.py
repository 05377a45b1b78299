"""What a candidate came from, as the ledger holds it: genomes, what changed between two, their price, their parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfimprove.app.report.records import Records, integer, mapping, text
from selfimprove.app.report.scores import read_score
from selfimprove.app.report.views import Score
from selfimprove.archive.records import gains_are_known
from selfimprove.errors import SelfImproveError
from selfimprove.genome.expression import MAX_TEXT
from selfimprove.genome.fields import format_value
from selfimprove.genome.genome import Genome
from selfimprove.nets.cost import Quote, quote
from selfimprove.tasks.registry import FAMILIES, family
from selfimprove.tasks.suite import least_context

ABSENT, LOSS = "absent", "objective.expression"
_MALFORMED = (SelfImproveError, ArithmeticError, LookupError, TypeError, ValueError)
"""What a genome or a configuration that no run wrote can raise: a ledger is not trusted here."""


@dataclass(frozen=True)
class Change:
    """One value of a genome that takes effect, in the parent and in the child; ``absent`` where it is not."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Origins:
    """The records that say where candidates come from.

    Attributes:
        genomes: JSON of every registered genome by hash.
        references: the parent's search score of a generation, on the generation's instances, where it could be trained.
        levels: the tasks' levels after the generations that raised them, in ledger order.
        config: the resolved configuration of the run.
    """

    genomes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    references: Mapping[tuple[int, str], Score] = field(default_factory=dict)
    levels: tuple[tuple[int, Mapping[str, int]], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def genome(self, sha256: str) -> Genome | None:
        """A registered genome; None where it is not in the ledger or cannot be read."""
        try:
            return Genome.from_json(self.genomes[sha256])
        except _MALFORMED:
            return None

    def price(self, genome: Genome, generation: int) -> Quote | None:
        """One training of a genome as the loop priced it; None where the run's configuration does not say enough.

        Args:
            genome: what was trained.
            generation: its generation, whose tasks set the length of the sequences.
        """
        try:
            vocabulary, allowance = int(self._tasks["vocab_size"]), integer(self.config["allowance_flops"])
            if allowance is None:
                return None
            return quote(genome, vocab_size=vocabulary, context=self._context(generation), allowance_flops=allowance)
        except _MALFORMED:
            return None

    def unknown(self, generation: int) -> tuple[str, ...]:
        """Families of which only a module of one's own says how long sequences of a generation had to be.

        Such modules are not loaded: a page runs no code that a ledger names.
        """
        return tuple(name for name in self._risen(generation) if name not in FAMILIES)

    @property
    def _tasks(self) -> Mapping[str, Any]:
        return mapping(self.config.get("tasks"))

    def _context(self, generation: int) -> int:
        """Tokens in a sequence: as the run began with, which fits its first levels, or what a risen level needs."""
        needed = (least_context(family(name).setting(level)) for name, level in self._risen(generation).items())
        return max(int(self._tasks["context"]), *needed, 0)

    def _risen(self, generation: int) -> Mapping[str, int]:
        """The families whose level in a generation is not the one that the run began with."""
        first = _whole(self._tasks.get("levels"))
        before = [levels for number, levels in self.levels if number < generation]
        return {name: level for name, level in before[-1].items() if level != first.get(name, 0)} if before else {}


def read_origins(records: Records) -> Origins:
    """Everything that the ledger says about where candidates come from."""
    references = {}
    for line in records.of("reference"):
        generation, score = integer(line.body.get("generation")), read_score(line.body)
        if generation is not None and score is not None and gains_are_known(line.body):
            references[generation, text(line.body.get("genome"))] = score
    climbs = ((integer(line.body.get("generation")), _whole(line.body.get("levels"))) for line in records.of("climb"))
    return Origins(
        genomes={text(line.body.get("sha256")): mapping(line.body.get("genome")) for line in records.of("genome")},
        references=references,
        levels=tuple((number, levels) for number, levels in climbs if number is not None),
        config=mapping(records.last("run").get("config")),
    )


def changes(before: Genome, after: Genome) -> tuple[Change, ...]:
    """Every value that takes effect and is not the same in two genomes, by path.

    Example:
        >>> from selfimprove.genome.genome import seed_genome
        >>> changes(seed_genome(), seed_genome(learning_rate=0.003))
        (Change(path='recipe.learning_rate', before='0.001', after='0.003'),)
    """
    old, new = _flat(before.effective), _flat(after.effective)
    if old[LOSS] != new[LOSS]:  # by meaning; shown as the genomes write it
        old[LOSS], new[LOSS] = before.objective.expression.text, after.objective.expression.text
    paths = [*old, *(path for path in new if path not in old)]
    found = (Change(path, old.get(path, ABSENT), new.get(path, ABSENT)) for path in paths)
    return tuple(change for change in found if change.before != change.after)


def _flat(value: object, path: str = "") -> dict[str, str]:
    """Each value in a nest of objects and lists, as an edit would write it, by its dotted path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        prefix = f"{path}." if path else ""
        return {name: leaf for key, item in items for name, leaf in _flat(item, f"{prefix}{key}").items()}
    shown = format_value(value) if isinstance(value, bool | int | float | str) else str(value)
    return {path: text(shown, MAX_TEXT)}


def _whole(value: object) -> dict[str, int]:
    found = ((name, integer(level)) for name, level in mapping(value).items())
    return {name: level for name, level in found if level is not None}
