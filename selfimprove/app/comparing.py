"""``selfimprove compare``: several runs as a table, as JSON and as a page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich import get_console
from rich.table import Table
from rich.text import Text

from selfimprove.app import folder
from selfimprove.app.report.compare import (
    MOST_RUNS,
    Comparing,
    Entrant,
    check_place,
    compare_runs,
    write_comparison,
)
from selfimprove.app.report.records import Records, read_records
from selfimprove.app.report.text import decimal, p_text, signed
from selfimprove.app.report.views import Comparison
from selfimprove.app.units import flops
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import AuditReport, audit
from selfimprove.archive.records import LEDGER_NAME
from selfimprove.containment.keys import state_dir
from selfimprove.errors import RunError

MOST_SETTINGS = 20  # lines of the table; the page has them all


def compare(arguments: argparse.Namespace) -> int:
    """Compare runs; the exit code says whether all of them pass their audit."""
    runs, output = chosen(arguments.runs), Path(arguments.output)
    check_place(output)  # before the audits, which take their time
    compared = compare_runs({name: (_records(path), _audit(path)) for name, path in runs.items()})
    page = write_comparison(compared, output)
    if arguments.json:
        told = {"page": str(page), "common_flops": compared.common, "runs": [as_json(e) for e in compared.entrants]}
        print(json.dumps({**told, "differs": compared.apart}, indent=2, ensure_ascii=False))
    else:
        _print(compared)
        print(f"\n{page}")
    return 0 if all(entrant.audit.ok for entrant in compared.entrants) else 1


def chosen(given: list[str]) -> dict[str, Path]:
    """The runs that a person means, by the name to show.

    Raises:
        RunError: one of them is no run, or there are too few different ones or too many.
    """
    runs = folder.short_names([folder.find_run(name) for name in given])
    if not 2 <= len(runs) <= MOST_RUNS:
        limit = f"2 to {MOST_RUNS} different runs"
        raise RunError("compare", f"{len(runs)} different", limit, "selfimprove compare RUN OTHER ...")
    return runs


def as_json(entrant: Entrant) -> dict[str, Any]:
    """One run with stable keys."""
    row, stood = entrant.row, [one for one in entrant.handovers if one.contender]
    return {
        "run": row.label,
        "experiment": entrant.experiment,
        "controller": row.proposer,
        "root_seed": row.seed,
        "state": row.state,
        "generations": entrant.generations,
        "candidates": entrant.proposals,
        "scored": row.scored,
        "promotions": row.promotions,
        "charged_flops": row.charged,
        "limit_flops": row.limit,
        "best_search_skill": row.best,
        "best_so_far": {"charged_flops": entrant.best.charged, "skill": entrant.best.values},
        "sealed": _exam(row.final),
        "held_out": _exam(entrant.held_out),
        "levels": dict(entrant.levels),
        "exam_levels": dict(entrant.exam_levels),
        "handovers": {
            "promotions": len(entrant.handovers),
            "contenders": len(stood),
            "accepted": sum(one.accepted for one in stood),
        },
        "audit": {
            "ok": entrant.audit.ok,
            "anchored": entrant.audit.anchored,
            "findings": len(entrant.audit.findings),
        },
    }


def _exam(pair: Comparison | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    return {"difference": pair.mean, "p_value": pair.p_value, "seeds": len(pair.candidate)}


def _records(path: Path) -> Records:
    found = read_records(path)
    if not found.of("run"):
        limit = "a ledger that begins with a run record"
        raise RunError("compare run", str(path / LEDGER_NAME), limit, "selfimprove audit shows what is damaged")
    return found


def _audit(path: Path) -> AuditReport:
    return audit(path, FileAnchor(state_dir()))


def _print(compared: Comparing) -> None:
    console = get_console()
    for entrant in compared.entrants:
        console.print(Text(f"{entrant.letter}  {entrant.row.label}"), soft_wrap=True)
    letters = [entrant.letter for entrant in compared.entrants]
    table = Table("", *letters, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name, cells in _rows(compared):
        table.add_row(name, *map(Text, cells))
    console.print(table)
    apart = (
        ("The skills are of different tasks", compared.other_tasks),
        ("The gains on held-out families are of different tasks", compared.other_exams),
        ("The sealed gains are of exams at different levels", compared.other_levels),
    )
    for how, keys in apart:
        if keys:
            console.print(Text(f"{how} and cannot be compared: {', '.join(keys)}", style="bold yellow"))
    settings = Table("setting", *letters, box=None, header_style="bold", padding=(0, 2, 0, 0))
    settings.columns[0].no_wrap = True
    for key, values in list(compared.apart.items())[:MOST_SETTINGS]:
        settings.add_row(Text(key), *map(Text, values))
    if compared.apart:
        console.print()
        console.print(settings)
    if (more := len(compared.apart) - MOST_SETTINGS) > 0:
        console.print(Text(f"and {more} more settings, on the page", style="dim"))


def _rows(compared: Comparing) -> list[tuple[str, list[str]]]:
    entrants, common = compared.entrants, compared.common
    return [
        ("state", [e.row.state for e in entrants]),
        ("proposals by", [e.row.proposer or "-" for e in entrants]),
        ("root seed", [e.row.seed or "-" for e in entrants]),
        ("generations", [str(e.generations) for e in entrants]),
        ("candidates scored", [f"{e.row.scored} of {e.proposals}" for e in entrants]),
        ("promotions", [str(e.row.promotions) for e in entrants]),
        ("charged", [flops(e.row.charged) for e in entrants]),
        ("best search skill", [decimal(e.row.best) for e in entrants]),
        (f"  at {flops(common)}", [decimal(e.best.at(common)) for e in entrants]),
        ("sealed split", [_told(e.row.final, e.examined_at) for e in entrants]),
        ("held-out families", [_told(e.held_out) for e in entrants]),
        ("levels reached", [", ".join(f"{k} {v}" for k, v in e.levels.items()) or "-" for e in entrants]),
        ("hand-overs", [e.controller for e in entrants]),
        ("audit", [e.sound for e in entrants]),
    ]


def _told(pair: Comparison | None, levels: str = "") -> str:
    if pair is None:
        return "not examined"
    return ", ".join(filter(None, (signed(pair.mean), p_text(pair.p_value), levels)))
