"""Weights & Biases from a distance: its own process, fed through a bounded buffer, unable to stop or slow a run.

The ledger is the truth; tracking is a view of it. What could not be sent in time is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger(__name__)

CLOSE_SECONDS = 30.0
LOOK_SECONDS = 0.05
PAST_SECONDS = 60.0  # that the past of a resumed run may wait for a tracker that is still starting, all of it together
BUFFER_EVENTS = 2000

# Only these record kinds are drawn, and whole genomes and usage details stay in the ledger.
_KINDS = frozenset(
    {
        *("run", "proposal", "denial", "charge", "outcome", "score", "reference", "controller", "climb"),
        *(
            "inspection",
            "controller_inspection",
            "confirmation",
            "decision",
            "generation",
            "handover",
            "checkpoint",
            "tripwire",
            "approval",
            "finish",
        ),
    }
)
_LEFT_OUT = frozenset({"seed_genome", "usage", "spent", "files", "signature", "result", "public_key"})

# The tracker is the one child that may see the researcher's W&B login and the way to the network.
_ENVIRONMENT = frozenset(
    {"HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "NETRC", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)
_ENVIRONMENT_PREFIXES = ("WANDB_", "XDG_", "REQUESTS_")
# The service of a process that uses W&B itself, a notebook say: a tracker that joined it would end with it.
_OF_OTHERS = "WANDB_SERVICE"
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


@dataclass(frozen=True)
class TrackingConfig:
    """The ``tracking`` group.

    Attributes:
        kind: ``none`` imports nothing and starts nothing.
        mode: ``offline`` writes into the run folder only; ``online`` sends, and falls back to offline.
        project, entity, tags: as in W&B; an empty entity means the login's default.
    """

    kind: Literal["wandb", "none"] = "none"
    mode: Literal["offline", "online"] = "offline"
    project: str = "selfimprove"
    entity: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrackingReport:
    """How tracking went; `note` is for a person, empty when there is nothing to say.

    Attributes:
        seconds: that the run's own thread spent on it: starting it, handing over records, waiting for its end.
    """

    dropped: int
    note: str
    seconds: float


class Tracker:
    """An observer that hands records to the tracker process and never waits for it while the run goes on."""

    def __init__(self, config: TrackingConfig, run_dir: Path, *, command: list[str] | None = None) -> None:
        started = time.monotonic()
        self._run_dir = run_dir
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=BUFFER_EVENTS)
        self._dropped = 0
        self._log_path = run_dir / "wandb" / "tracker.log"
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._process = self._start(command or [sys.executable, "-m", "selfimprove.app.tracker"])
        self._writer = threading.Thread(target=self._write, name="tracking", daemon=True)
        self._writer.start()
        self._put({"kind": "settings", "body": {**asdict(config), "run_dir": str(run_dir.resolve())}})
        self._seconds = time.monotonic() - started

    def on_event(self, kind: str, body: Mapping[str, Any], *, patience: float = 0.0) -> None:
        """Queue one record; a buffer that is full for longer than ``patience`` seconds drops it."""
        if kind in _KINDS:
            started = time.monotonic()
            shown = {key: value for key, value in body.items() if key not in _LEFT_OUT}
            self._put({"kind": kind, "body": shown}, patience)
            self._seconds += time.monotonic() - started

    def catch_up(
        self, past: Iterable[tuple[str, Mapping[str, Any]]], *, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Queue what happened before a run is resumed: more than the buffer holds. Once it should stop, none waits."""
        deadline = time.monotonic() + PAST_SECONDS
        for kind, body in past:
            while self._queue.full() and time.monotonic() < deadline and not should_stop():
                time.sleep(LOOK_SECONDS)
            self.on_event(kind, body)

    def close(self, seconds: float = CLOSE_SECONDS) -> TrackingReport:
        """Let the tracker finish for at most ``seconds``, then kill it."""
        started = time.monotonic()
        deadline = started + seconds
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=seconds)
        self._writer.join(max(0.0, deadline - time.monotonic()))
        answer = b""
        try:
            assert self._process.stdout is not None
            if not self._writer.is_alive():  # otherwise the pipe is stuck and there is nothing to wait for
                self._process.wait(max(0.0, deadline - time.monotonic()))
                os.set_blocking(self._process.stdout.fileno(), False)  # W&B's service may still hold the other end
                answer = self._process.stdout.read() or b""
        except subprocess.TimeoutExpired:
            pass
        self._kill()
        spent = self._seconds + time.monotonic() - started
        return TrackingReport(self._dropped, self._note(answer), spent)

    def _note(self, answer: bytes) -> str:
        again = f"the ledger has everything: selfimprove sync --rebuild ({self._log_path})"
        try:
            note = str(json.loads(answer)["note"]) or f"W&B kept nothing; {again}"
        except (ValueError, KeyError, TypeError):
            note = f"tracking ended early; {again}"
        return f"{note}; {self._dropped} records dropped" if self._dropped else note

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as errors:
            # a session of its own: the terminal's Ctrl-C must not reach it, end of input ends it
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(self._run_dir),
                start_new_session=True,
            )

    def _put(self, message: Mapping[str, Any], patience: float = 0.0) -> None:
        try:
            self._queue.put(json.dumps(message).encode() + b"\n", block=patience > 0, timeout=patience or None)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        try:
            while (line := self._queue.get()) is not None:
                pipe.write(line)
                pipe.flush()
            pipe.close()
        except OSError:
            while self._queue.get() is not None:  # the child is gone: keep the buffer from filling up
                self._dropped += 1

    def _kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with W&B's service, which lives in the same session
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._writer.join(1.0)
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()


def environment(run_dir: Path) -> dict[str, str]:
    """What a child that speaks with W&B may see: the login, the way to the network, and no other secret."""
    found = {
        name: value
        for name, value in os.environ.items()
        if (name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES) or name.lower() in _PROXIES)
        and name != _OF_OTHERS
    }
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # tables wait there to be sent: keep them with the run
        found.setdefault(name, str((run_dir / "wandb" / "data").resolve()))
    found.setdefault("WANDB_ERROR_REPORTING", "false")  # its usage statistics go out even in offline mode
    return found


def start_tracking(config: TrackingConfig, run_dir: Path) -> Tracker | None:
    """The tracker of a run, or None when it is switched off or cannot start: a run never depends on it."""
    if config.kind == "none":
        return None
    try:
        return Tracker(config, run_dir)
    except OSError as error:
        log.warning("tracking could not start (%s); the run goes on without it", error)
        return None
