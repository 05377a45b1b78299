"""The commands besides ``run``: each takes parsed arguments and returns an exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfimprove.app import folder
from selfimprove.archive.records import HALT_NAME, LEDGER_NAME
from selfimprove.errors import ConfigError, RunError

STATUS_KEYS = (
    *("state", "reason", "generation", "candidates"),
    *("charged_flops", "limit_flops", "best_skill", "lineage_sha256"),
)
ENDED = ("finished", "limit", "failed")
HALT_SECONDS = 5.0  # how long `halt` waits for the run to confirm


def resume(arguments: argparse.Namespace) -> int:
    """Go on with a stopped run."""
    from selfimprove.app.session import hold, plain_logging
    from selfimprove.app.settings import settings_from

    run_dir = folder.find_run(arguments.run)
    plain_logging()
    values = {**_recorded_config(run_dir), "tracking": recorded_tracking(run_dir)}
    if other := _other_versions(run_dir):
        print(f"selfimprove: other versions than before: {other}; what follows may differ", file=sys.stderr)
    if arguments.json:
        values["progress"] = "json"
    return hold(settings_from(values), run_dir, resume=True, clear_halt=arguments.clear_halt)


def status(arguments: argparse.Namespace) -> int:
    """Where a run stands."""
    from selfimprove.loop.run import status as read_status

    run_dir = folder.find_run(arguments.run)
    summary = read_status(run_dir)
    if arguments.json:
        _print_json({key: getattr(summary, key) for key in STATUS_KEYS})
    else:
        from selfimprove.app.progress import ruling, summary_text
        from selfimprove.app.view import RunView

        report = run_dir / folder.REPORT
        view = RunView()
        for kind, body in folder.records(run_dir):
            if kind == "handover":
                view.apply(kind, body)
        print(summary_text(summary, run_dir, report if report.exists() else None, ruling(view)).lstrip("\n"))
    return 0


def approve(arguments: argparse.Namespace) -> int:
    """Let a run that a tripwire paused go on when it is resumed."""
    from selfimprove.app.progress import next_commands
    from selfimprove.loop.run import approve as approve_run

    run_dir = folder.find_run(arguments.run)
    body = approve_run(run_dir, arguments.reason)
    trips = ", ".join(body["trips"])
    print(f"Approved by {body['who']}: {run_dir} may go on after generation {body['generation']} ({trips}).")
    print(f"Next: {next_commands('paused', run_dir)[-1]}")
    return 0


def halt(arguments: argparse.Namespace) -> int:
    """Kill switch: the file comes first, so that nothing can keep it from being seen."""
    run_dir = folder.find_run(arguments.run)
    switch = run_dir / HALT_NAME
    try:
        folder.write_halt(run_dir, arguments.reason)
    except OSError as error:
        remedy = "kill -USR1 with its supervisor's process id stops it, too"
        raise RunError(f"write {switch}", str(error), "a folder that can be written to", remedy) from error
    deadline = time.monotonic() + HALT_SECONDS
    while (state := _state(run_dir)) == "running" and time.monotonic() < deadline:
        time.sleep(0.1)
    if state in ENDED:  # before the switch was there, or before anybody looked at it
        switch.unlink(missing_ok=True)
        raise RunError("halt run", str(run_dir), "a run that has not ended", f"it is {state}: nothing is left to stop")
    if state == "running":
        print(f"Halt of {run_dir} is requested and not confirmed yet. Check: {folder.command('status', run_dir)}")
    else:
        print(f"Halted: {run_dir} ({arguments.reason}). What was finished is kept.")
        print(f"Next: {folder.command('resume', run_dir, '--clear-halt')}")
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Prove the chain, the signatures, the budget arithmetic and every stored hash."""
    from selfimprove.app.units import count
    from selfimprove.archive.anchor import FileAnchor
    from selfimprove.archive.audit import audit as examine
    from selfimprove.containment.keys import SigningKey, state_dir

    run_dir = folder.find_run(arguments.run)
    own_key = None if arguments.foreign else SigningKey.load(state_dir()).public_key_hex
    report = examine(run_dir, FileAnchor(state_dir()), own_key)
    findings = [{"file": str(f.file), "line": f.line, "what": f.what} for f in report.findings]
    if arguments.json:
        _print_json({"ok": report.ok, "anchored": report.anchored, "entries": report.entries, "findings": findings})
    else:
        for finding in findings:
            line = f":{finding['line']}" if finding["line"] else ""  # binary files have no lines
            print(f"{finding['file']}{line}: {finding['what']}")
        if report.torn:
            print("The last line was cut short by a crash: the next resume sets it aside. That is no finding.")
        writer = "anybody" if own_key is None or report.public_key != own_key else "the key's holder"
        unseen = f"not anchored on this machine: a rewrite by {writer} is unseen"
        anchored = "anchored on this machine" if report.anchored else unseen
        entries = count(report.entries, "ledger entry", "ledger entries")
        if report.ok:
            print(f"OK: {entries}: chain, signatures, budget and every stored file agree; {anchored}")
        else:
            print(f"NOT OK: {count(len(findings), 'finding')} in {entries} and the files they name; {anchored}")
    return 0 if report.ok else 1


