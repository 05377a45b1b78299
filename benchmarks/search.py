"""Which controller finds better designs for the same charged compute? All in the real loop, paired by root seed.

A run is ``experiment=search``: one controller, instances of one difficulty. What it leaves is one line of
``runs.jsonl``: after each generation the charged FLOPs, the controller's own included, and the champion's skill as it
was confirmed on fresh seeds; its folder is deleted. A sitting that runs out of minutes ends with exit code 3, and the
next one goes on where it stopped, inside a run too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arms import Study, shared
from benchmarks.search_analysis import summary_of
from benchmarks.search_report import write_report
from benchmarks.setting import RESULTS, ROOT
from benchmarks.sittings import Row, paired_arguments
from selfimprove.archive.ledger import Entry
from selfimprove.archive.records import Bodies, by_kind
from selfimprove.controller.registry import CONTROLLERS

FOLDER = RESULTS / "search"
ARMS = tuple(name for name in CONTROLLERS if name != "adversary")


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, then write summary and report; returns 0, or 3 where the time was up first."""
    return Study("search", "controller", row_of, _in_a_word, _write).sit(_parser().parse_args(arguments))


def _write(folder: Path, rows: Sequence[Row], note: str) -> None:
    write_report(folder, summary_of(rows), note)


def row_of(entries: Sequence[Entry], arm: str, seed: int) -> Row:
    """One run as a line of the study, JSON-ready."""
    bodies = by_kind((entry.kind, entry.body) for entry in entries)
    confirmed = {body["generation"]: body for body in bodies["confirmation"]}
    measured = [_mean(body["parent_skill"]) for body in confirmed.values()]
    skill = seed_genome = next(iter(measured + [body["skill"] for body in bodies["reference"]]), None)
    generations = []
    for closed in bodies["generation"]:
        if closed["promoted"]:
            skill = _mean(confirmed[closed["generation"]]["candidate"])
        kept = {name: closed[name] for name in ("generation", "charged_flops", "promoted", "valid", "denied", "failed")}
        generations.append(kept | {"skill": skill})
    return {
        "arm": arm,
        "seed": seed,
        "seed_genome": seed_genome,
        "generations": generations,
        "edits": _promoted_edits(bodies),
        **shared(entries, bodies),
    }


def _promoted_edits(bodies: Bodies) -> list[list[str]]:
    edits = {(body["generation"], body["index"]): body["edits"] for body in bodies["proposal"]}
    return [edits[body["generation"], body["index"]] for body in bodies["decision"] if body["promoted"]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _in_a_word(row: Row) -> str:
    last = row["generations"][-1]
    return (
        f"{row['state']}, skill {row['seed_genome']:.3f} to {last['skill']:.3f}, "
        f"{last['charged_flops'] / 1e12:.2f} TFLOP, {row['seconds']:.0f} s"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfimprove study search", description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="controllers (default: all)")
    parser.add_argument("--note", default="", help="a sentence for the report's head")
    paired_arguments(parser, FOLDER, ROOT / "runs" / "study-search", seeds=10)
    return parser
