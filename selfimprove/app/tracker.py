"""The tracker process: records in on standard input, one W&B run out, one JSON line of result on standard output.

Started as ``python -m selfimprove.app.tracker``. It ends when its input ends, whatever became of its parent. It may
be slow, fail or be killed at any moment: nothing waits for it but the end of the run, and that for a bounded time.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from selfimprove.app import tracked
from selfimprove.app.view import RunView

log = logging.getLogger(__name__)

INIT_SECONDS = 15.0  # W&B's own default is 90: longer than a whole small run; WANDB_INIT_TIMEOUT overrides
FINISH_SECONDS = 25  # below the 30 seconds that the parent waits
LINGER_SECONDS = 45  # after the input has ended nothing may keep this process alive


class Recorder:
    """Draws a run in W&B from its records."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._view = RunView()
        self._run: Any = None
        self._finish: Mapping[str, Any] = {}
        self._tripped: Mapping[str, Any] = {}
        self._offline = settings["mode"] != "online"
        self._fell_back = False

    def record(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in one record; a generation is one step of the W&B run."""
        self._view.apply(kind, body)
        if kind == "run":
            self._run = self._open(str(body["run_id"]))
        elif kind == "generation" and self._run is not None:
            self._log(int(body["generation"]))
        elif kind == "decision" and body["promoted"] and self._run is not None:
            self._keep(int(body["generation"]), int(body["index"]))
        elif kind == "tripwire" and body["trips"]:
            self._tripped = body
        elif kind == "approval":
            self._tripped = {}
        elif kind == "finish":
            self._finish = body
            if self._tripped and self._run is not None:  # not when it tripped: a resumed run hears its past again
                self._alert(self._tripped)

    def _log(self, generation: int) -> None:
        if len(self._view.generations) == 1:  # what was read in the seed genome is where the curves start
            self._run.log(tracked.readings(self._view, 0), step=_step(0), commit=True)
        self._run.log(tracked.metrics(self._view, generation), step=_step(generation), commit=True)

    def _keep(self, generation: int, index: int) -> None:
        """The promoted checkpoint as an artifact; what is the same as before makes no new version of it."""
        import wandb

        body = self._view.checkpoints.get((generation, index))
        if body is None:
            return
        artifact = wandb.Artifact(
            f"champion-{self._view.run_id}", type="model", metadata=tracked.about(self._view, generation, index)
        )
        for name in ("path", "manifest"):
            path = Path(self._settings["run_dir"]) / str(body[name])
            artifact.add_file(str(path), name=path.name, skip_cache=True, policy="immutable")  # it is never rewritten
        self._run.log_artifact(artifact, aliases=["latest", "best", f"gen-{generation}"])

    def close(self) -> str:
        """Write figures, table and summary; return a note for the person who ran it."""
        if self._run is None:
            return ""
        last = max(self._view.generations, default=0)
        try:
            self._run.log({"generation": last, **tracked.figures(self._view)}, step=_step(last) + 1, commit=True)
        except Exception:  # figures that cannot be drawn must not cost what was logged before
            log.exception("could not draw the figures of the whole run")
        view = self._view
        summary = {"best_skill": view.best_skill, "champion": view.champion, "charged_flops": view.charged_flops}
        self._run.summary.update({**summary, **{key: self._finish.get(key, "") for key in ("state", "reason")}})
        folder = os.path.relpath(self._settings["run_dir"])  # from where the run was started
        self._run.finish()
        if self._fell_back:
            return f"W&B could not be reached; kept offline, send it later with: selfimprove sync {shlex.quote(folder)}"
        return f"kept offline; send it with: selfimprove sync {shlex.quote(folder)}" if self._offline else "sent to W&B"

    def _alert(self, tripwire: Mapping[str, Any]) -> None:
        """Tell whoever follows the run from afar that it waits for a person."""
        names = ", ".join(str(trip["name"]) for trip in tripwire["trips"])
        reasons = "; ".join(f"{trip['name']}: {trip['reason']}" for trip in tripwire["trips"])
        log.warning("tripwire after generation %s: %s", tripwire["generation"], reasons)
        title = f"Tripwire after generation {tripwire['generation']}: {names}"
        self._run.alert(title=title, text=f"{reasons}. It waits for: selfimprove approve", level="WARN")

    def _open(self, run_id: str) -> Any:
        import wandb

        try:
            run = self._init(run_id, "offline" if self._offline else "online")
        except Exception:  # no network, no login, a server that refuses: W&B raises many kinds
            if self._offline:
                raise
            log.exception("online tracking failed; keeping the run offline")
            self._offline = self._fell_back = True
            wandb.teardown()  # its service still holds the run that it could not start
            run = self._init(run_id, "offline")
        run.define_metric("generation")
        run.define_metric("*", step_metric="generation")
        return run

    def _init(self, run_id: str, mode: str) -> Any:
        import wandb

        config = self._view.config
        return wandb.init(
            mode=mode,  # type: ignore[arg-type]
            project=self._settings["project"],
            entity=self._settings["entity"] or None,
            tags=list(self._settings["tags"]) or None,
            id=run_id,
            resume="allow" if mode == "online" else None,
            name=f"{self._view.experiment}-s{config.get('seed', 0)}",
            group=self._view.experiment,
            config=dict(config),
            dir=self._settings["run_dir"],
            settings=wandb.Settings(
                init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", INIT_SECONDS)),
                finish_timeout=FINISH_SECONDS,
                console="off",
                silent=True,
                x_disable_stats=True,
                disable_git=True,
                disable_code=True,
            ),
        )


def _step(generation: int) -> int:
    """W&B's own counter: it passes over steps that an earlier sitting has sent. The odd ones are for its last words."""
    return 2 * generation


def messages(stream: IO[bytes]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Complete JSON lines; a torn last one, from a parent that was killed, ends the input."""
    for line in stream:
        if not line.endswith(b"\n"):
            return
        message = json.loads(line)
        yield message["kind"], message["body"]


def main() -> int:
    """Entry of the process."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    incoming = messages(sys.stdin.buffer)
    _, settings = next(incoming)
    recorder = Recorder(settings)
    for kind, body in incoming:
        try:
            recorder.record(kind, body)
        except Exception:  # a record that cannot be drawn costs only itself
            log.exception("could not draw a %r record", kind)
    guard = threading.Timer(LINGER_SECONDS, os._exit, args=(1,))
    guard.daemon = True
    guard.start()
    note = recorder.close()
    os.write(1, json.dumps({"note": note}).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
