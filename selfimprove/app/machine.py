"""What a run needs of a machine besides containment: Python, packages, devices, disk, and the W&B login. No torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from selfimprove.app.cli import PYTHONS
from selfimprove.app.device import cuda_devices, missing_for_cuda
from selfimprove.containment.keys import KEY_FILE, SigningKey, state_dir
from selfimprove.errors import RunError

PACKAGES = ("torch", "transformer-lens", "safetensors", "scikit-learn")
SCARCE_BYTES = 64 * 2**20  # a default run keeps a tenth of this; with less, do not begin
WANDB_SECONDS = 60.0  # for W&B to be imported and asked, on a busy machine, too
_ASK_WANDB = """\
from wandb.sdk.lib.wbauth import read_netrc_auth
from wandb.sdk.wandb_setup import singleton
settings = singleton().settings
print("netrc" if read_netrc_auth(host=settings.base_url) else "settings" if settings.api_key else "")
"""  # starts no service and opens no connection


@dataclass(frozen=True)
class Problem:
    """Something that keeps a run from starting, and what to do about it."""

    what: str
    remedy: str


def python() -> tuple[str, Problem | None]:
    """The interpreter's version."""
    found, (oldest, newest) = platform.python_version(), PYTHONS
    if oldest <= sys.version_info[:2] <= newest:
        return found, None
    known = " to ".join(".".join(map(str, bound)) for bound in PYTHONS)
    return found, Problem(f"Python {found} is not supported", f"use Python {known}")


def packages() -> tuple[dict[str, str | None], list[Problem]]:
    """Versions of what the workers import, None for what is not installed. Nothing is imported."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    missing = [name for name, installed in found.items() if installed is None]
    return found, [Problem(f"{name} is not installed", f"pip install {name}, or: make setup") for name in missing]


def cuda() -> dict[str, object]:
    """Whether successors can train on a GPU, why not, and which devices the driver names."""
    missing = missing_for_cuda()
    return {"available": not missing, "why": missing, "devices": [] if missing else cuda_devices()}


def disk(folder: Path) -> tuple[dict[str, object], Problem | None]:
    """Free space where runs are kept, in bytes, and whether this user can write there."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    facts: dict[str, object] = {"folder": os.fspath(folder), "free_bytes": free, "writable": os.access(place, os.W_OK)}
    if not facts["writable"]:
        return facts, Problem(f"{folder} cannot be written", "run in another folder, or set hydra.run.dir=")
    if free < SCARCE_BYTES:
        least = f"{SCARCE_BYTES >> 20} MiB"
        return facts, Problem(f"{free >> 20} MiB are free for {folder}, a run needs {least}", "free some space")
    return facts, None


def state() -> Problem | None:
    """Whether the keys and anchors can be kept; makes nothing."""
    folder = state_dir()
    try:
        if (folder / KEY_FILE).exists():
            SigningKey.load(folder)
    except (RunError, OSError) as error:
        return Problem(f"the signing key cannot be used: {error}", "see the message")
    if not os.access(_existing(folder), os.W_OK):
        return Problem(f"{folder} cannot be written", "set SELFIMPROVE_STATE_DIR to a folder that this user can write")
    return None


def wandb_login(environment: Mapping[str, str]) -> dict[str, object]:
    """Whether W&B would find a key, and where; the key itself is never shown. No network, no import of wandb here."""
    try:
        installed: str | None = version("wandb")
    except PackageNotFoundError:
        installed = None
    source = "WANDB_API_KEY" if environment.get("WANDB_API_KEY") else None
    if source is None and installed is not None:
        source = _kept_by_wandb(environment)
    return {"version": installed, "logged_in": source is not None, "source": source}


def _kept_by_wandb(environment: Mapping[str, str]) -> str | None:
    """Where W&B keeps a key for the server that it would speak to, or None.

    It is asked in a process of its own: importing it takes a second, and which server it is has changed before.
    """
    command = [sys.executable, "-c", _ASK_WANDB]
    try:
        done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=WANDB_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
