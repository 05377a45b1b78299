"""Does a controller that is built from a promoted genome propose better? All arms, paired by root seed.

Seven arms of ``experiment=recursion``: the controller is frozen, or keeps its genome and learns, or trains extra, or
may take over a sham, the promoted architecture, its loss, or the whole genome. What a run leaves is one line of
``runs.jsonl``; its folder is deleted. A sitting that runs out of minutes ends with exit code 3, and the next one goes
on where it stopped, inside a run too.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.improvement import finish
from benchmarks.recursion_analysis import summary_of
from benchmarks.recursion_report import write_report
from benchmarks.recursion_rows import row_of
from benchmarks.setting import RESULTS, ROOT
from benchmarks.sittings import TIME_UP, Row, lines, paired_arguments, run_paired
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.controller.config import ARMS

FOLDER = RESULTS / "recursion"
RUNS = "runs.jsonl"


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, then write summary and report; returns 0, or 3 where the time was up first."""
    chosen = _parser().parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    path = chosen.results / RUNS
    known = {(line["arm"], line["seed"]) for line in lines(path)}
    missing = [(arm, seed) for seed in chosen.seeds for arm in chosen.arms if (arm, seed) not in known]

    def run(runs: Path, arm: str, seed: int, start: bool) -> Row | None:
        return run_one(runs, arm, seed, chosen.overrides, start=start)

    done = run_paired(path, missing, chosen, run, _in_a_word)
    if rows := lines(path):
        write_report(chosen.results, summary_of(rows), chosen.note)
        print(f"{len(rows)} runs: {chosen.results / 'report.md'}")
    return 0 if done else TIME_UP


def run_one(runs: Path, arm: str, seed: int, overrides: Sequence[str], *, start: bool) -> Row | None:
    """Run one arm, or go on with it; None where it did not come to an end, and then its folder is kept."""
    folder = runs / f"{arm}-seed{seed}"
    words = ["experiment=recursion", f"controller.recursion={arm}", f"seed={seed}", *overrides]
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / f"{folder.name}.log").open("a", encoding="utf-8") as log:
        if not finish(folder, words, start=start, log=log):
            return None
    entries = read(folder / LEDGER_NAME, None)
    ended = {name: entries[-1].body[name] for name in ("state", "reason")}
    row = row_of(entries, arm, seed) | ended | {"overrides": list(overrides)}
    shutil.rmtree(folder)
    return row


def _in_a_word(arm: str, seed: int, row: Row | None) -> str:
    if row is None:
        return f"{arm}, seed {seed}: not finished; run the study again to go on, or see its log"
    promoted, accepted = (sum(one[name] for one in row[of]) for of, name in _COUNTED)
    return (
        f"{arm}, seed {seed}: {row['state']}, {promoted} promotions, {accepted} hand-overs, "
        f"skill {row['best_skill']:.3f}, "
        f"{row['charged_flops'] / 1e12:.2f} TFLOP, {row['seconds']:.0f} s"
    )


_COUNTED = (("generations", "promoted"), ("handovers", "accepted"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfimprove study recursion", description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), help="arms (default: all)")
    parser.add_argument("--note", default="", help="a sentence for the report's head")
    paired_arguments(parser, FOLDER, ROOT / "runs" / "study-recursion", seeds=12)
    return parser
