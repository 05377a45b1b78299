"""A run from its first record to its last: start or resume, stop for a reason, approve what tripped, train again."""

from __future__ import annotations

import hashlib
import os
import shlex
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

from selfimprove.archive.anchor import FileAnchor
from selfimprove.archive.files import make_folder, write_atomic
from selfimprove.archive.ledger import LEDGER_NAME, Ledger, read
from selfimprove.archive.records import HALT_NAME
from selfimprove.canonical import canonical
from selfimprove.containment.budget import Budget
from selfimprove.containment.keys import SigningKey, state_dir
from selfimprove.containment.permit import PermitBook
from selfimprove.containment.policy import check_run
from selfimprove.containment.sandbox.backend import SandboxBackend
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Spent, Supervisor, ZygoteSpec
from selfimprove.errors import Halted, Interrupted, LimitReached, RunError, RunFailed, Tripped
from selfimprove.executors.executor import Executor
from selfimprove.executors.messages import Order
from selfimprove.executors.registry import LOCAL, make_cluster, require
from selfimprove.loop.clock import Clock
from selfimprove.loop.config import RunConfig
from selfimprove.loop.controller_jobs import entries
from selfimprove.loop.generation import run_generation
from selfimprove.loop.granting import lost_cap
from selfimprove.loop.journal import Journal, Observer
from selfimprove.loop.laboratory import Laboratory
from selfimprove.loop.own_instruments import INSPECTOR, check_registered
from selfimprove.loop.recovery import name_strays, settle_open
from selfimprove.loop.slots import Bench
from selfimprove.loop.standing import RunSummary, halt_reason, halted, is_running, status
from selfimprove.loop.versions import versions, versions_on_nodes
from selfimprove.loop.watching import approval_of, pending, why
from selfimprove.own_modules import import_folders
from selfimprove.training.protocol import ENTRY

__all__ = ["RunSummary", "approve", "run", "status"]

CONFIG = "config.json"


def run(
    config: RunConfig,
    run_dir: Path,
    observer: Observer,
    *,
    resume: bool = False,
    clear_halt: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_open: Callable[[], object] = lambda: None,
) -> RunSummary:
    """Run the loop in ``run_dir``, or go on with it.

    Args:
        config: of the run; of one that is resumed, what it was started with.
        run_dir: its folder.
        observer: is told of every record.
        resume: go on with the run that is there.
        clear_halt: lift the kill switch that is there.
        should_stop: once true, no further job is started.
        on_open: called once the run is this process's alone to write, before anything else happens in it.

    Raises:
        RunError: the run is halted and ``clear_halt`` was not given, a tripwire waits for an approval, the folder
            cannot be used, or what a resumed run rests on was changed or is missing.
        SandboxUnavailable: a containment property cannot be enforced here.
    """
    started, lifted = time.monotonic(), _mark(run_dir / HALT_NAME) if clear_halt else None
    use = config.containment
    backend = make_backend(use.backend, use.allow_degraded, device=config.device, outer_layer=use.outer_layer)
    backend.command([])  # refuses here, before anything is written
    require(config.executor)  # likewise
    ledger = _open(config, run_dir, backend, resume=resume, clear_halt=clear_halt, lifted=lifted)
    with ledger:
        on_open()
        clock = Clock(ledger.entries, started)
        journal = Journal(ledger, observer, clock.reading)
        if not resume:
            observer.on_event("run", ledger.entries[0].body)
        if journal.all("finish"):
            return status(run_dir)
        if resume:
            name_strays(journal, run_dir)

        def stop() -> bool:
            return should_stop() or clock.is_over(config.limits)

        def unattended(key: str, reason: str) -> None:
            journal.record("unattended", {"key": key, "reason": reason})

        with (
            _supervisor(config, run_dir, backend, stop, unattended) as supervisor,
            _cluster(config, run_dir, journal, stop, unattended) as cluster,
        ):
            clock.meter(lambda: supervisor.spent + (cluster.spent if cluster else Spent()))
            supervisor.warm("torch")
            supervisor.warm("lens")
            bench = _bench(config, run_dir, journal, supervisor, cluster)
            _to_its_end(Laboratory(bench, versions(), clock), should_stop, run_dir)
    return status(run_dir)


