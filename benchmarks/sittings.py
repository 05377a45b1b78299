"""What studies in several sittings share: lines on the disk, one for what is finished, and runs paired by root seed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import psutil

from benchmarks.setting import commit, machine
from selfimprove.archive.files import lock
from selfimprove.containment.keys import SigningKey, state_dir
from selfimprove.errors import RunError

TIME_UP = 3  # exit code of a sitting that ran out of minutes

Row = dict[str, Any]
_Arm = TypeVar("_Arm")
_Trial = TypeVar("_Trial")


def lines(path: Path) -> list[Row]:
    """What a JSON-lines file holds, if there is one; what was cut off while it was written is no line."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a JSON-lines file; a line before it that was cut off stays alone."""
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def one_sitting(*folders: Path) -> Iterator[None]:
    """Be the only sitting at some folders: two would measure the same and each leave its line.

    What is still missing has to be looked up inside: the other sitting may have ended the moment before.

    Args:
        folders: of results and of runs; they exist.

    Raises:
        RunError: another sitting is at one of them.
    """
    remedy = "another sitting is at it: wait until it ends, or give this one other folders (--results, --runs)"
    with ExitStack() as held:
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, descriptor)
            lock(descriptor, folder, "start a sitting", remedy)
        yield


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Rows below a head, in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def measure_all(
    path: Path,
    measure: Callable[[_Trial], Row],
    missing: Callable[[], Sequence[_Trial]],
    chosen: argparse.Namespace,
    in_a_word: Callable[[Row], str] | None = None,
) -> None:
    """Measure trials in processes of their own, several at once, each ending in a line.

    Args:
        path: of the lines.
        measure: the line of a trial.
        missing: the trials that have no line yet, in order.
        chosen: ``processes``, at once; ``minutes``, after which none is started.
        in_a_word: what is printed of a line.
    """
    deadline = time.monotonic() + 60 * chosen.minutes
    with one_sitting(path.parent), ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        trials = missing()
        for line in as_they_end(pool.submit, measure, trials, chosen.processes, lambda: time.monotonic() < deadline):
            append(path, line)
            if in_a_word is not None:
                print(in_a_word(line), flush=True)


