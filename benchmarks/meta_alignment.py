"""Does selection erode the halt constraint, does the gate stop it, and at what price in skill? A 2 x 2 experiment.

Two factors: whether proposals may change the weight of the constraint's loss term (``space.constraint_editable``), and
whether a lost constraint stops anything (``inspection.retention_gate``). Every root seed runs all four cells of
``experiment=meta_alignment``, so that differences between cells are paired: the same seed genome, trainings and
instances. What a run leaves is one line of ``runs.jsonl``; its folder is deleted. A sitting that runs out of minutes
ends with exit code 3, and the next one goes on where it stopped, inside a run too.

Whether the constraint costs skill in the first place, which is what gives selection a reason, is measured apart, with
``--pressure``: the seed genome alone, trained with and without the constraint, at this scale and at the default one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.improvement import finish
from benchmarks.meta_alignment_analysis import summary_of
from benchmarks.meta_alignment_pressure import add_pressure
from benchmarks.meta_alignment_report import write_report
from benchmarks.meta_alignment_rows import ARMS, Arm, row_of
from benchmarks.setting import RESULTS, ROOT
from benchmarks.sittings import TIME_UP, Row, lines, paired_arguments, run_paired
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.errors import RunError
from selfimprove.loop.standing import status

FOLDER = RESULTS / "meta_alignment"
RUNS, PRESSURE = "runs.jsonl", "pressure.jsonl"


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, then write summary and report; returns 0, or 3 where the time was up first."""
    chosen = _parser().parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    path, beside = chosen.results / RUNS, chosen.results / PRESSURE
    if chosen.pressure:
        done = add_pressure(beside, chosen.seeds, chosen.processes, time.monotonic() + 60 * chosen.minutes)
    else:
        done = run_all(path, chosen)
    if rows := lines(path):
        write_report(chosen.results, summary_of(rows, lines(beside)))
        print(f"{len(rows)} runs: {chosen.results / 'report.md'}")
    return 0 if done else TIME_UP


def run_all(path: Path, chosen: argparse.Namespace) -> bool:
    """Run every cell of every root seed that has no line yet; whether all are there."""

    def missing() -> list[tuple[Arm, int]]:
        known = {(Arm(**line["arm"]), line["seed"]) for line in lines(path)}
        return [(arm, seed) for seed in chosen.seeds for arm in ARMS if (arm, seed) not in known]

    def run(folder: Path, arm: Arm, seed: int, start: bool) -> Row | None:
        return run_one(folder, arm, seed, overrides=chosen.overrides) if start else None

    return run_paired(path, missing, chosen, run, _in_a_word)


def run_one(folder: Path, arm: Arm, seed: int, overrides: Sequence[str] = ()) -> Row | None:
    """Run one cell, or go on with it; None where it did not come to an end.

    Raises:
        RunError: it ended before its seed genome was scored.
    """
    words = ["experiment=meta_alignment", *arm.overrides, f"seed={seed}", *overrides]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.log").open("a", encoding="utf-8") as log:
        ended = finish(folder, words, start=True, log=log)
    if not (folder / LEDGER_NAME).exists():
        return None
    found = status(folder)
    if not ended and not found.tripped:
        return None
    if found.best_skill is None:
        remedy = "remove its folder and run it with other overrides, or leave out its root seed: --seeds"
        raise RunError(f"read {folder}", f"{found.state}: {found.reason}", "a run that scored its seed genome", remedy)
    return row_of(read(folder / LEDGER_NAME, None), arm, seed) | {"state": found.state, "reason": found.reason}


def _in_a_word(row: Row) -> str:
    champion = row["generations"][-1]["champion"] if row["generations"] else row["seed_genome"]
    kept = champion["retention"]
    return (
        f"{row['state']}, {sum(g['promoted'] for g in row['generations'])} promotions, "
        f"skill {champion['skill']:.3f}, "
        f"factor {champion['factor']:g}, {kept['kept']} of {kept['n']} halt prompts kept, {row['seconds']:.0f} s"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfimprove study meta-alignment", description=__doc__)
    parser.add_argument("--pressure", action="store_true", help="measure what the constraint costs, and run no cell")
    paired_arguments(parser, FOLDER, ROOT / "runs" / "study-meta-alignment", seeds=8)
    return parser
