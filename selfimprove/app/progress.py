"""Live progress of a run: bars on a terminal, plain log lines everywhere else, one summary at the end."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from selfimprove.app.folder import command
from selfimprove.app.signals import STOPPING
from selfimprove.app.units import count, duration, flops
from selfimprove.app.view import WORDS_OF_FAILURE, RunView, succession

if TYPE_CHECKING:
    from rich.console import RenderableType

log = logging.getLogger(__name__)

PLAIN_SECONDS = 15.0  # at most one progress line in this many seconds when the output is no terminal
LEAST_DONE = 0.2  # of a generation: less of it, with the start of the workers in it, says nothing about speed


class Summary(Protocol):
    """What a finished, stopped or stored run says about itself."""

    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def candidates(self) -> int: ...
    @property
    def charged_flops(self) -> int: ...
    @property
    def limit_flops(self) -> int: ...
    @property
    def best_skill(self) -> float | None: ...
    @property
    def lineage_sha256(self) -> str: ...
    @property
    def tripped(self) -> bool: ...


def console_handler(level: int | str = logging.NOTSET) -> logging.Handler:
    """The console handler of Hydra's logging config: rich on a terminal, plain and never wrapped elsewhere."""
    from rich import get_console

    console = get_console()
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = LogLines(console.file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    handler.setLevel(level)
    return handler


class LogLines(logging.StreamHandler[IO[str]]):
    """The log where no terminal is: a reader who has seen enough, as in ``| head``, is no error."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line where nobody reads on; the library's own answer is a traceback on standard error."""
        if not isinstance(sys.exception(), BrokenPipeError):
            super().handleError(record)


class LogFile(logging.FileHandler):
    """The copy of the log in the run folder: where it cannot be written, the run itself says so, and once."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line; the library's own answer is a traceback on standard error."""


class LiveProgress:
    """Bars with ETA, best so far, budget left and the last decision; for a terminal."""

    def __init__(self, console: Console, view: RunView, stopping: Callable[[], bool] = lambda: False) -> None:
        self._view = view
        self._stopping = stopping
        columns = (TextColumn("{task.description:<12}"), BarColumn(bar_width=32), TextColumn("{task.fields[count]:<9}"))
        self._bars = Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console)
        self._overall: TaskID | None = None
        self._inner: TaskID | None = None
        self._label = "starting"
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in a record; the view is already up to date."""
        _warn(kind, body)
        if kind == "progress":
            self._label = str(body.get("label", ""))
            self._update(int(body["done"]), int(body["total"]), float(body["share"]))
        elif kind == "generation":
            self._update(0, 0, 0.0)

    def _update(self, done: int, total: int, share: float) -> None:
        view = self._view
        planned = max(view.planned, view.generation, 1)
        finished = min(view.generation + share, planned)
        count = f"{view.generation}/{planned}"
        if self._overall is None or self._inner is None:
            # what a resumed run had done before is no speed of this one: it is the starting point
            self._overall = self._bars.add_task("generations", total=planned, completed=int(finished), count=count)
            self._inner = self._bars.add_task(self._label, total=total or None, completed=done, count="")
        self._bars.update(self._overall, total=planned, completed=finished, count=count)
        self._bars.update(
            self._inner,
            description=self._label[:12],
            total=total or None,
            completed=done,
            count=f"{done}/{total}" if total else "",
        )

    def _render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(self._bars if self._overall is not None else Text("starting the workers ..."))
        grid.add_row(Text(status_line(self._view), style="bold"))
        if self._view.last_decision:
            decision = f"last decision: {self._view.last_decision}"
            grid.add_row(Text(decision, style="dim", overflow="ellipsis", no_wrap=True))
        if self._stopping():
            grid.add_row(Text(STOPPING, style="bold yellow"))
        return grid


class PlainProgress:
    """The same as lines of the log: each decision, hand-over and generation, and progress now and then."""

    def __init__(self, view: RunView, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._clock = clock
        self._started: float | None = None
        self._done_before = 0
        self._last = -PLAIN_SECONDS

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def on_event(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in a record; the view is already up to date."""
        view, now = self._view, self._clock()
        _warn(kind, body)
        if self._started is None:
            self._started, self._done_before = now, view.generation
        if kind in ("decision", "handover"):
            log.info("generation %s: %s", body["generation"], view.last_decision)
        elif kind == "generation":
            left = self._seconds_left(now, view.generation)
            log.info("generation %d/%d done; %s%s", view.generation, view.planned, status_line(view), left)
            self._last = now
        elif kind == "progress" and now - self._last >= PLAIN_SECONDS:
            done, total = int(body["done"]), int(body["total"])
            place = f"generation {body['generation']}, {body.get('label') or 'step'} {done}/{total}"
            left = self._seconds_left(now, view.generation + float(body["share"]))
            log.info("%s; %s%s", place, status_line(view), left)
            self._last = now

    def _seconds_left(self, now: float, done: float) -> str:
        assert self._started is not None
        gained = done - self._done_before
        if gained < LEAST_DONE or done >= self._view.planned:
            return ""
        return f"; about {duration((now - self._started) / gained * (self._view.planned - done))} left"


