"""Does the loop improve its successor? Default runs from several root seeds, and random proposals beside them.

Each run ends with its own exam: the genome promoted last against the seed genome, at equal FLOPs a training, on 8 fresh
training seeds, on the gate split and, once, on the sealed split. This study runs the arms, reads that record from each
ledger and tabulates it. Runs live under ``runs/study-improvement`` and are resumed where they stopped; what the summary
already holds is kept as it was measured, with its commit and its overrides. Remove the summary to measure anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from benchmarks.setting import RESULTS, ROOT, commit, machine, own_code
from benchmarks.sittings import TIME_UP, Begun, markdown_table, one_sitting, refuse_other_overrides
from selfimprove.archive.files import write_atomic
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.archive.lineage import replay
from selfimprove.archive.records import by_kind
from selfimprove.loop.standing import status
from selfimprove.tasks.ladder import MASTERED

FOLDER = RESULTS / "improvement"
ARMS = ("transformer", "random")
LEVEL = 0.01  # of the tests
FAR = 0.5  # skill below which the seed genome counts as not mastering a family; no binding at all may have as much


def main(arguments: Sequence[str]) -> int:
    """Run or resume the study and write ``summary.json``; returns 0, or 3 where the time was up first."""
    parser = argparse.ArgumentParser(prog="selfimprove study improvement", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="root seeds")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="controllers")
    parser.add_argument("--minutes", type=float, default=55.0, help="start no run after this time (default 55)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "study-improvement", help="folder of the runs")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the summary")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further overrides of every run")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    for folder in (chosen.results, chosen.runs):
        folder.mkdir(parents=True, exist_ok=True)
    with one_sitting(chosen.results, chosen.runs):
        rows, this = measured(chosen.results), Begun(commit(), list(chosen.overrides))
        known = [Begun(row["commit"], row.get("overrides", [])) for row in rows.values()]
        refuse_other_overrides(chosen.results / "summary.json", known, this)
        wanted = [(arm, seed) for seed in chosen.seeds for arm in chosen.arms]
        for arm, seed in wanted:
            if (arm, seed) not in rows:
                late = time.monotonic() - started > 60 * chosen.minutes
                row = _run(chosen.runs / f"{arm}-seed{seed}", arm, seed, this, start=not late)
                if row is None:
                    continue
                rows[arm, seed] = row
                write(chosen.results, list(rows.values()))
            print(line(rows[arm, seed]), flush=True)
        return 0 if rows.keys() >= set(wanted) else TIME_UP


def _run(folder: Path, arm: str, seed: int, this: Begun, *, start: bool) -> dict[str, Any] | None:
    """The row of a run, brought to its end from wherever it stands; None where it has none."""
    begun = Begun.at(folder, this, start=start)
    if not finish(folder, [f"controller={arm}", f"seed={seed}", *this.overrides], start=start):
        print(f"{arm} seed {seed}: not finished{_why(folder)}; run the study again to go on", flush=True)
        return None
    return row_of(folder, arm, seed) | asdict(begun.until(this))


def measured(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The rows of an earlier sitting, by arm and root seed."""
    path = folder / "summary.json"
    if not path.exists():
        return {}
    return {(row["arm"], row["seed"]): row for row in json.loads(path.read_text(encoding="utf-8"))["runs"]}


def finish(folder: Path, overrides: Sequence[str], *, start: bool, log: TextIO | None = None) -> bool:
    """Bring a run to its end, from wherever it stands; False where it has none. It talks to ``log``, or to stderr."""
    if _finished(folder):
        return True
    if not start:
        return False
    command = ["run", "device=cpu", "tracking=none", f"hydra.run.dir={folder}", *overrides]
    if (folder / LEDGER_NAME).exists():
        command = ["resume", str(folder)]
    words = [sys.executable, "-m", "selfimprove.app.cli", *command]
    subprocess.run(words, cwd=ROOT, env=own_code(), check=False, stdout=log or sys.stderr, stderr=log)
    return _finished(folder)


def row_of(folder: Path, arm: str, seed: int) -> dict[str, Any]:
    """What a finished run's ledger says about its last promoted genome."""
    entries = read(folder / LEDGER_NAME, None)
    bodies = by_kind((entry.kind, entry.body) for entry in entries)
    promoted = [body["genome"] for body in bodies["decision"] if body["promoted"]]
    edits = {b["genome"]: b["edits"] for b in reversed(bodies["proposal"]) if b["status"] == "valid"}
    exam = bodies["sealed"][-1] if bodies["sealed"] else {}
    return {
        "arm": arm,
        "seed": seed,
        "state": entries[-1].body["state"],
        "reason": entries[-1].body["reason"],
        "promotions": [edits[genome] for genome in promoted],
        "gate": _exam(exam.get("gate")),
        "sealed": _exam(exam.get("sealed")),
        "held_out": _exam(bodies["held_out"][-1]["sealed"] if bodies["held_out"] else None),
        "families": (families := _families(exam)),
        "levels": [{"generation": b["generation"], **b["levels"]} for b in bodies["climb"]],
        "saturated": saturated(bodies["climb"]),
        "climbed": [name for name, found in families.items() if _climbed(found)],
        "candidates": len(bodies["proposal"]),
        "charged_flops": sum(body["flops"] for body in bodies["charge"]),
        "generation_seconds": [body["elapsed_seconds"] for body in bodies["generation"]],
        "lineage_sha256": replay(entries).sha256(),
    }


