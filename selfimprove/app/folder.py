"""Run folders: where they are, which one is meant, and how one is opened for reading."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfimprove.app.schema import listing, suggest
from selfimprove.archive.records import HALT_NAME
from selfimprove.archive.records import LEDGER_NAME as LEDGER
from selfimprove.archive.records import records as archived
from selfimprove.errors import ConfigError, RunError, UserError

if TYPE_CHECKING:
    from selfimprove.loop.run import RunSummary

RUNS = Path("runs")  # below the current folder; hydra.run.dir can place a single run elsewhere
LATEST = "latest"
REPORT = "report.html"

_DEPTH = 3  # runs/<experiment>/<time>[/<job of a sweep>]


def find_run(given: str | None, runs: Path = RUNS) -> Path:
    """The run folder a person means: a path, a path below ``runs``, or (nothing given) the latest run.

    Raises:
        RunError: there is no such run; the message lists or suggests what exists.
    """
    if given is None:
        return latest_run(runs)
    for folder in (Path(given), runs / given):
        if is_run(folder):
            return folder.resolve() if folder.name == LATEST else folder
    known = [str(run) for run in all_runs(runs)]
    remedy = suggest(given, known) or (f"known runs: {listing(known, 5)}" if known else "start one: selfimprove run")
    if Path(given).is_dir():
        inside = [str(run) for run in all_runs(Path(given))]
        remedy = f"runs in it: {listing(inside, 5)}" if inside else remedy
        raise RunError("open run folder", given, f"a folder that holds {LEDGER}", remedy)
    raise RunError("open run folder", given, "an existing run folder", remedy)


def latest_run(runs: Path = RUNS) -> Path:
    """The run that ``runs/latest`` names, or the newest one by the time of its ledger.

    Raises:
        RunError: there is no run yet.
    """
    link = runs / LATEST
    if is_run(link):
        return _shorten(link.resolve())
    found = all_runs(runs)
    if not found:
        raise RunError("look for the latest run in", str(runs), "at least one run", "start one: selfimprove run")
    return found[0]


def all_runs(runs: Path = RUNS) -> list[Path]:
    """Every run folder below ``runs``, newest first."""
    found = []
    for depth in range(1, _DEPTH + 1):
        for ledger in runs.glob("/".join(["*"] * depth + [LEDGER])):
            if LATEST not in ledger.relative_to(runs).parts:  # a link to one of the others
                with contextlib.suppress(OSError):
                    found.append((ledger.stat().st_mtime_ns, ledger.parent))
    return [folder for _, folder in sorted(found, reverse=True)]


def short_names(found: Iterable[Path]) -> dict[str, Path]:
    """Different run folders by the shortest end of their path that tells them apart."""
    whole = list(dict.fromkeys(folder.resolve() for folder in found))
    depth = 1
    while len({folder.parts[-depth:] for folder in whole}) < len(whole):
        depth += 1
    return {"/".join(folder.parts[-depth:]): folder for folder in whole}


def command(name: str, run_dir: str | Path, *words: str) -> str:
    """What to type for a run, as a shell takes it.

    >>> command("resume", "runs/my run", "--clear-halt")
    "selfimprove resume 'runs/my run' --clear-halt"
    """
    return " ".join(("selfimprove", name, shlex.quote(str(run_dir)), *words))


def is_run(folder: Path) -> bool:
    """Whether a folder holds a ledger."""
    try:
        return (folder / LEDGER).is_file()
    except OSError:
        return False


def summary(run_dir: Path) -> RunSummary | None:
    """Where a run stands, or None when it cannot be read."""
    from selfimprove.loop.run import status

    try:
        return status(run_dir)
    except Exception:
        return None


def write_halt(run_dir: Path, reason: str) -> None:
    """Throw the kill switch of a run: every worker dies within a poll of its supervisor; raises OSError.

    That the file is there is enough: on a full disk it stays empty, and the reason is lost.
    """
    switch = run_dir / HALT_NAME
    fresh = switch.with_name(f".{HALT_NAME}-{os.getpid()}")
    with suppress(OSError):
        fresh.write_text(reason + "\n", encoding="utf-8")
    if fresh.exists():
        os.replace(fresh, switch)
    else:
        switch.touch()


def point_latest(run_dir: Path, runs: Path = RUNS) -> None:
    """Make ``runs/latest`` name this run, in one step: a reader sees the old link or the new one.

    A file or folder of that name which is no link is left alone.
    """
    link, target = runs / LATEST, run_dir.resolve()
    if link.exists() and not link.is_symlink():
        return
    runs.mkdir(parents=True, exist_ok=True)
    inside = runs.resolve() in target.parents
    fresh = runs / f".{LATEST}-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, runs.resolve()) if inside else target, target_is_directory=True)
    os.replace(fresh, link)


def records(run_dir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(kind, body)`` of every record, for showing; this checks nothing, ``audit`` does.

    Raises:
        RunError: the ledger cannot be read, or holds a complete line that is not a record.
    """
    try:
        yield from archived(run_dir)
    except OSError as error:
        raise explain(error, f"read {run_dir / LEDGER}") from error


def explain(error: OSError, operation: str, place: str = "", then: str = "") -> UserError:
    """A system error as the message a person can act on.

    Args:
        error: what the system said.
        operation: what was being done.
        place: where, if the error itself does not name a file.
        then: what to do when the remedy has helped.
    """
    value = error.filename if isinstance(error.filename, str) else place or os.strerror(error.errno or 0)
    limits = {
        errno.ENOSPC: ("free disk space", "free some space, or choose another place with hydra.run.dir="),
        errno.EDQUOT: ("free disk quota", "free some space, or choose another place with hydra.run.dir="),
        errno.EFBIG: ("files of this size", "a limit on the size of files is in force: see ulimit -f"),
        errno.ENAMETOOLONG: ("a shorter name", "choose another place with hydra.run.dir="),
        errno.EACCES: ("a place that you may write to", "change its permissions, or run in another folder"),
        errno.EPERM: ("a place that you may write to", "change its permissions, or run in another folder"),
        errno.EROFS: ("a writable file system", "run in another folder, or set hydra.run.dir="),
        errno.ENOTDIR: ("a folder", "a file is in the way: move it, or set hydra.run.dir="),
        errno.EEXIST: ("a folder", "a file is in the way: move it, or set hydra.run.dir="),
        errno.ENOENT: ("an existing path", "check the spelling"),
    }
    limit, remedy = limits.get(error.errno or 0, ("", "see the system error above"))
    reason = f"{operation} ({os.strerror(error.errno)})" if error.errno else operation
    kind = RunError if error.errno else ConfigError
    return kind(reason, value, limit, f"{remedy}, then: {then}" if then else remedy)


def _shorten(path: Path) -> Path:
    """Relative to the current folder where that is shorter: it is what a person would type."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path
