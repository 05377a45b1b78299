"""The tracker process: records in on standard input, one W&B run out, one JSON line of result on standard output.

Started as ``python -m selfimprove.app.tracker``. It ends when its input ends, whatever became of its parent. It may
be slow, fail or be killed at any moment: nothing waits for it but the end of the run, and that for a bounded time.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from selfimprove.app.view import CandidateRow, RunView

log = logging.getLogger(__name__)

INIT_SECONDS = 15.0  # W&B's own default is 90: longer than a whole small run; WANDB_INIT_TIMEOUT overrides
FINISH_SECONDS = 25  # below the 30 seconds that the parent waits
LINGER_SECONDS = 45  # after the input has ended nothing may keep this process alive

COLUMNS = ("generation", "index", "genome", "edits", "kinds", "status", "skill", "retention", "flops", "reason")


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
            generation = int(body["generation"])
            self._run.log(metrics(self._view, generation), step=_step(generation), commit=True)
        elif kind == "tripwire" and body["trips"]:
            self._tripped = body
        elif kind == "approval":
            self._tripped = {}
        elif kind == "finish":
            self._finish = body
            if self._tripped and self._run is not None:  # not when it tripped: a resumed run hears its past again
                self._alert(self._tripped)

    def close(self) -> str:
        """Write figures, table and summary; return a note for the person who ran it."""
        if self._run is None:
            return ""
        import wandb

        table = wandb.Table(columns=list(COLUMNS), data=[_cells(row) for row in self._view.candidates.values()])
        last = max(self._view.generations, default=0)
        self._run.log(
            {"generation": last, "candidates": table, **figures(self._view)}, step=_step(last) + 1, commit=True
        )
        view = self._view
        summary = {"best_skill": view.best_skill, "champion": view.champion, "charged_flops": view.charged_flops}
        self._run.summary.update({**summary, **{key: self._finish.get(key, "") for key in ("state", "reason")}})
        folder = os.path.relpath(Path(self._run.dir).parent)  # from where the run was started
        self._run.finish()
        if self._fell_back:
            return f"W&B could not be reached; kept offline, send it later with: wandb sync {folder}"
        return f"kept offline; send it with: wandb sync {folder}" if self._offline else "sent to W&B"

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


def metrics(view: RunView, generation: int) -> dict[str, Any]:
    """The scalars of one generation: totals, mean scores, and what the inspection of its leader read."""
    body = view.generations[generation]
    kept = ("best_skill", "charged_flops", "proposals", "valid", "denied", "stopped", "failed", "audited", "promoted")
    found: dict[str, Any] = {"generation": generation, **{name: body[name] for name in kept if name in body}}
    found |= {f"halving/regret_{unit}": value for unit, value in (body.get("regret") or {}).items()}
    rows = [row for row in view.candidates.values() if row.generation == generation]
    skills = [row.skill for row in rows if row.skill is not None]
    if skills:
        found |= {"search/best_skill": max(skills), "search/mean_skill": sum(skills) / len(skills)}
    retained = [row.retention for row in rows if row.retention is not None]
    if retained:
        found["retention/candidates_mean"] = sum(retained) / len(retained)
    if generation in view.confirmations:
        confirmation = view.confirmations[generation]
        found |= {f"gate/{name}": confirmation[name] for name in ("difference", "p_value") if name in confirmation}
        found |= _retention("retention/confirmed", confirmation)
    for inspection in view.inspections:
        if inspection.get("generation") == generation:
            found |= _layers(inspection)
    return found


def figures(view: RunView) -> dict[str, Any]:
    """Charts over the whole run: probe accuracy by layer, one line a generation; retention by generation."""
    import wandb

    lines: dict[str, dict[int, list[float]]] = {}
    for inspection in view.inspections:
        for variable, accuracies in inspection.get("summary", {}).get("probes", {}).items():
            lines.setdefault(variable, {})[int(inspection["generation"])] = list(accuracies)
    drawn: dict[str, Any] = {}
    for variable, by_generation in lines.items():
        drawn[f"inspection/probe_{variable}"] = wandb.plot.line_series(
            xs=[list(range(len(values))) for values in by_generation.values()],
            ys=list(by_generation.values()),
            keys=[f"generation {number}" for number in by_generation],
            title=f"Probe accuracy by layer: {variable}",
            xname="layer",
        )
    kept = [(row.generation, row.retention) for row in view.candidates.values() if row.retention is not None]
    if kept:
        table = wandb.Table(columns=["generation", "retention"], data=[list(pair) for pair in kept])
        drawn["inspection/retention"] = wandb.plot.scatter(table, "generation", "retention", title="Halt retention")
    return drawn


def _layers(inspection: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    summary = inspection.get("summary", {})
    for group, name in (("probes", "probe"), ("control", "probe_control"), ("logit_lens", "logit_lens")):
        for variable, values in summary.get(group, {}).items():
            for layer, value in enumerate(values if isinstance(values, list) else [values]):
                if isinstance(value, int | float):
                    found[f"{name}/{variable}/layer_{layer}"] = float(value)
    return found


def _retention(name: str, body: Mapping[str, Any]) -> dict[str, float]:
    retention = body.get("retention") or {}
    return {name: retention["kept"] / retention["n"]} if retention.get("n") else {}


def _cells(row: CandidateRow) -> list[Any]:
    edits, kinds = ", ".join(row.edits), ", ".join(row.kinds)
    return [
        *(row.generation, row.index, row.genome[:10], edits, kinds),
        *(row.status, row.skill, row.retention, row.flops, row.reason),
    ]


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
