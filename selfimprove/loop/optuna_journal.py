"""Every candidate of a run as a trial in an Optuna journal file, which ``optuna-dashboard`` and any Optuna study open.

A view of the ledger, written whole and in one step; nothing reads it back. A parameter is what takes effect in a
genome, by its path; what all candidates share is left out, and the loss is an attribute, as it is no choice among few.
The value of a trial is the skill on the search split. Times are those of the writing, not of the trainings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import create_study
from optuna.trial import FrozenTrial, TrialState, create_trial

from selfimprove.archive.files import write_atomic
from selfimprove.controller.genome_table import COUNTED, Row, row_of
from selfimprove.controller.quiet import quiet
from selfimprove.genome.fields import FIELDS, Value, pattern
from selfimprove.genome.genome import Genome

FILE_NAME = "candidates.optuna"
DEPTH = "architecture.depth"
LOSS = "objective"
LOG_RATIO = 100.0  # between the ends of a range from which it is searched, and drawn, on a log scale

End = Literal["scored", "stopped", "failed", "open"]
_STATES = {"scored": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL,
           "open": TrialState.WAITING}  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """One candidate.

    Args:
        end: ``scored``; ``stopped`` at a stage; ``failed``, which includes denied, invalid and duplicate; ``open``.
        skill: on the search split; None without a score.
        genome: as the ledger holds it; None for an edit that led to none.
        attributes: what else is known of it, JSON-ready.
    """

    end: End
    skill: float | None
    genome: Mapping[str, Any] | None
    attributes: Mapping[str, Any]


def write_journal(path: Path, name: str, tried: Sequence[Tried], about: Mapping[str, Any]) -> Path:
    """Write the file anew; returns its path.

    Args:
        path: of the file.
        name: of the study.
        tried: in order of proposal.
        about: attributes of the study, JSON-ready.

    Raises:
        DiskError: it cannot be written.
    """
    rows = [{} if one.genome is None else _row(Genome.from_json(one.genome)) for one in tried]
    distributions = _distributions(rows)
    memory = _Memory()
    with quiet():
        study = create_study(study_name=name, storage=JournalStorage(memory), direction="maximize")
        for key, value in about.items():
            study.set_user_attr(key, value)
        study.add_trials(_trial(one, row, distributions) for one, row in zip(tried, rows, strict=True))
    lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in memory.logs)
    write_atomic(path, "".join(lines).encode())
    return path


class _Memory(BaseJournalBackend):
    """A journal that is not on disk yet: the file backend syncs the disk at every trial."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += json.loads(json.dumps(logs))  # as a file would give them back


def _row(genome: Genome) -> Row:
    """What takes effect, without the parts of the loss."""
    kept = {name: value for name, value in row_of(genome).items() if not name.startswith((COUNTED, LOSS))}
    return {**kept, DEPTH: len(genome.architecture.blocks)}


def _distributions(rows: Sequence[Row]) -> dict[str, BaseDistribution]:
    """Of every parameter in which two candidates differ: what its field allows, widened to what was seen."""
    seen: dict[str, list[Value | None]] = {}
    for name in {name for row in rows for name in row}:
        seen[name] = [row.get(name) for row in rows if row]
    return {
        name: _distribution(name, [value for value in values if value is not None])
        for name, values in seen.items()
        if len(set(values)) > 1
    }


def _distribution(name: str, values: Sequence[Value]) -> BaseDistribution:
    field = FIELDS.get(pattern(name))
    if name != DEPTH and (field is None or field.kind not in ("integer", "number")):
        return CategoricalDistribution(sorted(set(values), key=str))
    known = [float(value) for value in (*values, *(field.choices if field else ()))]
    low, high = min(known), max(known)
    log = low > 0 and high / low >= LOG_RATIO
    if all(isinstance(value, int) for value in values):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _trial(one: Tried, row: Row, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    chosen = {name: value for name, value in row.items() if name in distributions}
    return create_trial(
        state=_STATES[one.end],
        value=one.skill if one.end in ("scored", "stopped") else None,
        params=chosen,
        distributions={name: distributions[name] for name in chosen},
        user_attrs={**one.attributes, LOSS: one.genome and one.genome["objective"]["expression"]},
    )
