"""``selfimprove redteam``: try to break out of the containment, on this machine, in every way that is known."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selfimprove.containment.redteam.probe import probe
from selfimprove.containment.redteam.registry import select
from selfimprove.containment.redteam.runner import Runner
from selfimprove.containment.redteam.verdict import CONTAINED, ESCAPED, INCONCLUSIVE, Row
from selfimprove.containment.sandbox.backend import SandboxBackend
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.errors import ConfigError
from selfimprove.loop.config import ContainmentConfig

VERDICTS = (CONTAINED, ESCAPED, INCONCLUSIVE)
NOT_COVERED = (
    "metadata of files (stat, readlink, O_PATH): a worker sees that a path exists, its size, times and owner",
    "kernel exploits, side channels, and whoever already has the rights of the user",
)


def redteam(arguments: argparse.Namespace) -> int:
    """Run the suite, or a file of one's own attacks; 1 if anything escaped, 2 if a probe, or all, proved nothing."""
    config = ContainmentConfig()
    backend = make_backend(arguments.backend or config.backend, outer_layer=config.outer_layer)
    started = time.monotonic()
    if arguments.probe is not None:
        if arguments.only:
            raise ConfigError("redteam --probe", "--only", "one of the two")
        rows = _watched(lambda on_row: probe(Path(arguments.probe), backend, on_row), None, arguments)
    else:
        chosen = select(name for given in arguments.only for name in given.split(",") if name)
        rows = _watched(lambda on_row: _suite(chosen, backend, on_row), len(chosen), arguments)
    found = summary(rows, backend, time.monotonic() - started)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print("\n".join(describe(found)))
    counts = found["counts"]
    unproven = counts[INCONCLUSIVE] if arguments.probe is not None else not found["ok"]
    return 1 if counts[ESCAPED] else 2 if unproven else 0


def _suite(chosen: Any, backend: SandboxBackend, on_row: Callable[[Row], None]) -> list[Row]:
    with Runner(backend, on_row) as runner:
        return runner.run(chosen)


def _watched(
    work: Callable[[Callable[[Row], None]], list[Row]], total: int | None, arguments: argparse.Namespace
) -> list[Row]:
    """Do the work with a word on how far it is, where somebody watches."""
    from rich import get_console

    console = get_console()
    if arguments.json or not console.is_terminal:
        return work(lambda row: None)
    known: list[Row] = []
    with console.status("running every attack without containment first") as status:

        def tell(row: Row) -> None:
            known.append(row)
            of = "" if total is None else f" of {total}"
            status.update(f"{len(known)}{of} attacks judged, the last: {row.id}, {row.verdict}")

        return work(tell)


def summary(rows: Sequence[Row], backend: SandboxBackend, seconds: float) -> dict[str, Any]:
    """Everything that ``--json`` prints; its keys are stable."""
    verdicts = Counter(row.verdict for row in rows)
    counts = {verdict: verdicts[verdict] for verdict in VERDICTS}
    return {
        "ok": counts[CONTAINED] > 0 and not counts[ESCAPED],
        "backend": backend.name,
        "user": os.geteuid(),
        "seconds": round(seconds, 1),
        "counts": {"attacks": len(rows), **counts},
        "not_covered": list(NOT_COVERED),
        "rows": [row.to_json() for row in rows],
    }


def describe(found: dict[str, Any]) -> list[str]:
    """The same for a person: a line a category, and every attack that was not contained."""
    rows = found["rows"]
    lines = [f"{'category':<12}{'attacks':>8}{'contained':>11}{'escaped':>9}{'inconclusive':>14}"]
    for category in dict.fromkeys(row["category"] for row in rows):
        here = [row["verdict"] for row in rows if row["category"] == category]
        lines.append(f"{category:<12}{len(here):>8}{here.count(CONTAINED):>11}{here.count(ESCAPED):>9}"
                     f"{here.count(INCONCLUSIVE):>14}")  # fmt: skip
    everything = len(rows) <= 20  # of a few chosen attacks one wants to see each
    for row in rows:
        if everything or row["verdict"] != CONTAINED:
            control = f"; without containment: {row['control']}" if row["control"] else ""
            lines += ["", f"{row['verdict'].upper()}  {row['id']}: {row['attack']}",
                      f"  expected {row['expected']}, observed {row['observed']}{control}",
                      f"  mechanism: {row['mechanism']}"]  # fmt: skip
    counts = found["counts"]
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    head = f"{'OK' if found['ok'] else 'NOT OK'}: {counts['attacks']} attacks in {found['seconds']:.0f} s"
    lines += ["", f"{head} on backend {found['backend']}: {verdicts}"]
    lines += [f"not covered: {what}" for what in found["not_covered"]]
    return lines
