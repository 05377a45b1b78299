"""Kill a run with SIGKILL at a random moment, resume it, and look for what must not be there.

Every trial starts the same small run (``debug=micro``) in a fresh folder and kills one of its processes: in four of six
trials the main process, else a zygote or a worker, at a moment drawn uniformly over the wall time of the same run left
alone. Then it is resumed until it is finished. Nothing may be different, lost, left behind or overdrawn:

- the lineage is that of the uninterrupted run, hash for hash. Killed workers and zygotes are no exception: their jobs
  are run again, alone, for what killed them says nothing about a candidate;
- every record that was in the ledger before the kill is still there, and the audit finds nothing;
- no process that the run had started is alive three seconds after its main process ended;
- what was charged and lost together stays within the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.setting import RESULTS, commit, machine, own_code
from benchmarks.sittings import TIME_UP, append, lines, one_sitting
from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.audit import audit
from selfimprove.archive.ledger import LEDGER_NAME, read
from selfimprove.containment.keys import SigningKey, state_dir
from selfimprove.errors import SelfImproveError
from selfimprove.loop.run import status
from selfimprove.seeds import derive

FOLDER = RESULTS / "faults"
TRIALS = "trials.jsonl"
TARGETS = ("main", "main", "zygote", "main", "main", "worker")
ORPHAN_SECONDS = 3.0
SITTING_SECONDS = 600.0
MOST_SITTINGS = 6
MOST_DRAWS = 10  # of a moment: after a late one no worker may start any more


@dataclass(frozen=True)
class Kill:
    """What was killed, and when; ``records`` were in the ledger, the last one of the kind ``after``."""

    target: str
    moment_seconds: float
    records: int
    after: str


@dataclass(frozen=True)
class Verdict:
    """What became of the run. All of the first five must be true."""

    finished: bool
    same_lineage: bool
    records_kept: bool
    audited: bool
    within_limit: bool
    orphans: int
    sittings: int
    charged_flops: int
    lost_flops: int

    @property
    def passed(self) -> bool:
        held = (self.finished, self.same_lineage, self.records_kept, self.audited, self.within_limit)
        return all(held) and self.orphans == 0


def main(arguments: Sequence[str]) -> int:
    """Run the trials that are not in ``trials.jsonl`` yet; returns 1 if any ever failed, 3 if the time was up first."""
    parser = argparse.ArgumentParser(prog="selfimprove study faults", description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="kills in all (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=55.0, help="start no trial after this (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and targets (default %(default)s)")
    parser.add_argument("--roots", type=int, default=4, help="root seeds that the runs take in turns")
    parser.add_argument("--parallel", type=int, default=2, choices=(1, 2), help="trials at once (default %(default)s)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of trials.jsonl and summary.json")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * chosen.minutes
    with (
        one_sitting(chosen.results),
        tempfile.TemporaryDirectory(prefix="faults-") as name,
        ThreadPoolExecutor(chosen.parallel) as pool,
    ):
        known = {line["trial"] for line in lines(chosen.results / TRIALS)}
        numbers = [number for number in range(chosen.trials) if number not in known]
        work, lock = Path(name), threading.Lock()
        os.environ["SELFIMPROVE_STATE_DIR"] = str(work / "state")
        SigningKey.load(state_dir())  # before two runs make one each
        roots = sorted({number % chosen.roots for number in numbers})
        alone = dict(zip(roots, pool.map(lambda root: Baseline.of(work, root), roots), strict=True))

        def one(number: int) -> None:
            if time.monotonic() > deadline:
                return
            line = trial(work, chosen.results, number, number % chosen.roots, chosen.seed, alone)
            with lock:
                _append(chosen.results, line)

        list(pool.map(one, numbers))
    return summarize(chosen.results, chosen.trials)


def trial(work: Path, results: Path, number: int, root: int, seed: int, alone: dict[int, Baseline]) -> dict[str, Any]:
    """Kill one run and judge it; the folder of a failed one is kept beside the results.

    Raises:
        RuntimeError: no process could be killed at any of the moments drawn.
    """
    draw, target = random.Random(derive(seed, "faults", number)), TARGETS[number % len(TARGETS)]
    started, folder = time.monotonic(), work / f"trial-{number}"
    for _ in range(MOST_DRAWS):
        shutil.rmtree(folder, ignore_errors=True)
        sitting, moment = Sitting(folder, root), draw.uniform(0.0, alone[root].wall_seconds)
        if sitting.kill(target, moment, draw):
            break
        sitting.wait()
    else:
        raise RuntimeError(f"trial {number}: no {target} could be killed")
    before = whole_lines(folder)
    kill = Kill(target, round(moment, 3), before.count(b"\n"), _last_kind(before))
    orphans, sittings = finish(sitting, folder, root)
    verdict = judge(folder, alone[root], before, orphans, sittings)
    if not verdict.passed:
        shutil.copytree(folder, results / f"failed-{number}", dirs_exist_ok=True)
    shutil.rmtree(folder)
    line = {"trial": number, "root": root, **asdict(kill), **asdict(verdict), "passed": verdict.passed}
    return line | {"seconds": round(time.monotonic() - started, 1), "commit": commit(), **machine()}


def finish(sitting: Sitting, folder: Path, root: int) -> tuple[int, int]:
    """Let a sitting end, and resume until the run is finished; returns (orphans, sittings)."""
    orphans, sittings = sitting.wait(), 1
    while not _is_finished(folder) and sittings < MOST_SITTINGS:
        orphans, sittings = orphans + Sitting(folder, root).wait(), sittings + 1
    return orphans, sittings


def judge(folder: Path, alone: Baseline, before: bytes, orphans: int, sittings: int) -> Verdict:
    """Compare a resumed run with the one left alone."""
    run, anchor = folder / "run", FileAnchor(state_dir())
    try:
        found, entries = status(run), read(run / LEDGER_NAME, anchor)
    except SelfImproveError:
        return Verdict(False, False, False, False, False, orphans, sittings, 0, 0)
    report = audit(run, anchor)
    charges = [entry.body for entry in entries if entry.kind == "charge"]
    return Verdict(
        finished=found.state == "finished",
        same_lineage=found.lineage_sha256 == alone.lineage_sha256,
        records_kept=(run / LEDGER_NAME).read_bytes().startswith(before),
        audited=report.ok and report.anchored,
        within_limit=sum(body["flops"] for body in charges) <= found.limit_flops,
        orphans=orphans,
        sittings=sittings,
        charged_flops=found.charged_flops,
        lost_flops=sum(body["flops"] for body in charges if body["account"] == "lost"),
    )


@dataclass(frozen=True)
class Baseline:
    """The same run, left alone."""

    lineage_sha256: str
    wall_seconds: float

    @classmethod
    def of(cls, work: Path, root: int) -> Baseline:
        """Run it.

        Raises:
            RuntimeError: it did not finish: there is nothing to compare with.
        """
        folder, started = work / f"alone-{root}", time.monotonic()
        orphans = Sitting(folder, root).wait()
        seconds = time.monotonic() - started
        if orphans or not _is_finished(folder):
            raise RuntimeError(f"the run of seed {root}, left alone:\n{(folder / 'output.txt').read_text()}")
        return cls(status(folder / "run").lineage_sha256, seconds)


class Sitting:
    """A run in ``folder``/run, or the resume of it, as a process."""

    def __init__(self, folder: Path, root: int) -> None:
        folder.mkdir(exist_ok=True)
        words = ["run", "debug=micro", "device=cpu", f"seed={root}", "hydra.run.dir=run"]
        if (folder / "run" / LEDGER_NAME).exists():
            words = ["resume", "run"]
        with (folder / "output.txt").open("ab") as output:
            command = [sys.executable, "-m", "selfimprove.app.cli", *words]
            self.process = subprocess.Popen(
                command, cwd=folder, env=own_code(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.main = psutil.Process(self.process.pid)

    def kill(self, target: str, moment: float, draw: random.Random) -> bool:
        """Kill a process of a kind at a moment, or the first one after it; False if the run ended before that."""
        time.sleep(moment)
        while self.process.poll() is None:
            found = [self.main] if target == "main" else self._contained(workers=target == "worker")
            with contextlib.suppress(IndexError, psutil.NoSuchProcess):  # there is none, or no more
                draw.choice(found).kill()  # never another process that was given the same number
                return True
            time.sleep(0.005)
        return False

    def wait(self) -> int:
        """Wait for its end; how many of its processes are alive three seconds later."""
        try:
            self.process.wait(SITTING_SECONDS)
        except subprocess.TimeoutExpired:  # it hangs: the verdict will say that it did not finish
            self.process.kill()
            self.process.wait()
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (alive := len(self._family())) and time.monotonic() < deadline:
            time.sleep(0.02)
        return alive

    def _contained(self, *, workers: bool) -> list[psutil.Process]:
        """Its zygotes, or their workers; what an outer layer puts above a zygote dies with it, and is left alone."""
        family = {process.pid: process for process in self._family() if "bwrap" not in "".join(process.cmdline()[:1])}
        return [process for process in family.values() if (process.ppid() in family) == workers]

    def _family(self) -> list[psutil.Process]:
        """Everything alive that was started for this process: the command line of each names it."""
        mark, found = ["--parent", str(self.main.pid)], []
        for pid in psutil.pids():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                words = process.cmdline()
                named = mark in (words[i : i + 2] for i in range(len(words)))
                if named and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


# -- records -----------------------------------------------------------------------------------------------------------


def summarize(results: Path, trials: int) -> int:
    """Write and print ``summary.json``; returns the exit code."""
    found = lines(results / TRIALS)
    failed = [line["trial"] for line in found if not line["passed"]]
    by_target = {name: [line for line in found if line["target"] == name] for name in sorted(set(TARGETS))}
    summary = {
        "n": len(found),
        "of": trials,
        "passed": len(found) - len(failed),
        "failed": failed,
        "targets": {
            name: {"n": len(mine), "passed": sum(line["passed"] for line in mine)} for name, mine in by_target.items()
        },
        "same_lineage": sum(line["same_lineage"] for line in found),
        "orphans": sum(line["orphans"] for line in found),
        "moments": {kind: sum(line["after"] == kind for line in found) for kind in sorted({x["after"] for x in found})},
        "most_lost_flops": max((line["lost_flops"] for line in found), default=0),
        "median_seconds": median(line["seconds"] for line in found) if found else None,
        "commits": sorted({line["commit"] for line in found}),
        "machine": machine(),
    }
    (results / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(f"{summary['passed']} of {len(found)} trials passed; {max(trials - len(found), 0)} to go", flush=True)
    return 1 if failed else TIME_UP if len(found) < trials else 0


def _append(results: Path, line: dict[str, Any]) -> None:
    append(results / TRIALS, line)
    state = "passed" if line["passed"] else "FAILED"
    where = f"{line['target']} killed at {line['moment_seconds']:.1f} s, after {line['after'] or 'nothing'}"
    print(f"trial {line['trial']}: {state}; {where}; {line['sittings']} sittings, {line['seconds']} s", flush=True)


def whole_lines(folder: Path) -> bytes:
    """The ledger as the kill left it, without a torn last line."""
    path = folder / "run" / LEDGER_NAME
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


def _last_kind(lines: bytes) -> str:
    return str(json.loads(lines.splitlines()[-1])["kind"]) if lines else ""


def _is_finished(folder: Path) -> bool:
    return _last_kind(whole_lines(folder)) == "finish"
