"""All that the ledger says about one candidate, for the panel that opens beside the lineage tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from selfimprove.app.report.formula import formula
from selfimprove.app.report.origins import Change, changes
from selfimprove.app.report.overview import Report
from selfimprove.app.report.readings import Inspection
from selfimprove.app.report.views import ACCOUNTS, Candidate, Charge, Confirmation, Score
from selfimprove.archive.records import job_place
from selfimprove.genome.expression import Expression
from selfimprove.nets.cost import Quote


@dataclass(frozen=True)
class Dossier:
    """One candidate with where it came from.

    Attributes:
        candidate: the proposal and what happened to it.
        parent: name of the candidate that it was edited from, ``seed genome``, or empty where the ledger has neither.
        parent_shown: whether the parent is a candidate with a dossier of its own.
        changes: values that differ from the parent's; None where one of the genomes cannot be read.
        loss: its training loss as a formula, and as the genome writes it; empty where its genome cannot be read.
        quote: the price of one training; None where it cannot be told.
        unpriced: task families of modules of one's own without which it cannot be told.
        spent: FLOPs charged to it, by account.
        parent_score: of its parent, on the same instances where there is such a score.
        confirmation: its test at the gate.
        inspection: what was read inside it.
    """

    candidate: Candidate
    parent: str
    parent_shown: bool
    changes: tuple[Change, ...] | None
    loss: tuple[str, str]
    quote: Quote | None
    unpriced: tuple[str, ...]
    spent: Mapping[str, int]
    parent_score: Score | None
    confirmation: Confirmation | None
    inspection: Inspection | None

    @property
    def name(self) -> str:
        """Of the candidate."""
        return self.candidate.name

    @property
    def families(self) -> tuple[tuple[str, float | None, float | None], ...]:
        """Task families with the skill of the candidate and of its parent."""
        own, parents = (score.tasks if score else {} for score in (self.candidate.score, self.parent_score))
        names = dict.fromkeys((*own, *parents))
        return tuple((n, own[n].skill if n in own else None, parents[n].skill if n in parents else None) for n in names)

    @property
    def probes(self) -> tuple[tuple[str, float, float | None], ...]:
        """What was probed for, with the best layer's accuracy, and the control's at that layer."""
        read = self.inspection
        found = []
        for name, layers in read.probes.items() if read else ():
            known = [(accuracy, layer) for layer, accuracy in enumerate(layers) if accuracy is not None]
            if read and known:
                best, layer = max(known)
                control = read.control.get(name) or read.control.get("", ())
                found.append((name, best, control[layer] if layer < len(control) else None))
        return tuple(found)


def dossiers(report: Report, candidates: Collection[Candidate]) -> tuple[Dossier, ...]:
    """One dossier for each of the candidates, in their order."""
    by_genome: dict[str, Candidate] = {}
    for one in report.candidates:
        if one.genome and one.fate != "duplicate":
            by_genome.setdefault(one.genome, one)
    rows, spent = {one.name for one in candidates}, _spent(report)
    gates = {(one.generation, one.index): one for one in report.confirmations}
    read = {(one.generation, one.index): one for one in report.inspections}
    found = []
    for one in candidates:
        spot, parent = (one.generation, one.index), by_genome.get(one.parent)
        own, theirs = report.origins.genome(one.genome), report.origins.genome(one.parent)
        found.append(
            Dossier(
                candidate=one,
                parent=parent.name if parent else "seed genome" if one.parent == report.seed_genome != "" else "",
                parent_shown=parent is not None and parent.name in rows,
                changes=changes(theirs, own) if own and theirs else None,
                loss=_loss(own.objective.expression) if own else ("", ""),
                quote=report.origins.price(own, one.generation) if own else None,
                unpriced=report.origins.unknown(one.generation),
                spent=spent[spot],
                parent_score=_parent_score(report, one, parent),
                confirmation=gates.get(spot),
                inspection=read.get(spot),
            )
        )
    return tuple(found)


def _loss(expression: Expression) -> tuple[str, str]:
    return formula(expression), expression.text


def _parent_score(report: Report, one: Candidate, parent: Candidate | None) -> Score | None:
    """The parent's score on the generation's own instances, or the one that it got as a candidate or as the seed."""
    again = report.origins.references.get((one.generation, one.parent))
    if again is not None:
        return again
    if parent is not None:
        return parent.score
    return report.seed_score if one.parent == report.seed_genome else None


def _spent(report: Report) -> Mapping[tuple[int, int | None], Mapping[str, int]]:
    """FLOPs by account and by candidate: its own trainings, and its fresh ones at the gate without its parent's."""
    confirmed = {one.generation: one.index for one in report.confirmations}
    found: dict[tuple[int, int | None], dict[str, int]] = defaultdict(dict)
    for charge in report.charges:
        generation, index = _place(charge, confirmed)
        if generation is not None and index is not None:
            accounts = found[generation, index]
            accounts[charge.account] = accounts.get(charge.account, 0) + charge.flops
    for accounts in found.values():
        order = sorted(accounts, key=lambda name: (*ACCOUNTS, name).index(name))
        for name in order:
            accounts[name] = accounts.pop(name)
    return found


def _place(charge: Charge, confirmed: Mapping[int, int | None]) -> tuple[int | None, int | None]:
    generation, index = job_place(charge.key)
    if generation is not None and index is None and charge.key.split("/")[1:3] == ["confirm", "candidate"]:
        return generation, confirmed.get(generation)
    return generation, index
