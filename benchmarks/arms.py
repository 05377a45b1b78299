"""A study whose arms are values of one setting of an experiment, paired by root seed: from runs to a report."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.improvement import finish
from benchmarks.sittings import TIME_UP, Row, lines, run_paired
from selfimprove.archive.ledger import LEDGER_NAME, Entry, read

RUNS = "runs.jsonl"


@dataclass(frozen=True)
class Study:
    """What studies of arms differ in.

    Args:
        experiment: that all runs are of.
        setting: whose value is the arm.
        row_of: a finished run's line, from its ledger, its arm and its root seed.
        in_a_word: what is printed of a run; None where it did not end.
        write: summary and report, from the folder, all lines and a note.
    """

    experiment: str
    setting: str
    row_of: Callable[[Sequence[Entry], str, int], Row]
    in_a_word: Callable[[str, int, Row | None], str]
    write: Callable[[Path, Sequence[Row], str], Any]

    def sit(self, chosen: argparse.Namespace) -> int:
        """Run what is missing, then write summary and report; returns 0, or 3 where the time was up first.

        Args:
            chosen: what ``paired_arguments`` reads, and ``arms`` and ``note``.
        """
        chosen.results.mkdir(parents=True, exist_ok=True)
        path = chosen.results / RUNS
        known = {(line["arm"], line["seed"]) for line in lines(path)}
        missing = [(arm, seed) for seed in chosen.seeds for arm in chosen.arms if (arm, seed) not in known]

        def run(runs: Path, arm: str, seed: int, start: bool) -> Row | None:
            return self.run_one(runs, arm, seed, chosen.overrides, start=start)

        done = run_paired(path, missing, chosen, run, self.in_a_word)
        if rows := lines(path):
            self.write(chosen.results, rows, chosen.note)
            print(f"{len(rows)} runs: {chosen.results / 'report.md'}")
        return 0 if done else TIME_UP

    def run_one(self, runs: Path, arm: str, seed: int, overrides: Sequence[str], *, start: bool) -> Row | None:
        """Run one arm, or go on with it; None where it did not come to an end, and then its folder is kept."""
        folder = runs / f"{arm}-seed{seed}"
        words = [f"experiment={self.experiment}", f"{self.setting}={arm}", f"seed={seed}", *overrides]
        runs.mkdir(parents=True, exist_ok=True)
        with (runs / f"{folder.name}.log").open("a", encoding="utf-8") as log:
            if not finish(folder, words, start=start, log=log):
                return None
        entries = read(folder / LEDGER_NAME, None)
        ended = {name: entries[-1].body[name] for name in ("state", "reason")}
        row = self.row_of(entries, arm, seed) | ended | {"overrides": list(overrides)}
        shutil.rmtree(folder)
        return row
