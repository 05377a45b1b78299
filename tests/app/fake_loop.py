"""A loop that trains nothing: it writes the records of a real one, so that the app can be tested alone.

As a script it is the command line with this loop in place of the real one: ``python fake_loop.py run seed=1``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from pathlib import Path

from selfimprove.errors import LedgerError, RunError
from selfimprove.loop.reproduction import Reproduction
from selfimprove.loop.standing import RunSummary, is_running


class _Writer:
    def __init__(self, run_dir, observer):
        self.path, self.observer, self.flops = run_dir / "ledger.jsonl", observer, 0
        self.lock = self.path.open("a")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.lock.close()

    def add(self, kind, **body):
        with self.path.open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps({"kind": kind, "body": body}) + "\n")
        self.observer.on_event(kind, body)

    def charge(self, key, account, flops=1_000_000):
        self.flops += flops
        self.add("charge", key=key, account=account, flops=flops, total=self.flops)


def run(config, run_dir, observer, *, resume=False, clear_halt=False, should_stop=lambda: False, on_open=lambda: None):
    """Write a run of `config.generations` generations; stops after a candidate when asked to."""
    if (run_dir / "HALT").exists() and not clear_halt:
        raise RunError("resume", str(run_dir), "a run that is not halted", "--clear-halt")
    with _Writer(run_dir, observer) as writer:
        on_open()
        _write(config, run_dir, writer, resume, should_stop)
    return status(run_dir)


def _write(config, run_dir, writer, resume, should_stop):
    if resume:
        (run_dir / "HALT").unlink(missing_ok=True)
        writer.flops = status(run_dir).charged_flops
        writer.add("resume")
    else:
        writer.add(
            "run",
            run_id=f"fake-{config.seed}-{os.getpid()}",
            experiment=config.experiment,
            config=config.to_json(),
            limits=config.to_json()["limits"],
        )
    start = status(run_dir).generation + 1
    for generation in range(start, config.generations + 1):
        for index in range(config.candidates):
            time.sleep(float(os.environ.get("FAKE_STEP", "0")))
            _candidate(writer, generation, index)
            writer.observer.on_event(
                "progress",
                {
                    "generation": generation,
                    "done": index + 1,
                    "total": config.candidates,
                    "share": (index + 1) / config.candidates,
                    "running": 0,
                    "label": "train",
                },
            )
            if should_stop():
                return
            if (run_dir / "HALT").exists():
                writer.add("halt", reason=(run_dir / "HALT").read_text().strip())
                return
        _end(writer, generation, config.candidates)
    writer.add("finish", state="finished", reason="")


def _candidate(writer, generation, index):
    genome = hashlib.sha256(f"{generation}.{index}".encode()).hexdigest()
    place = {"generation": generation, "index": index, "genome": genome}
    edits = [f"recipe.learning_rate=0.00{index + 1}"]
    writer.add("proposal", **place, parent="0" * 64, edits=edits, kinds=["recipe"], status="valid", reason="")
    writer.charge(f"g{generation:03d}/c{index:02d}/s0", "search")
    retention = {"kept": 45 + index % 4, "n": 48, "low": 0.8, "high": 1.0}
    writer.add("score", **place, split="search", seeds=1, skill=0.1 * generation, tasks={}, retention=retention)


def _end(writer, generation, candidates):
    genome = hashlib.sha256(f"{generation}.0".encode()).hexdigest()
    place = {"generation": generation, "index": 0, "genome": genome}
    summary = {
        "probes": {"halted": [0.7, 0.8, 0.9 + generation / 100], "answer": [0.2, 0.3, 0.4]},
        "control": {"halted": [0.5, 0.5, 0.5]},
        "logit_lens": {"recall": [0.1, 0.2, 0.3]},
    }
    instruments = {"probes": {"verdict": "read", "reason": ""}, "logit_lens": {"verdict": "read", "reason": ""}}
    writer.add("inspection", **place, status="complete", path="i.json", instruments=instruments, summary=summary)
    writer.add("confirmation", **place, difference=0.1, p_value=0.004, retention={"kept": 47, "n": 48})
    writer.add("decision", **place, promoted=True, reasons=["better beyond noise"])
    writer.add(
        "generation",
        generation=generation,
        champion=genome,
        best_skill=0.1 * generation,
        charged_flops=writer.flops,
        proposals=candidates,
        valid=candidates,
        denied=0,
        failed=0,
        promoted=True,
    )


def status(run_dir):
    """Fold the records."""
    state, reason = ("running", "") if is_running(run_dir) else ("paused", "interrupted")
    open_end = state, reason
    generation, candidates, charged, limit, best = 0, 0, 0, 0, None
    for line in (run_dir / "ledger.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError as error:
            raise LedgerError("read ledger", line[:20], "JSON lines", "selfimprove audit") from error
        kind, body = record["kind"], record["body"]
        if kind == "run":
            limit = body["limits"]["flops"]
        elif kind == "proposal":
            candidates += 1
        elif kind == "charge":
            charged = body["total"]
        elif kind == "generation":
            generation, best = generation + 1, body["best_skill"]
        elif kind in ("finish", "halt"):
            state, reason = body.get("state", "halted"), body["reason"]
        elif kind == "resume":
            state, reason = open_end
    return RunSummary(state, reason, generation, candidates, charged, limit, best, "ab" * 32)


def reproduce(run_dir, generation):
    """Identical for odd generations."""
    same = generation % 2 == 1
    return Reproduction(same, "c" * 64, "c" * 64 if same else "d" * 64, () if same else ("torch 2.13.0 is now 2.14.0",))


def write_report(run_dir, baselines=None):
    """A report with nothing in it but the baselines."""
    path = Path(run_dir) / "report.html"
    path.write_text(json.dumps({name: str(path) for name, path in (baselines or {}).items()}), encoding="utf-8")
    return path


if __name__ == "__main__":
    for name in ("selfimprove.loop.run", "selfimprove.loop.reproduction", "selfimprove.app.report"):
        sys.modules[name] = sys.modules["__main__"]
    from selfimprove.app.cli import main

    sys.exit(main())