def _to_its_end(lab: Laboratory, should_stop: Callable[[], bool], run_dir: Path) -> None:
    """Run what is left, and record what ended it; nothing of a run that only stops for now."""
    journal, count = lab.journal, lab.config.generations
    try:
        _run_generations(lab, should_stop)
        done = "1 generation" if count == 1 else f"{count} generations"
        journal.record("finish", {"state": "finished", "reason": f"{done} done"})
    except LimitReached as reached:
        settle_open(journal, lab.bench.budget)
        journal.record("finish", {"state": "limit", "reason": str(reached)})
    except RunFailed as failure:
        journal.record("finish", {"state": "failed", "reason": str(failure)})
    except Halted:
        journal.record("halt", {"reason": halt_reason(run_dir)})
    except (Interrupted, Tripped):
        pass


def _run_generations(lab: Laboratory, should_stop: Callable[[], bool]) -> None:
    """From the seed to the seal; a limit on wall, processor or GPU time stops the workers as a person does."""
    bench, asked = lab.bench, lab.config.inspection
    try:
        if asked.modules:
            check_registered(bench.supervisor, asked, bench.limits(), resumed=bool(lab.journal.all("resume")))
        lab.plant_seed()
        for generation in range(1, lab.config.generations + 1):
            if should_stop():
                raise Interrupted("start a generation")
            run_generation(lab, generation)
        lab.seal()
    except Interrupted:
        if not should_stop():
            check_run(lab.config.limits, lab.clock.used())
        raise


def approve(run_dir: Path, reason: str) -> Mapping[str, Any]:
    """Let a run that a tripwire paused go on at its next resume; the record says who, why, and what had tripped.

    Raises:
        RunError: there is no such run, it is running, nothing waits for an approval, or the reason is empty.
        LedgerError: the ledger was changed.
    """
    entries = read(run_dir / LEDGER_NAME, FileAnchor(state_dir()))
    if is_running(run_dir):
        raise RunError("approve run", str(run_dir), "a run that a tripwire paused", "it is running: see its status")
    if (waiting := pending(entries)) is None:
        raise RunError("approve run", str(run_dir), "a run that a tripwire paused", "nothing waits for an approval")
    body = approval_of(waiting, reason)
    with Ledger.open(run_dir / LEDGER_NAME, SigningKey.load(state_dir()), FileAnchor(state_dir())) as ledger:
        return ledger.append("approval", body).body


def _open(
    config: RunConfig,
    run_dir: Path,
    backend: SandboxBackend,
    *,
    resume: bool,
    clear_halt: bool,
    lifted: tuple[int, int] | None,
) -> Ledger:
    """Create or open the ledger; obey a halt that was not cleared, and a trip that was not approved.

    Args:
        config, run_dir, backend, resume, clear_halt: see ``run``.
        lifted: the mark of the kill switch that ``clear_halt`` is for; a newer one is obeyed.
    """
    key, anchor = SigningKey.load(state_dir()), FileAnchor(state_dir())
    switch = run_dir / HALT_NAME
    if not resume:
        make_folder(run_dir)
        if (run_dir / LEDGER_NAME).exists():
            raise RunError("start a run", str(run_dir), "a folder without a run", "resume it, or name another folder")
        data = canonical(config.to_json()) + b"\n"
        first = _first_record(config, backend, data)
        return Ledger.create(
            run_dir / LEDGER_NAME, key, anchor, first, prepare=lambda: write_atomic(run_dir / CONFIG, data)
        )
    ledger = Ledger.open(run_dir / LEDGER_NAME, key, anchor)
    if any(entry.kind == "finish" for entry in ledger.entries):
        return ledger  # nothing follows the end of a run
    was_halted = halted(run_dir, ledger.entries)
    if was_halted and not clear_halt:
        ledger.close()
        raise RunError("resume", str(run_dir), "a run that is not halted", "clear it on purpose: --clear-halt")
    if (waiting := pending(ledger.entries)) is not None:
        ledger.close()
        how = shlex.join(["selfimprove", "approve", str(run_dir)])
        remedy = f'{why(waiting)}; look at it, then: {how} --reason "..."'
        raise RunError("resume", str(run_dir), "a run that no tripwire holds up", remedy)
    sandbox = {"sandbox": backend.probe(), "backend": backend.name, "degraded": sorted(backend.degraded)}
    ledger.append("resume", {"entries": len(ledger.entries), "versions": versions(), **sandbox})
    if was_halted:
        ledger.append("clear_halt", {"reason": halt_reason(run_dir)})
        if not _lift(switch, lifted):
            ledger.close()
            remedy = "selfimprove status says why; then resume it again"
            raise RunError("resume", str(run_dir), "a run that nobody halted meanwhile", remedy)
    return ledger


