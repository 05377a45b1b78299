"""A study whose arms are values of one setting of an experiment, paired by root seed: from runs to a report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.improvement import finish
from benchmarks.sittings import TIME_UP, Row, lines, run_paired
from selfimprove.archive.ledger import LEDGER_NAME, Entry, read
from selfimprove.archive.lineage import replay
from selfimprove.archive.records import Bodies
from selfimprove.loop.recovery import elapsed_seconds

RUNS = "runs.jsonl"


@dataclass(frozen=True)
class Study:
    """What studies of arms differ in.

    Args:
        experiment: that all runs are of.
        setting: whose value is the arm.
        row_of: a finished run's line, from its ledger, its arm and its root seed.
        in_a_word: what is printed of a line.
        write: summary and report, from the folder, the lines of runs that came to their end, and a note.
    """

    experiment: str
    setting: str
    row_of: Callable[[Sequence[Entry], str, int], Row]
    in_a_word: Callable[[Row], str]
    write: Callable[[Path, Sequence[Row], str], Any]

    def sit(self, chosen: argparse.Namespace) -> int:
        """Run what is missing, then write summary and report; returns 0, or 3 where the time was up first.

        Args:
            chosen: what ``paired_arguments`` reads, and ``arms`` and ``note``.
        """
        chosen.results.mkdir(parents=True, exist_ok=True)
        path = chosen.results / RUNS

        def missing() -> list[tuple[str, int]]:
            known = {(row["arm"], row["seed"]) for row in lines(path)}
            return [(arm, seed) for seed in chosen.seeds for arm in chosen.arms if (arm, seed) not in known]

        def run(folder: Path, arm: str, seed: int, start: bool) -> Row | None:
            return self.run_one(folder, arm, seed, chosen.overrides, start=start)

        def in_a_word(row: Row) -> str:
            return self.in_a_word(row) if row["generations"] else _how_it_ended(row)

        done = run_paired(path, missing, chosen, run, in_a_word)
        if rows := lines(path):
            whole, note = [row for row in rows if _is_whole(row)], f"{chosen.note} {left_out(rows)}".strip()
            self.write(chosen.results, whole, note)
            print(f"{len(rows)} runs: {chosen.results / 'report.md'}")
        return 0 if done else TIME_UP

    def run_one(self, folder: Path, arm: str, seed: int, overrides: Sequence[str], *, start: bool) -> Row | None:
        """Run one arm, or go on with it; None where it did not come to an end."""
        words = [f"experiment={self.experiment}", f"{self.setting}={arm}", f"seed={seed}", *overrides]
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{folder}.log").open("a", encoding="utf-8") as log:
            if not finish(folder, words, start=start, log=log):
                return None
        entries = read(folder / LEDGER_NAME, None)
        ended = {name: entries[-1].body[name] for name in ("state", "reason")}
        return self.row_of(entries, arm, seed) | ended


def shared(entries: Sequence[Entry], bodies: Bodies) -> Row:
    """What the line of every run says: the exam on the sealed split, FLOPs by account, wall time, lineage."""
    paid = dict.fromkeys(("search", "confirm", "controller", "lost"), 0)
    for body in bodies["charge"]:
        paid[body["account"]] += body["flops"]
    return {
        "sealed": bodies["sealed"][-1]["sealed"]["difference"] if bodies["sealed"] else None,
        "paid": paid,
        "seconds": elapsed_seconds(entries),
        "lineage_sha256": replay(entries).sha256(),
    }


def left_out(rows: Sequence[Row]) -> str:
    """The runs that a limit or a stop ended early, and so say little of their arms; empty without any."""
    short = [f"{r['arm']}, root seed {r['seed']} ({_how_it_ended(r)})" for r in rows if not _is_whole(r)]
    return f"Left out, as they ended early: {'; '.join(short)}." if short else ""


def _is_whole(row: Row) -> bool:
    return bool(row["state"] == "finished" and row["generations"])


def _how_it_ended(row: Row) -> str:
    return f"{row['state']}: {row['reason']}"
