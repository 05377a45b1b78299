"""``selfimprove claim``: the claim card of a run for a person, as JSON, or as files that rsi-audit checks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from selfimprove.app import folder
from selfimprove.app.claim_export import export
from selfimprove.app.report.claim import ClaimCard, claim_card
from selfimprove.app.report.claim_evidence import Claim
from selfimprove.app.report.comparisons import HELD_OUT
from selfimprove.app.report.records import read_records
from selfimprove.app.report.text import p_text, signed


def claim(arguments: argparse.Namespace) -> int:
    """Print a run's claim card; with ``--export`` write the files, too."""
    run_dir = folder.find_run(arguments.run)
    others = {str(other): read_records(other) for other in map(folder.find_run, arguments.beside)}
    records = read_records(run_dir)
    card = claim_card(records, others)
    commands = export(records, card, Path(arguments.export)) if arguments.export else ()
    if arguments.json:
        print(json.dumps({**card.to_json(), "checks": list(commands)}, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(card, run_dir)))
        if commands:
            print("\n".join((f"\nWritten to {arguments.export}. Check with: pip install rsi-audit, and", *commands)))
    return 0


def lines(card: ClaimCard, run_dir: Path) -> Iterator[str]:
    """The card as a person reads it in a terminal."""
    yield f"Claims of {run_dir} (root seed {card.root_seed}, {card.state}), from its ledger alone"
    for one in card.claims:
        yield f"\n{'CLAIMED' if one.claimed else 'NOT CLAIMED'}: {one.statement}"
        yield f"  control   {one.control}"
        if one.evidence is not None:
            yield f"  evidence  {evidence(one)}"
        if one.reason:
            yield f"  because   {one.reason}"
    yield f"\nTried: {card.proposals} proposals, of which {card.gate_tests} came to the gate's test."
    yield "Owed: " + ("; ".join(card.owed) or "nothing that the rules name") + "."
    yield f"This verifies nothing: {folder.command('audit', run_dir)} proves that the ledger is what was recorded."


def evidence(one: Claim) -> str:
    """A claim's evidence in one line."""
    found = one.evidence
    if found is None:
        return ""
    what = f"{found.effect:.4f}" if one.name == "constraint" else signed(found.effect, 4)
    ends = found.interval
    interval = f" (95%: {ends[0]:.4f} to {ends[1]:.4f})" if ends else " (too few pairs for a 95% interval)"
    tested = f", {p_text(found.p_value)}" if found.p_value is not None else ""
    where = "held-out families" if found.split == HELD_OUT else f"{found.split} split"
    return f"{what}{interval}{tested}, n = {found.n}, {where}; {found.note}"
