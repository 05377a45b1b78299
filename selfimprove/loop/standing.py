"""Where a run stands, from its ledger and its kill switch; reading changes nothing."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.ledger import LEDGER_NAME, Entry, read
from selfimprove.archive.lineage import replay
from selfimprove.archive.records import HALT_NAME, by_kind
from selfimprove.containment.keys import state_dir
from selfimprove.loop.laboratory import best_skill
from selfimprove.loop.watching import pending, why


@dataclass(frozen=True)
class RunSummary:
    """Where a run stands; the keys of ``selfimprove status --json``, and whether a tripwire waits for an approval."""

    state: str
    reason: str
    generation: int
    candidates: int
    charged_flops: int
    limit_flops: int
    best_skill: float | None
    lineage_sha256: str
    tripped: bool = False


def status(run_dir: Path) -> RunSummary:
    """Where a run stands, from its ledger; changes nothing.

    Raises:
        RunError, LedgerError: no ledger there, or one that was changed.
    """
    entries = read(run_dir / LEDGER_NAME, FileAnchor(state_dir()))
    first = entries[0].body
    bodies = by_kind((entry.kind, entry.body) for entry in entries)
    state, reason = _state(run_dir, entries)
    charges = bodies["charge"]
    return RunSummary(
        state=state,
        reason=reason,
        generation=len(bodies["generation"]),
        candidates=len(bodies["proposal"]),
        charged_flops=charges[-1]["total"] if charges else 0,
        limit_flops=first["limits"]["flops"],
        best_skill=best_skill(bodies["decision"], bodies["confirmation"], bodies["score"]),
        lineage_sha256=replay(entries).sha256(),
        tripped=state == "paused" and pending(entries) is not None,
    )


def halted(run_dir: Path, entries: Iterable[Entry]) -> bool:
    """Whether the kill switch was used and not lifted since."""
    return (run_dir / HALT_NAME).exists() or _last_of(entries, ("halt", "clear_halt")) == "halt"


def halt_reason(run_dir: Path) -> str:
    """What whoever threw the kill switch wrote into it."""
    try:
        return (run_dir / HALT_NAME).read_text(encoding="utf-8", errors="replace")[:500].strip() or "halted"
    except OSError:
        return "halted"


def is_running(run_dir: Path) -> bool:
    """Whether a process holds the ledger's lock."""
    descriptor = os.open(run_dir / LEDGER_NAME, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _state(run_dir: Path, entries: Sequence[Entry]) -> tuple[str, str]:
    """State and reason, from the last record that says something about them."""
    for entry in reversed(entries):
        if entry.kind == "finish":
            return str(entry.body["state"]), str(entry.body["reason"])
    if is_running(run_dir):
        return "running", ""
    if (run_dir / HALT_NAME).exists():
        return "halted", halt_reason(run_dir)
    if halted(run_dir, entries):
        return "halted", str(next(e.body["reason"] for e in reversed(entries) if e.kind == "halt"))
    if (tripped := pending(entries)) is not None:
        return "paused", why(tripped)
    if entries[-1].kind == "approval":
        return "paused", f"approved by {entries[-1].body['who']}; selfimprove resume goes on"
    return "paused", "interrupted; selfimprove resume goes on"


def _last_of(entries: Iterable[Entry], kinds: tuple[str, ...]) -> str | None:
    return next((entry.kind for entry in reversed(tuple(entries)) if entry.kind in kinds), None)
