"""The audit: everything about a run folder that can be proved from its ledger, and every place where it fails.

Proved: the chain, the signatures, the sequence, the anchor outside the folder, the budget arithmetic, and every file
that the ledger names. Not proved without an anchor: that the end of the ledger was not cut off, and that the key in its
first entry is the one that the run was started with. A ledger that is neither anchored nor signed on this machine says
nothing about who wrote it: anybody can begin a chain with a run id and a key of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from selfimprove.archive.accounts import check_accounts
from selfimprove.archive.anchor import Anchor, AnchorRecord
from selfimprove.archive.chain import Scan, is_torn, scan
from selfimprove.archive.files import read_regular
from selfimprove.archive.findings import Finding
from selfimprove.archive.inventory import check_inventory, covered_files
from selfimprove.archive.ledger import LEDGER_NAME, anchor_problem, anchored
from selfimprove.errors import SelfImproveError

__all__ = ["AuditReport", "Finding", "audit"]


_ANYBODY = "neither anchored nor signed on this machine: anybody can have written it (--foreign leaves this out)"


@dataclass(frozen=True)
class AuditReport:
    """The result of an audit.

    Attributes:
        ok: nothing was found.
        anchored: an anchor of this run is on this machine and was compared.
        entries: whole lines of the ledger that are valid entries by themselves.
        findings: in order of file and line.
        torn: the ledger ends in a line that a crash cut short; the next resume sets it aside. Not a finding.
        public_key: that signed it, hex, as far as that is known.
    """

    ok: bool
    anchored: bool
    entries: int
    findings: tuple[Finding, ...]
    torn: bool = False
    public_key: str | None = None


def audit(run_dir: Path, anchor: Anchor | None, own_key: str | None = None) -> AuditReport:
    """Check a run folder against its ledger; whatever is in the folder, this reports and does not raise.

    A run that is under way can be audited; a file that is stored but not yet recorded then shows as not in the ledger.

    Args:
        run_dir: the run folder.
        anchor: where anchors are kept.
        own_key: with which a ledger that has no anchor must be signed, hex; None: with whichever it states.
    """
    run_dir = Path(run_dir)
    path = run_dir / LEDGER_NAME
    present, findings = covered_files(run_dir)
    record: AnchorRecord | None = None
    try:
        record = anchored(path, anchor)  # before the ledger, which may be growing
    except SelfImproveError as error:
        findings.append(Finding(LEDGER_NAME, 1, f"its anchor cannot be used: {error}"))
    except OSError:
        pass  # the next read says so
    try:
        found = scan(read_regular(path), record.public_key if record else None)
    except OSError as error:
        findings.append(Finding(LEDGER_NAME, 0, f"cannot be read: {error.strerror}"))
        return AuditReport(False, record is not None, 0, tuple(sorted(findings)))
    torn = bool(found.tail) and is_torn(found.tail)
    findings += _check_ledger(found, record, torn)
    if record is None and own_key is not None and found.public_key != own_key:
        findings.append(Finding(LEDGER_NAME, 1, _ANYBODY))
    entries = [entry for entry in found.entries if entry is not None]
    if len(entries) == len(found.entries):  # with lines missing, sums and file lists would be wrong as a consequence
        findings += [Finding(LEDGER_NAME, line, what) for line, what in check_accounts(entries)]
        findings += check_inventory(run_dir, entries, present, LEDGER_NAME)
    unique = tuple(sorted(set(findings)))
    return AuditReport(not unique, record is not None, len(entries), unique, torn, found.public_key)


def _check_ledger(found: Scan, record: AnchorRecord | None, torn: bool) -> list[Finding]:
    findings = [Finding(LEDGER_NAME, problem.line, problem.what) for problem in found.problems]
    if not found.entries:
        findings.append(Finding(LEDGER_NAME, 1, "holds no entry"))
    if found.tail and not torn:
        findings.append(Finding(LEDGER_NAME, len(found.entries) + 1, "ends in bytes that no torn append leaves behind"))
    problem = anchor_problem(found, record) if record is not None else None
    if record is not None and problem is not None:
        line = min(record.count, len(found.entries) + 1)
        findings.append(Finding(LEDGER_NAME, line, f"against its anchor: {problem}"))
    return findings
