"""The workers of a whole run, seen from outside, and one of them frozen while it trains."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

import psutil


def command(process: psutil.Process | None) -> str:
    """What a process runs; nothing of a dead one, which a zombie is too."""
    try:
        dead = process is None or process.status() == psutil.STATUS_ZOMBIE
        return "" if dead or process is None else " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def workers_of(main: psutil.Process) -> list[psutil.Process]:
    """The workers that are not dead: children of zygotes, whose own parent is the supervisor or an outer layer."""
    found = []
    for process in main.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if _is_zygote(process) and _is_zygote(process.parent()):
                found.append(process)
    return found


def freeze_in_training(process: subprocess.Popen[str], ledger: Path, permits: int = 0) -> psutil.Process:
    """Stop one worker while its permit is open: a training of a test's scale would be over before anything is done.

    Args:
        process: the run.
        permits: how many the ledger held before the run was started or resumed.
    """
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if count(ledger, "permit") > permits and _is_training(ledger):
            for worker in workers_of(psutil.Process(process.pid)):
                if _froze(worker, ledger):
                    return worker
        time.sleep(0.01)
    raise TimeoutError("no worker was seen to train")


def count(ledger: Path, kind: str) -> int:
    """Records of one kind, the one that is being written included."""
    return ledger.read_bytes().count(f'"kind":"{kind}"'.encode()) if ledger.exists() else 0


def _froze(worker: psutil.Process, ledger: Path) -> bool:
    """Stop a worker, and look whether it was one that trains: then its permit stays open."""
    if "selfimprove.training.worker" not in command(worker):
        return False  # the canary of another zygote
    with contextlib.suppress(psutil.NoSuchProcess):
        worker.suspend()
        time.sleep(0.2)
        if _is_training(ledger) and worker.status() == psutil.STATUS_STOPPED:
            return True
        worker.resume()
    return False


def _is_training(ledger: Path) -> bool:
    return count(ledger, "permit") > count(ledger, "charge")


def _is_zygote(process: psutil.Process | None) -> bool:
    """True for zygotes and the workers that they forked; not for bubblewrap, whose command line goes on like theirs."""
    words = command(process)
    return "zygote" in words and "bwrap" not in words.split()[0]
