"""Does a controller that is built from a promoted genome propose better? All arms, paired by root seed.

Seven arms of ``experiment=recursion``: the controller is frozen, or keeps its genome and learns, or trains extra, or
may take over a sham, the promoted architecture, its loss, or the whole genome. What a run leaves is one line of
``runs.jsonl``; its folder is deleted. A sitting that runs out of minutes ends with exit code 3, and the next one goes
on where it stopped, inside a run too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arms import Study
from benchmarks.recursion_analysis import summary_of
from benchmarks.recursion_report import write_report
from benchmarks.recursion_rows import row_of
from benchmarks.setting import RESULTS, ROOT
from benchmarks.sittings import Row, paired_arguments
from selfimprove.controller.config import ARMS

FOLDER = RESULTS / "recursion"


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, then write summary and report; returns 0, or 3 where the time was up first."""
    return Study("recursion", "controller.recursion", row_of, _in_a_word, _write).sit(_parser().parse_args(arguments))


def _write(folder: Path, rows: Sequence[Row], note: str) -> None:
    write_report(folder, summary_of(rows), note)


def _in_a_word(row: Row) -> str:
    promoted, accepted = (sum(one[name] for one in row[of]) for of, name in _COUNTED)
    return (
        f"{row['state']}, {promoted} promotions, {accepted} hand-overs, "
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