def _mark(switch: Path) -> tuple[int, int] | None:
    """What tells a kill switch from one that was thrown later; None where there is none."""
    try:
        found = switch.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _lift(switch: Path, lifted: tuple[int, int] | None) -> bool:
    """Take the kill switch away, if it is the one that was to be lifted; False where it is another, which stays."""
    aside = switch.with_name(f".{switch.name}-{os.getpid()}")
    try:
        os.rename(switch, aside)
    except FileNotFoundError:
        return True
    if _mark(aside) == lifted:
        aside.unlink()
        return True
    os.rename(aside, switch)
    return False


def _first_record(config: RunConfig, backend: SandboxBackend, data: bytes) -> dict[str, Any]:
    resolved = config.to_json()
    return {
        "run_id": uuid.uuid4().hex,
        "schema": 1,
        "experiment": config.experiment,
        "root_seed": config.seed,
        "device": config.device,
        "config": resolved,
        "config_sha256": hashlib.sha256(data).hexdigest(),
        "limits": resolved["limits"],
        "versions": versions(),
        "sandbox": backend.probe(),
        "backend": backend.name,
        "degraded": sorted(backend.degraded),
        "seed_genome": config.seed_genome.to_json(),
    }


def _supervisor(
    config: RunConfig,
    run_dir: Path,
    backend: SandboxBackend,
    should_stop: Callable[[], bool],
    on_unattended: Callable[[str, str], None],
) -> Supervisor:
    tasks, both = config.tasks.modules, (*config.tasks.modules, *config.inspection.modules)
    families, own = (import_folders(modules, Path.cwd()) for modules in (tasks, both))
    zygotes = _trainers(config) | {
        "torch": ZygoteSpec(entries(tasks), search=families),
        "lens": ZygoteSpec((INSPECTOR, "interp.controller_worker", *both), search=own),
    }
    return Supervisor(
        zygotes, backend=backend, workers=config.workers, halt_file=run_dir / HALT_NAME, should_stop=should_stop,
        heartbeat_seconds=config.containment.heartbeat_seconds, on_unattended=on_unattended,
    )  # fmt: skip


def _trainers(config: RunConfig) -> dict[str, ZygoteSpec]:
    """The role that trains successors, by its name."""
    tasks, cuda = config.tasks.modules, config.device == "cuda"
    search = import_folders(tasks, Path.cwd())
    spec = ZygoteSpec((ENTRY, *tasks), device=config.device, fork=not cuda, search=search)
    return {"cuda" if cuda else "torch": spec}


def _cluster(
    config: RunConfig,
    run_dir: Path,
    journal: Journal,
    should_stop: Callable[[], bool],
    on_unattended: Callable[[str, str], None],
) -> AbstractContextManager[Executor | None]:
    """Where successors are trained, None for this machine; whatever else workers do, they do here."""
    if config.executor.kind == LOCAL:
        return nullcontext()

    def node(body: Mapping[str, Any]) -> None:
        journal.record("node", dict(body))

    use = config.containment
    order = Order(
        run_id=str(journal.entries[0].body["run_id"]),
        public_key=SigningKey.load(state_dir()).public_key_hex,
        versions=versions_on_nodes(),
        zygotes=_trainers(config),
        backend=use.backend,
        allow_degraded=use.allow_degraded,
        outer_layer=use.outer_layer,
        device=config.device,
        workers=config.executor.workers,
        heartbeat_seconds=use.heartbeat_seconds,
        silence_seconds=config.executor.silence_seconds,
        idle_seconds=60 * config.executor.idle_minutes,
    )
    return closing(make_cluster(
        config.executor, order, run_dir, halt_file=run_dir / HALT_NAME, should_stop=should_stop,
        on_unattended=on_unattended, on_node=node,
    ))  # fmt: skip


def _bench(
    config: RunConfig, run_dir: Path, journal: Journal, supervisor: Supervisor, cluster: Executor | None
) -> Bench:
    """The accounts and permits as the ledger left them; what was left open is settled."""
    charges = [(body["account"], body["flops"]) for body in journal.all("charge")]
    permits = journal.all("permit")
    run_id = str(journal.entries[0].body["run_id"])
    book = PermitBook(
        run_id, SigningKey.load(state_dir()), last_counter=max((p["counter"] for p in permits), default=0)
    )
    budget = Budget.restore(config.limits.flops, lost_cap(config.limits), charges)
    known = {body["sha256"] for body in journal.all("genome")}
    settle_open(journal, budget)
    return Bench(config, run_dir, journal, supervisor, budget, book, run_id, known, cluster)