def saturated(climbs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Families that were mastered at the top of their ladder for two generations in a row."""
    capped = {body["generation"]: set(body["capped"]) for body in climbs}
    return sorted({name for n, names in capped.items() for name in names & capped.get(n + 1, set())})


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The table so far, with how many root seeds of each arm reached the level."""
    rows = sorted(rows, key=lambda row: (row["seed"], ARMS.index(row["arm"])))
    counts = {
        arm: {
            "n": len(mine := [row for row in rows if row["arm"] == arm]),
            "better_on_gate_split": sum(row["gate"]["p_value"] < LEVEL for row in mine),
            "better_on_sealed_split": sum(row["sealed"]["p_value"] < LEVEL for row in mine),
        }
        for arm in ARMS
    }
    summary = {"level": LEVEL, "machine": machine(), "arms": counts, "runs": list(rows)}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1).encode() + b"\n")  # the rows' only place
    (folder / "summary.md").write_text(table(rows), encoding="utf-8")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The runs side by side, in Markdown."""
    head = (
        "root seed", "proposals", "promotions", "gate split", "p", "sealed split", "p", "held-out families", "p",
        "climbed", "charged TFLOP", "commit",
    )  # fmt: skip
    cells = []
    for row in rows:
        exams = [row[split] for split in ("gate", "sealed", "held_out")]
        figures = [text for one in exams for text in (f"{one['difference']:+.4f}", f"{one['p_value']:.4f}")]
        about = (_climb_text(row), f"{row['charged_flops'] / 1e12:.2f}", row["commit"])
        cells.append((row["seed"], row["arm"], len(row["promotions"]), *figures, *about))
    parts = (
        "Last promoted genome minus seed genome, mean skill on fresh training seeds at equal FLOPs a training "
        "(one-sided exact sign-flip test). Written by `selfimprove study improvement`.",
        "Climbed: families that rose to a level on which, in the sealed exam, the champion has a skill above "
        f"{MASTERED:g} and the seed genome one below {FAR:g}.",
        markdown_table(head, cells),
    )
    return "\n\n".join(parts) + "\n"


def line(row: dict[str, Any]) -> str:
    """One run in one line."""
    gate, sealed = row["gate"], row["sealed"]
    return (
        f"{row['arm']} seed {row['seed']}: {len(row['promotions'])} promotions; "
        f"gate {gate['difference']:+.4f} (p = {gate['p_value']:.4f}), "
        f"sealed {sealed['difference']:+.4f} (p = {sealed['p_value']:.4f}); climbed: {_climb_text(row)}; "
        f"held out {row['held_out']['difference']:+.4f} (p = {row['held_out']['p_value']:.4f}); "
        f"{row['charged_flops']:.3e} FLOPs"
    )


def _climb_text(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} to {row['families'][name]['level']}" for name in row["climbed"]) or "none"


def _exam(record: dict[str, Any] | None) -> dict[str, Any]:
    """Champion against seed genome on one split; no promotion means no difference, and p = 1."""
    if record is None:
        return {"n": 0, "difference": 0.0, "p_value": 1.0, "champion": [], "seed_genome": []}
    return {
        "n": len(record["candidate"]),
        "difference": record["difference"],
        "p_value": record["p_value"],
        "champion": record["candidate"],
        "seed_genome": record["parent_skill"],
    }


def _families(exam: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By family, on the sealed split: the level, and the mean skill of champion and seed genome there."""
    sealed = exam.get("sealed", {})
    return {
        name: {
            "level": exam["levels"][name],
            "champion": family["skill"],
            "seed_genome": sealed["parent_tasks"][name]["skill"],
        }
        for name, family in sealed.get("tasks", {}).items()
    }


def _climbed(family: dict[str, Any]) -> bool:
    """Whether a family rose to a level that the champion masters and the seed genome does not."""
    return bool(family["level"] > 0 and family["champion"] > MASTERED and family["seed_genome"] < FAR)


def _why(folder: Path) -> str:
    """What a run that stands still waits for, such as a person's word after a tripwire: no study gives that."""
    if not (folder / LEDGER_NAME).exists():
        return ""
    found = status(folder)
    return f" ({found.reason}; see: selfimprove status {folder})" if found.tripped else ""


def _finished(folder: Path) -> bool:
    if not (folder / LEDGER_NAME).exists():
        return False
    return read(folder / LEDGER_NAME, None)[-1].kind == "finish"
