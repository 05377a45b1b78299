"""Whole runs at micro scale, through the command line, in folders of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MICRO = ("experiment=quick", "debug=micro", "device=cpu")


@dataclass(frozen=True)
class Place:
    """A folder to run in, with its own state folder."""

    folder: Path
    micro: tuple[str, ...] = MICRO

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SELFIMPROVE_STATE_DIR": str(self.folder / "state")}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "selfimprove.app.cli", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, as a shell gives every command that a person types
        )

    def call(self, *arguments: str, expect: int = 0) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == expect, output
        return output

    def status(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("status", run, "--json"))
        return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished micro run in the folder ``whole``."""
    place = Place(tmp_path_factory.mktemp("micro"))
    place.call("run", *MICRO, "hydra.run.dir=whole")
    return place
