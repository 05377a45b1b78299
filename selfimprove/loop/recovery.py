"""What a sitting has to put in order before it goes on.

Permits that an earlier one left open, files that it left without a name, and the time it took.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from selfimprove.archive.files import read_regular
from selfimprove.archive.inventory import TRACKED, claims, covered_files
from selfimprove.containment.budget import Budget
from selfimprove.loop.journal import Journal
from selfimprove.loop.reign import CONTENDER, INCUMBENT

_CONTROLLER_RECORDS = {"ask": "ask", "tell": "controller"}  # verb of the key -> kind of the record that it ends in
_FIRST_OF_A_SITTING = frozenset({"run", "resume", "recovery"})


def settle_open(journal: Journal, budget: Budget) -> None:
    """Charge every permit that was not charged: to its account if its effect is on record, else to ``lost``.

    A charge follows the record of what it paid for. So work is never paid twice: a crash between the two costs nothing,
    and one before them costs exactly the work that has to be done again.
    """
    charged = Counter(body["key"] for body in journal.all("charge"))
    for body in journal.all("permit"):
        key, account, flops = body["key"], body["account"], body["flops"]
        if charged[key]:
            charged[key] -= 1
            continue
        settle = budget.honor if _is_done(journal, key) else budget.abandon
        journal.record("charge", asdict(settle(key, account, flops)))


def _is_done(journal: Journal, key: str) -> bool:
    generation, _, verb = key.partition("/")
    if verb in (CONTENDER, INCUMBENT):
        return journal.find("trial", int(generation[1:]), verb) is not None
    if verb in _CONTROLLER_RECORDS:
        return journal.find(_CONTROLLER_RECORDS[verb], int(generation[1:])) is not None
    slot, _, stage = key.rpartition("@")
    return journal.find("stage", slot, stage) is not None or journal.find("outcome", slot) is not None


def name_strays(journal: Journal, run_dir: Path) -> None:
    """Record what a sitting stored in the generation that it was killed in, and did not live to name.

    Where the run goes on the effect is caused again, and its own record supersedes this one; where a limit ends the run
    before, the file has a name. Whatever else lies in the folder stays what it is: not in the ledger.
    """
    known = {claim.path: claim for claim in claims(journal.entries)}
    closed = len(journal.all("generation"))
    prefixes = (f"g{closed + 1:03d}", *(("g000",) if not closed else ()))
    for name in covered_files(run_dir)[0]:
        path, claim = PurePosixPath(name), known.get(name)
        is_ours = path.parts[0] in TRACKED and path.name.startswith(prefixes)
        if not is_ours or (claim is not None and claim.entry.kind != "recovery"):
            continue
        with contextlib.suppress(OSError):  # what cannot be read an audit reports
            data = read_regular(run_dir / name)
            found = hashlib.sha256(data).hexdigest()
            if claim is None or claim.sha256 != found:
                journal.record("recovery", {"path": name, "sha256": found, "bytes": len(data)})


class Timed(Protocol):
    """A record with its kind and the time at which it was written, in ISO 8601."""

    @property
    def kind(self) -> str:
        """What it records."""

    @property
    def time(self) -> str:
        """When."""


def elapsed_seconds(entries: Iterable[Timed]) -> float:
    """Wall time of the sittings so far, each from its first record to its last; a clock set back counts as nothing.

    The time that a tripped run waits for its approval is no sitting.
    """
    total, started, last = 0.0, None, None
    for entry in entries:
        if entry.kind == "approval":
            continue
        now = datetime.fromisoformat(entry.time)
        if started is None or last is None or entry.kind in _FIRST_OF_A_SITTING:
            total += _seconds(started, last)
            started = now
        last = now
    return total + _seconds(started, last)


def _seconds(started: datetime | None, last: datetime | None) -> float:
    return max(0.0, (last - started).total_seconds()) if started is not None and last is not None else 0.0
