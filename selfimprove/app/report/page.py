"""Assemble the page: views and figures into one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selfimprove.app import units
from selfimprove.app.report import constancy, evidence, finals, inside, minds, progress, proposals, spending, text, tree
from selfimprove.app.report.claim_arms import CONTROLS
from selfimprove.app.report.data import build_report
from selfimprove.app.report.dossier import dossiers
from selfimprove.app.report.handovers import summed_up
from selfimprove.app.report.html import fill, write_page
from selfimprove.app.report.overview import Report, thin
from selfimprove.app.report.records import mapping, read_records, shown, texts
from selfimprove.app.report.views import FATES, KINDS, Candidate

FILE_NAME = "report.html"
MAX_TABLE_ROWS = 320  # ten generations of 32: a run of the usual size is whole
MAX_HANDOVERS = 60


def write_report(run_dir: Path, baselines: Mapping[str, Path] | None = None) -> Path:
    """Write ``report.html`` into a run folder from its ledger.

    Works for finished, halted, limited and running runs. Nothing else in the folder is read; every text of the
    ledger is treated as untrusted and escaped.

    Args:
        run_dir: the run folder.
        baselines: other run folders by the name to show, drawn beside this run's best-so-far curve.

    Returns:
        The path of the page, replaced atomically.

    Raises:
        RunError: a ledger cannot be read, or the page cannot be written.
    """
    compared = {name: read_records(folder) for name, folder in (baselines or {}).items()}
    page = render(build_report(read_records(run_dir), compared, str(run_dir)))
    return write_page(run_dir / FILE_NAME, page, "report")


def render(report: Report) -> str:
    """The whole page as text."""
    filters: dict[str, Callable[..., object]] = {
        "counted": constancy.counted,
        "heads": constancy.heads,
        "carried": constancy.carried,
        "direction": constancy.direction,
        "selectivity": minds.selectivity,
        "fates": proposals.fates,
        "size": units.size,
    }
    return fill(
        "report.html.j2",
        filters,
        report=report,
        run=report.run,
        denied_value=text.denied_value,
        figures=_figures(report),
        facts=_facts(report),
        tables=_tables(report),
    )


def _figures(report: Report) -> dict[str, Any]:
    low, high = tree.skill_domain(report)
    skills = [candidate.score.skill for candidate in report.candidates if candidate.score]
    fates = [
        (fate, tree.legend_shape("recipe", fill="#1fa187" if fate in ("promoted", "rejected") else None, fate=fate))
        for fate in FATES
    ]
    return {
        "tree": tree.lineage_tree(report) if report.numbers else None,
        "color_bar": tree.color_bar(low, high, "Search skill", clipped=any(skill < low for skill in skills)),
        "accuracy_bar": tree.color_bar(0.0, 1.0, "Accuracy"),
        "shapes": [(kind, tree.legend_shape(kind)) for kind in (*KINDS, "mixed")],
        "fates": fates,
        "best": progress.best_so_far(report),
        "tasks": progress.task_skills(report),
        "confirmations": evidence.confirmations(report),
        "retention": evidence.retention(report),
        "survival": constancy.survival(report),
        "drift": constancy.drift(report),
        "taken_out": constancy.taken_out(report),
        "put_in": constancy.put_in(report),
        "probes": inside.probe_panels(report),
        "lens": inside.lens_panels(report),
        "rates": minds.rates(report),
        "gained": proposals.gained(report),
        "improvement": proposals.improvement(report),
        "controller_probes": minds.probe_maps(report),
        "budget": spending.budget_bar(report),
        "budget_by_generation": spending.budget_by_generation(report),
        "fates_by_generation": spending.fates_by_generation(report),
        "fates_by_kind": spending.fates_by_kind(report),
        "entropy": spending.controller_line(report, "entropy", "entropy (nats per choice)"),
        "loss": spending.controller_line(report, "loss", "loss (nats per token)"),
    }


def _facts(report: Report) -> dict[str, Any]:
    skills = [c.score.skill for c in report.candidates if c.score]
    lineage = report.lineage()
    return {
        "best": max(skills, default=None),
        "champion": lineage[-1].name if lineage else None,
        "sealed": next((pair for pair in report.finals if pair.split == "sealed"), None),
        "duration": units.duration(report.run.seconds),
        "scored": len(skills),
        "fates": {fate: sum(1 for c in report.candidates if c.fate == fate) for fate in FATES},
        "seeds": next((c.score.seeds for c in report.candidates if c.score and c.score.seeds), None),
        "cut": any(skill < progress.FLOOR for skill in skills),
        "retention_floor": evidence.retention_floor(report),
        "retention_gate": evidence.retention_gate(report),
        "unguarded": evidence.unguarded(report),
        "config": json.dumps(report.run.config, indent=2, ensure_ascii=False, sort_keys=True, default=str)[:60_000],
    }


def _tables(report: Report) -> dict[str, Any]:
    kept, totals = _kept_rows(report), report.spent
    names = tuple(dict.fromkeys(one.name for i in report.inspected for one in i.instruments))
    return {
        "candidates": kept,
        "dossiers": (files := dossiers(report, _with_panel(report))),
        "panels": {one.name for one in files},
        "left_out": len(report.candidates) - len(kept),
        "accounts": [(name, spending.account_class(name), totals.get(name, 0)) for name in spending.accounts(report)],
        "limits": _limits(report),
        "instruments": names,
        "required": texts(mapping(report.run.config.get("inspection")).get("instruments")),
        "inspections": [(i, [i.instrument(name) for name in names]) for i in report.inspected],
        "inside": {i.name for i in report.inspected},
        "unasked": _unasked(report),
        "beside": [(i, i.beside) for i in report.inspected if i.beside],
        "readings": minds.shown(report),
        "handovers": thin(report.handovers, MAX_HANDOVERS, lambda one: one.accepted),
        "succession": summed_up(report.handovers),
        "quality": proposals.rows(report),
        "subsets": proposals.subsets(report),
        "kinds": proposals.kinds(report),
        "merit": proposals.figures_of_merit(report),
        "test": report.confirmations[0].pair if report.confirmations else None,
        "verdict": finals.verdict(report.finals),
        "controls": tuple(CONTROLS.values()),
    }


def _unasked(report: Report) -> dict[str, str]:
    """By instrument that draws a figure: that it was not asked for, where the run says what was."""
    told = mapping(report.run.config.get("inspection"))
    asked = {*texts(told.get("instruments")), *texts(told.get("also"))}
    drawn = ("halt_behavior", "comparison", "halt_direction") if asked else ()
    return {
        name: f"The instrument {name} was not asked for: see inspection.also." for name in drawn if name not in asked
    }


def _kept_rows(report: Report) -> tuple[Candidate, ...]:
    """All candidates; for very long runs those of the tree, the promoted among them, and the best beside them."""
    if len(report.candidates) <= MAX_TABLE_ROWS:
        return report.candidates
    led_to = tree.drawn(report)
    ranked = sorted(report.candidates, key=lambda c: (c.name not in led_to, -(c.score.skill if c.score else -1e9)))
    kept = ranked[: max(MAX_TABLE_ROWS, len(led_to))]
    return tuple(sorted(kept, key=lambda c: (c.generation, c.index)))


def _with_panel(report: Report) -> tuple[Candidate, ...]:
    """Whoever gets a panel: everybody, or in very long runs those that were promoted or have a column of readings."""
    if len(report.candidates) <= MAX_TABLE_ROWS:
        return report.candidates
    read = {(inspection.generation, inspection.index) for inspection in report.inspected}
    return tuple(c for c in report.candidates if c.fate == "promoted" or (c.generation, c.index) in read)


def _limits(report: Report) -> list[tuple[str, str, str]]:
    """Each limit with what was used of it, where the ledger tells."""
    denied = sum(1 for candidate in report.candidates if candidate.denial or candidate.fate == "invalid")
    used: dict[str, str] = {
        "generations": str(len(report.generations)),
        "candidates": str(len(report.candidates)),
        "flops": units.flops(report.run.charged),
        "lost_flops": units.flops(report.spent.get("lost", 0)),
        "wall_seconds": units.duration(report.run.seconds),
        "cpu_seconds": units.duration(report.run.spent.cpu_seconds),
        "gpu_seconds": units.duration(report.run.spent.gpu_seconds),
        "denied_edits": str(denied),
    }
    return [(name, used.get(name, ""), _limit_text(name, bound)) for name, bound in report.run.limits.items()]


def _limit_text(name: str, bound: object) -> str:
    if isinstance(bound, int | float) and not isinstance(bound, bool):
        if "flops" in name:
            return units.flops(float(bound))
        if name.endswith("seconds"):
            return units.duration(float(bound))
        if name.endswith("bytes"):
            return units.size(bound)
        return f"{bound:,}"
    return shown(bound)