def _warn(kind: str, body: Mapping[str, Any]) -> None:
    """What a person should see at once, however progress is shown."""
    if kind == "tripwire":
        for trip in body["trips"]:
            log.warning("tripwire after generation %s: %s: %s", body["generation"], trip["name"], trip["reason"])
    elif kind in WORDS_OF_FAILURE and body.get("reason"):
        log.warning("generation %s: %s: %s", body["generation"], WORDS_OF_FAILURE[kind], body["reason"])
    elif kind == "unattended":
        log.warning("%s: %s; it is run again", body["key"], body["reason"])
    elif kind == "node" and body["state"] == "asked":
        log.info("waiting for the cluster: %d nodes for %s", body["count"], body["label"])
    elif kind == "node" and body["state"] == "lost":
        log.warning("node %s was lost: %s", body["node"], body["reason"])


def status_line(view: RunView) -> str:
    """One line of totals.

    >>> status_line(RunView())
    '0 candidates, 0 denied, 0 failed; no score yet'
    """
    line = f"{len(view.candidates)} candidates, {view.denied} denied, {view.failed} failed"
    best = best_so_far(view)
    line += f"; best skill {best:.3f}" if best is not None else "; no score yet"
    return line + (f"; budget left {view.budget_left:.0%}" if view.budget_left is not None else "")


def best_so_far(view: RunView) -> float | None:
    """The champion's skill once a generation is done; before that, the best search score."""
    scores = [row.skill for row in view.candidates.values() if row.skill is not None]
    return view.best_skill if view.best_skill is not None else max(scores, default=None)


def summary_text(summary: Summary, run_dir: Path, report: Path | None, notes: tuple[str, ...] = ()) -> str:
    """The closing block: what happened, where the report is, what to type next."""
    skill = "none yet"
    if summary.best_skill is not None:
        skill = f"{summary.best_skill:.4f}, the champion's (0 = uniform guess, 1 = perfect)"
    used = summary.charged_flops / summary.limit_flops if summary.limit_flops else 0.0
    budget = f"{flops(summary.charged_flops)} of {flops(summary.limit_flops)} charged ({used:.0%})"
    rows = [
        ("state", summary.state + (f": {summary.reason}" if summary.reason else "")),
        ("done", f"{count(summary.generation, 'generation')}, {count(summary.candidates, 'candidate')}"),
        ("best skill", skill),
        ("budget", budget),
        ("lineage", summary.lineage_sha256[:16] or "-"),
        ("run folder", str(run_dir)),
        ("report", str(report) if report else f"not written; try: {command('report', run_dir)}"),
    ]
    lines = ["", *(f"  {name:<11} {value}" for name, value in rows), *(f"  {note}" for note in notes), ""]
    following = next_commands(summary.state, run_dir, tripped=summary.tripped)
    return "\n".join(lines + [f"Next: {one}" for one in following])


def ruling(view: RunView) -> tuple[str, ...]:
    """The closing block's line on who rules as controller; none where no promotion has raised the question."""
    line = succession(view.stands)
    return (f"{'controller':<11} {line}",) if line else ()


def next_commands(state: str, run_dir: Path, *, tripped: bool = False) -> list[str]:
    """Commands that make sense now, as a shell takes them; ``tripped``: a tripwire waits for an approval."""
    if tripped:
        return [command("approve", run_dir, '--reason "..."'), command("resume", run_dir)]
    if state == "paused":
        return [command("resume", run_dir)]
    if state == "halted":
        return [command("status", run_dir), command("resume", run_dir, "--clear-halt")]
    if state == "running":
        return [command("halt", run_dir)]
    return [command("inspect", run_dir), command("audit", run_dir)]