def inspect(arguments: argparse.Namespace) -> int:
    """What the stored inspections read, of each generation; or every instrument, in one."""
    generation = _generation(arguments)
    run_dir = _inspected_run(arguments)
    entries = list(folder.records(run_dir))
    found = [body for kind, body in entries if kind == "inspection"]
    known = sorted({int(body.get("generation", -1)) for body in found})
    if arguments.full:
        found = [_inspect_fully(run_dir, known, generation)]
    elif generation is not None:
        if generation not in known:
            raise RunError.no_generation("inspect generation", generation, "inspected generations", known)
        found = [body for body in found if body.get("generation") == generation]
    if arguments.json:
        _print_json({"run": str(run_dir), "inspections": found})
        return 0
    from selfimprove.app.tables import print_inspections

    decisions, proposals = (
        {(body.get("generation"), body.get("index")): body for kind, body in entries if kind == wanted}
        for wanted in ("decision", "proposal")
    )
    promoted = {place: body.get("promoted") for place, body in decisions.items()}
    print_inspections(found, promoted, {place: body.get("edits", ()) for place, body in proposals.items()})
    return 0


def _generation(arguments: argparse.Namespace) -> int | None:
    """The generation that is asked for, in one of two ways; None for all.

    Raises:
        ConfigError: two different ones.
    """
    given = {number for number in (arguments.gen, arguments.generation) if number is not None}
    if len(given) > 1:
        got = f"{arguments.gen} and --generation {arguments.generation}"
        raise ConfigError("inspect generation", got, "one generation", "leave one of the two out")
    return next(iter(given), None)


def _inspected_run(arguments: argparse.Namespace) -> Path:
    """The run folder that is meant; a lone number that names none was to be a generation.

    Raises:
        RunError: there is no such run.
    """
    try:
        return folder.find_run(arguments.run)
    except RunError as error:
        word = str(arguments.run)
        if not word.isdecimal() or Path(word).exists():
            raise
        remedy = f"of the latest run: selfimprove inspect --generation {word}"
        raise RunError(error.operation, error.value, error.limit, remedy) from error


def _inspect_fully(run_dir: Path, known: Sequence[int], generation: int | None) -> dict[str, Any]:
    """One generation, by default the last one, read again with every instrument."""
    from selfimprove.loop.reexamination import inspect_again

    return inspect_again(run_dir, generation if generation is not None else max(known, default=0))


def report(arguments: argparse.Namespace) -> int:
    """Write report.html again from the ledger, beside other runs where some are named."""
    from selfimprove.app.report import write_report

    run_dir = folder.find_run(arguments.run)
    try:
        path = write_report(run_dir, _baselines(run_dir, arguments.baseline))
    except OSError as error:
        raise folder.explain(error, f"write the report of {run_dir}") from error
    if arguments.json:
        _print_json({"report": str(path)})
    else:
        print(path)
    return 0


def reproduce(arguments: argparse.Namespace) -> int:
    """Train a kept generation again and compare the weights."""
    from selfimprove.loop.reproduction import reproduce as train_again

    run_dir = folder.find_run(arguments.run)
    result = train_again(run_dir, arguments.generation)
    if arguments.json:
        _print_json({"identical": result.identical, "weights_sha256": result.weights_sha256})
    else:
        print(f"{'identical' if result.identical else 'DIFFERENT'}: weights {result.weights_sha256}")
        if not result.identical:
            print(f"expected: {result.expected}")
            print("\n".join(f"differs: {difference}" for difference in result.differences))
    return 0 if result.identical else 1


def _baselines(run_dir: Path, given: Sequence[str]) -> dict[str, Path]:
    """Other runs by the shortest end of their path that tells them apart."""
    found = [folder.find_run(name) for name in dict.fromkeys(given)]
    for other in found:
        if other.resolve() == run_dir.resolve():
            raise RunError("report with baseline", str(other), "another run than the reported one", "name another run")
    return folder.short_names(found)


def _recorded_config(run_dir: Path) -> Mapping[str, Any]:
    """The configuration that the run was started with, from its first record."""
    for kind, body in folder.records(run_dir):
        if kind == "run" and isinstance(body.get("config"), dict):
            config: Mapping[str, Any] = body["config"]
            return config
        break
    where = str(run_dir / LEDGER_NAME)
    raise RunError("resume", where, "a ledger that begins with a run record", "selfimprove audit shows what is damaged")


def _other_versions(run_dir: Path) -> str:
    """What is not as it was in the sitting before, by package; empty where all is."""
    from selfimprove.loop.versions import versions

    before = [body.get("versions") for kind, body in folder.records(run_dir) if kind in ("run", "resume")]
    known = next((found for found in reversed(before) if isinstance(found, dict)), {})
    here = versions()
    differs = [name for name, there in known.items() if here.get(name) != there]
    changed = [f"{name} {str(here.get(name))[:12]}, not {str(known[name])[:12]}" for name in differs]
    return "; ".join(changed)


def recorded_tracking(run_dir: Path) -> Mapping[str, Any]:
    """How the run was tracked, from what Hydra kept beside it; a file that is lost or torn only means no tracking."""
    path = run_dir / ".hydra" / "config.yaml"
    if not path.is_file():
        return {}
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, ValueError, OmegaConfBaseException, YAMLError):
        return {}
    tracking = found.get("tracking") if isinstance(found, dict) else None
    return tracking if isinstance(tracking, dict) else {}


def _state(run_dir: Path) -> str | None:
    """The state of a run; halting must work where it cannot be read, too.

    Whoever writes a ledger holds its lock, so that ``running`` is known without reading; None is all else.
    """
    if summary := folder.summary(run_dir):
        return summary.state
    from selfimprove.loop.standing import is_running

    try:
        return "running" if is_running(run_dir) else None
    except OSError:  # nobody can say that it has stopped
        return "running"


def _print_json(values: Mapping[str, Any]) -> None:
    print(json.dumps(values, indent=2, ensure_ascii=False))
