"""``selfimprove sync``: what a run kept offline is sent to W&B, by W&B's own command, in a process that can be ended.

W&B's exit code says little: a refused key ends with 0. Sent is what W&B has marked as sent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from selfimprove.app import folder
from selfimprove.app.units import count
from selfimprove.errors import RunError

SECONDS = 600.0  # for one upload, unless --seconds says otherwise
REACH_SECONDS = 10.0  # for the server to answer anything at all
LOG = "sync.log"
MARK = ".synced"  # what W&B adds to the name of a log that has arrived

SUPERSEDED = "superseded"  # folder of logs that were drawn again
PATIENCE = 60.0  # seconds that a record may wait for W&B while a run is drawn again

_CAUSES = (
    ("failed to read", "its log is damaged, the ledger has everything: selfimprove sync {run} --rebuild"),
    ("not logged in", "the key was refused: wandb login"),
    ("API key", "log in first: wandb login, or set WANDB_API_KEY"),
    ("permission", "the key may not write there: check tracking.entity and tracking.project"),
    ("not found", "check tracking.entity and tracking.project"),
)


def sync(arguments: argparse.Namespace) -> int:
    """Send what is not sent yet; 0 once everything has arrived.

    Raises:
        RunError: the run was not tracked, the server cannot be reached or refuses, or not all arrived in time.
    """
    run_dir = folder.find_run(arguments.run)
    if not arguments.rebuild and not logs(run_dir):
        again = folder.command("sync", run_dir, "--rebuild")
        raise RunError("send to W&B", str(run_dir), "a run that W&B has followed", again)
    left = [] if arguments.rebuild else unsent(run_dir)
    if not left and not arguments.rebuild:
        print(f"Everything of {run_dir} has arrived at W&B before.")
        return 0
    _reach(server())
    left = left or [rebuild(run_dir)]
    told = _upload(run_dir, left, arguments.seconds)
    if still := [path for path in left if path in unsent(run_dir)]:
        raise _failure(run_dir, still, told)
    address = re.search(r"https?://\S+/runs/\S+", told)
    print(f"Sent to W&B: {count(len(left), 'log')} of {run_dir}{f', {address[0]}' if address else ''}")
    return 0


def logs(run_dir: Path) -> list[Path]:
    """The folders in which W&B has kept sittings of a run, in order of time."""
    found = [*run_dir.glob("wandb/offline-run-*"), *run_dir.glob("wandb/run-*")]
    return sorted((path for path in found if any(path.glob("*.wandb"))), key=lambda path: path.name.split("run-")[-1])


def unsent(run_dir: Path) -> list[Path]:
    """Those that have not wholly arrived. What was sent while the run went on has no mark, and is sent again."""
    return [path for path in logs(run_dir) if not any(path.glob(f"*.wandb{MARK}"))]


def server() -> str:
    """The address that W&B's own settings name.

    Raises:
        RunError: they cannot be read.
    """
    import wandb
    from pydantic import ValidationError

    try:
        return str(wandb.setup().settings.base_url)
    except ValidationError as error:
        flaw = error.errors()[0]
        name = "_".join(map(str, flaw["loc"]))
        remedy = f"correct WANDB_{name.upper()}, or {name} in W&B's settings file"
        raise RunError(f"read W&B's setting {name}", str(flaw["input"]), flaw["msg"], remedy) from error


def rebuild(run_dir: Path) -> Path:
    """Draw a run again, offline, from its ledger alone, and set older logs aside; returns the new log's folder.

    Raises:
        RunError: the ledger cannot be read, or W&B kept no log.
    """
    from selfimprove.app.commands import recorded_tracking
    from selfimprove.app.tracking import Tracker, TrackingConfig

    told = list(folder.records(run_dir))
    aside = run_dir / "wandb" / SUPERSEDED
    for path in logs(run_dir):
        aside.mkdir(parents=True, exist_ok=True)
        path.rename(aside / path.name)
    known = recorded_tracking(run_dir)
    place = {key: str(known[key]) for key in ("project", "entity") if known.get(key)}
    tracker = Tracker(TrackingConfig(kind="wandb", mode="offline", **place), run_dir)  # type: ignore[arg-type]
    for kind, body in told:
        tracker.on_event(kind, body, patience=PATIENCE)
    note = tracker.close(SECONDS).note
    if not (made := logs(run_dir)):
        raise RunError("draw for W&B", str(run_dir), "a log of W&B's", note or "its ledger holds no generation yet")
    return made[-1]


def _reach(address: str) -> None:
    """Find out at once that nobody answers; W&B's command would try for many minutes."""
    try:
        urllib.request.urlopen(address, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # certificates are W&B's business
        remedy = "check the network and WANDB_BASE_URL; nothing is lost, try again later"
        raise RunError(f"reach W&B ({reason})", address, "a server that answers", remedy) from error


def _upload(run_dir: Path, paths: Sequence[Path], seconds: float) -> str:
    """Run W&B's command for at most so long; returns what it said, which the run folder keeps, too."""
    from selfimprove.app.tracking import environment

    command = [sys.executable, "-m", "wandb", "sync", "--yes", "--include-online", *map(str, paths)]
    settings = {**environment(run_dir), "WANDB_DIR": str(run_dir.resolve())}
    print(f"Sending {count(len(paths), 'log')} to W&B, for at most {seconds:g} s ...", flush=True)
    process = subprocess.Popen(
        command,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=seconds)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with W&B's service, which lives in the same session
        told, _ = process.communicate()
        if isinstance(error, KeyboardInterrupt):
            raise
        told += f"\nended after {seconds:g} s"
    with contextlib.suppress(OSError):
        (run_dir / "wandb" / LOG).write_text(told, encoding="utf-8")
    return told


def _failure(run_dir: Path, left: Sequence[Path], told: str) -> RunError:
    remedy = next((remedy for sign, remedy in _CAUSES if sign.lower() in told.lower()), "").format(
        run=shlex.quote(str(run_dir))
    )
    if not remedy:
        remedy = f"details: {run_dir / 'wandb' / LOG}; nothing is lost, try again later"
    said = next((line for line in reversed(told.splitlines()) if "error" in line.lower()), "")
    value = said.removeprefix("wandb: ").strip()[:200] or " ".join(told.split())[-200:] or "not a word from W&B"
    limit = f"that all of {count(len(left), 'log')} arrives"
    return RunError("send to W&B", value, limit, remedy)
