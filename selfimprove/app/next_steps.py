"""``selfimprove`` alone: what a person can sensibly do now, given the runs that are here."""

from __future__ import annotations

from pathlib import Path

from selfimprove.app import folder
from selfimprove.app.progress import next_commands
from selfimprove.app.units import count
from selfimprove.errors import RunError

LOOKED_AT = 5  # newest runs, besides the latest, that are asked whether they wait for somebody
WAITING = ("paused", "halted")
WHY = {
    "approve": "let it go on, once you have looked at what tripped the wire",
    "audit": "prove that nothing of it was changed",
    "halt": "stop all its training now",
    "inspect": "what was read inside the model of each generation",
    "report": "its report, written again",
    "resume": "go on where it stopped; nothing that was finished is lost",
    "status": "where it stands",
}

_FIRST = """\
No run here yet. Start with one of these:
  selfimprove demo                   a tour in two minutes: run, kill switch, resume, audit, report
  selfimprove run experiment=tiny    the whole loop in about a minute
  selfimprove run                    the default experiment, a few minutes on a laptop
  selfimprove doctor                 what this machine can enforce

All commands: selfimprove --help"""


def next_steps() -> int:
    """Say it; what cannot be read is named, and never an error."""
    try:
        latest = folder.latest_run()  # which may be elsewhere
    except RunError:
        print(_FIRST)
        return 0
    runs = folder.all_runs()
    found = folder.summary(latest)
    state, tripped = (found.state, found.tripped) if found else ("unreadable", False)
    reason = f": {found.reason}" if found and found.reason else ""
    print(f"{count(len(runs), 'run') if runs else 'No run'} here. The latest, {latest}, is {state}{reason}.")
    suggest([*next_commands(state, latest, tripped=tripped), folder.command("report", latest)])
    if waiting := [line for run in _others(runs, latest) if (line := _waits(run))]:
        print("\nAlso waiting for you:")
        print("\n".join(waiting))
    print("\nOr start another one: selfimprove run. All commands: selfimprove --help")
    return 0


def suggest(commands: list[str]) -> None:
    """Print commands with what each is good for."""
    width = max(map(len, commands))
    for command in commands:
        print(f"  {command:<{width}}  {WHY.get(command.split()[1], '')}".rstrip())


def _others(runs: list[Path], latest: Path) -> list[Path]:
    return [run for run in runs if run.resolve() != latest.resolve()][:LOOKED_AT]


def _waits(run_dir: Path) -> str:
    """A line about a run that a person stopped, or that stopped for a person; empty for others."""
    found = folder.summary(run_dir)
    if found is None or found.state not in WAITING:
        return ""
    return f"  {next_commands(found.state, run_dir, tripped=found.tripped)[-1]}  ({found.state}: {found.reason})"