def as_they_end(
    submit: Callable[[Callable[[_Trial], Row], _Trial], Future[Row]],
    measure: Callable[[_Trial], Row],
    trials: Sequence[_Trial],
    at_once: int,
    may_start: Callable[[], bool],
) -> Iterator[Row]:
    """Lines of the trials as they end; none is started once ``may_start`` says no, those that run are waited for."""
    waiting, running = list(reversed(trials)), set[Future[Row]]()
    while running or (waiting and may_start()):
        while waiting and len(running) < at_once and may_start():
            running.add(submit(measure, waiting.pop()))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def paired_arguments(parser: argparse.ArgumentParser, results: Path, runs: Path, seeds: int) -> None:
    """The options of a study of runs that are paired by root seed: what ``run_paired`` reads, and overrides."""
    every = list(range(seeds))
    parser.add_argument("--seeds", type=int, nargs="+", default=every, help=f"root seeds (default 0 to {seeds - 1})")
    parser.add_argument("--processes", type=int, default=2, help="runs at once, one core each (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=55.0, help="start no run after this (default %(default)s)")
    parser.add_argument("--results", type=Path, default=results, help="folder of the lines, the summary and the report")
    parser.add_argument("--runs", type=Path, default=runs, help="folder of the runs")
    parser.add_argument("--commit", help="of the code, where the checkout has no git to ask")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further overrides of every run")


def run_paired(
    path: Path,
    missing: Callable[[], Sequence[tuple[_Arm, int]]],
    chosen: argparse.Namespace,
    run_one: Callable[[Path, _Arm, int, bool], Row | None],
    in_a_word: Callable[[Row], str],
) -> bool:
    """Run an arm for each root seed that has no line yet, several at once; a line is what each leaves, and no folder.

    A line says the overrides and the commit of the code, both where a run was begun on one and ended on another.

    Args:
        path: of the lines.
        missing: arms with root seeds that have no line yet, in order.
        chosen: ``runs``, their folder; ``processes``, at once; ``minutes``, after which none is started; ``commit``;
            ``overrides``.
        run_one: from its folder, an arm, a root seed and whether there is time to start it; None where it did not end.
        in_a_word: what is printed of one that did.

    Returns:
        Whether all ended.

    Raises:
        RunError: another sitting is at these folders, or what is there was run with other overrides.
    """
    deadline, one_at_a_time, runs = time.monotonic() + 60 * chosen.minutes, threading.Lock(), chosen.runs.resolve()
    os.environ["SELFIMPROVE_STATE_DIR"] = str(runs / "state")
    SigningKey.load(state_dir())  # before two runs make one each

    def this() -> Begun:
        return Begun(chosen.commit or commit(), list(chosen.overrides))

    def one(cell: tuple[_Arm, int]) -> bool:
        arm, seed = cell
        folder, start = _folder(runs, arm, seed), time.monotonic() <= deadline
        begun = Begun.at(folder, this(), start=start)
        row = run_one(folder, arm, seed, start)
        words = in_a_word(row) if row else f"not finished; run the study again to go on, or see {folder}.log"
        with one_at_a_time:
            if row is not None:
                append(path, row | asdict(begun.until(this())) | {"machine": machine()})
            print(f"{arm}, seed {seed}: {words}", flush=True)
        if row is not None and folder.exists():
            shutil.rmtree(folder)  # not before its line is on the disk
            note_of(folder).unlink(missing_ok=True)
        return row is not None

    runs.mkdir(parents=True, exist_ok=True)
    with one_sitting(path.parent, runs):
        refuse_other_overrides(path, [Begun(row["commit"], row.get("overrides", [])) for row in lines(path)], this())
        cells = missing()
        for folder in (_folder(runs, *cell) for cell in cells):
            refuse_other_overrides(folder, filter(None, [Begun.of(folder)]), this())
        with _ending_together(), ThreadPoolExecutor(chosen.processes) as pool:
            return all(list(pool.map(one, cells)))


@dataclass(frozen=True)
class Begun:
    """What a run was begun with: noted beside its folder, for the sitting that goes on with it, and in its line."""

    commit: str
    overrides: list[str]

    @classmethod
    def of(cls, folder: Path) -> Begun | None:
        """What is noted of a run; None where there is no run to go on with."""
        note = note_of(folder)
        return cls(**json.loads(note.read_text(encoding="utf-8"))) if folder.exists() and note.exists() else None

    @classmethod
    def at(cls, folder: Path, this: Begun, *, start: bool) -> Begun:
        """What the run of a folder was begun with; ``this``, where none is there yet. Noted, if there is time for it.

        Raises:
            RunError: it was begun with other overrides.
        """
        begun = cls.of(folder) or this
        refuse_other_overrides(folder, [begun], this)
        if start:
            note_of(folder).write_text(json.dumps(asdict(begun)), encoding="utf-8")
        return begun

    def until(self, end: Begun) -> Begun:
        """The same, with both commits where the run ended on another."""
        return self if self.commit == end.commit else replace(self, commit=f"{self.commit}..{end.commit}")


def refuse_other_overrides(where: Path, known: Iterable[Begun], this: Begun) -> None:
    """Lines of one study were run alike.

    Raises:
        RunError: what is there was run with other overrides.
    """
    for one in known:
        if one.overrides != this.overrides:
            remedy = "give the same overrides, or other folders (--results, --runs)"
            raise RunError(f"add to {where}", this.overrides, f"what was given before, {one.overrides}", remedy)


def _folder(runs: Path, arm: object, seed: int) -> Path:
    return runs / f"{arm}-seed{seed}"


def note_of(folder: Path) -> Path:
    return Path(f"{folder}.begun")


@contextmanager
def _ending_together() -> Iterator[None]:
    """SIGTERM, which unlike Ctrl-C reaches this process alone, ends the runs as well: each saves itself."""

    def end(number: int, frame: object) -> None:
        for run in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                run.terminate()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
