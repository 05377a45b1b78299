"""One sitting with a run: watch it, let it be stopped, write its report, say how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich import get_console

from selfimprove.app import folder
from selfimprove.app.json_lines import JsonProgress
from selfimprove.app.observing import Observers
from selfimprove.app.progress import LiveProgress, PlainProgress, console_handler, ruling, summary_text
from selfimprove.app.settings import Settings
from selfimprove.app.signals import EXIT_HALTED, StopSignals
from selfimprove.app.tracking import CLOSE_SECONDS, Tracker, TrackingConfig, start_tracking
from selfimprove.app.view import RunView
from selfimprove.errors import DiskError, RunError

log = logging.getLogger(__name__)

HASTY_SECONDS = 0.3  # for tracking to finish, when a person wants to stop at once

EXIT_OK, EXIT_NEGATIVE, EXIT_USER, EXIT_TRIPPED, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

# A limit that ends a run is the containment policy at work, not a failure.
EXIT_OF_STATE = {
    "finished": EXIT_OK,
    "limit": EXIT_OK,
    "paused": EXIT_INTERRUPTED,
    "halted": EXIT_HALTED,
    "failed": EXIT_NEGATIVE,
}


def hold(settings: Settings, run_dir: Path, *, resume: bool = False, clear_halt: bool = False) -> int:
    """Run or resume in ``run_dir`` until it ends, pauses or is halted; returns the exit code.

    Raises:
        RunError: the folder is taken (a new run), or cannot be written.
        KeyboardInterrupt: a person pressed Ctrl-C twice; the workers have been killed on its way here.
    """
    from selfimprove.loop.run import run

    if not resume:
        check_new(run_dir)
    view, tracking = RunView(), _Tracking(settings.tracking, run_dir)
    note, patience = "", CLOSE_SECONDS

    def opened() -> None:  # from here on it is this process's run
        folder.point_latest(run_dir)
        past = _past(run_dir) if resume else []
        fold = Observers([_Fold(view)])
        for kind, body in past:
            fold.on_event(kind, body)
        tracking.start(past, signals.requested)

    with _disk_errors(run_dir), StopSignals(run_dir, announce=not get_console().is_terminal) as signals:
        try:
            with _progress(view, signals, settings.progress) as progress:
                summary = run(
                    settings.run,
                    run_dir,
                    Observers([_Fold(view), progress, tracking]),
                    resume=resume,
                    clear_halt=clear_halt,
                    should_stop=signals.requested,
                    on_open=opened,
                )
            tracking.on_event("finish", {"state": summary.state, "reason": summary.reason})
        except KeyboardInterrupt:
            patience = HASTY_SECONDS
            raise
        finally:
            note = tracking.close(patience)
        report = write_report(run_dir)
        _write_candidates(run_dir, view)
    notes = (*ruling(view), *((f"tracking    {note}",) if note else ()))
    with suppress(BrokenPipeError):  # nobody reads on: how it ended is in the exit code, too
        if isinstance(progress, JsonProgress):
            progress.end(summary, run_dir, report, notes)
        else:
            print(summary_text(summary, run_dir, report, notes), flush=True)
    return EXIT_TRIPPED if summary.tripped else EXIT_OF_STATE[summary.state]


def check_new(run_dir: Path) -> None:
    """A run's folder is used once.

    Raises:
        RunError: a run is there.
    """
    if folder.is_run(run_dir):
        remedy = f"go on with it: {_again(run_dir)}"
        raise RunError("start a run in", str(run_dir), "a folder without a run", remedy)


def write_report(run_dir: Path) -> Path | None:
    """Write the report; a run whose report fails is still a good run."""
    from selfimprove.app.report import write_report as write

    try:
        return write(run_dir)
    except Exception as error:  # whatever it is, it must not hide how the run ended
        log.warning("the report could not be written (%s); try again: %s", error, folder.command("report", run_dir))
        return None


def _write_candidates(run_dir: Path, view: RunView) -> None:
    """Write what optuna-dashboard opens; like the report, it is a view, and no run fails for it."""
    from selfimprove.app.tried import write_candidates

    try:
        write_candidates(run_dir, view)
    except Exception as error:
        again = folder.command("candidates", run_dir)
        log.warning("the candidates could not be written (%s); try again: %s", error, again)


def plain_logging() -> None:
    """The console part of the logging that Hydra sets up for ``run``, for the commands without Hydra."""
    logging.basicConfig(level=logging.INFO, handlers=[console_handler()], force=True)
    for name in ("httpx", "urllib3", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Fold:
    """Brings the view up to date before the others look at it."""

    def __init__(self, view: RunView) -> None:
        self._view = view

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        self._view.apply(kind, body)


class _Tracking:
    """The tracker of a sitting: nobody before the run is this process's to write, or where it is switched off."""

    def __init__(self, config: TrackingConfig, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._tracker: Tracker | None = None

    def start(self, past: Sequence[tuple[str, Mapping[str, Any]]], should_stop: Callable[[], bool]) -> None:
        """Start it, and tell it what happened before this sitting."""
        self._tracker = start_tracking(self._config, self._run_dir)
        if self._tracker:
            self._tracker.catch_up(past, should_stop=should_stop)

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        if self._tracker:
            self._tracker.on_event(kind, body)

    def close(self, seconds: float) -> str:
        """Let it finish for at most so long; returns what a person is told of it."""
        if not self._tracker:
            return ""
        if self._config.mode == "online":
            log.info("sending the rest to W&B, for at most %d s", seconds)
        tracked = self._tracker.close(seconds)
        return f"took {tracked.seconds:.1f} s of the run; {tracked.note}"


def _progress(view: RunView, signals: StopSignals, how: str) -> LiveProgress | PlainProgress | JsonProgress:
    if how == "json":
        return JsonProgress(view)
    console = get_console()
    return LiveProgress(console, view, signals.requested) if console.is_terminal else PlainProgress(view)


def _past(run_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """What happened before a run is resumed, for those who keep it; progress is of this sitting alone."""
    return [(kind, body) for kind, body in folder.records(run_dir) if kind != "finish"]


@contextmanager
def _disk_errors(run_dir: Path) -> Iterator[None]:
    """Say of a disk that refuses how the run goes on: nothing that is in the ledger is lost."""
    try:
        yield
    except DiskError as error:
        remedy = f"{error.remedy}, then: {_again(run_dir)}"
        raise RunError(error.operation, error.value, error.limit, remedy) from error
    except OSError as error:
        raise folder.explain(error, f"write the run in {run_dir}", str(run_dir), _again(run_dir)) from error


def _again(run_dir: Path) -> str:
    return folder.command("resume", run_dir) if folder.is_run(run_dir) else "start the run again"
