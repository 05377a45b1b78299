from __future__ import annotations

import importlib.util
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_loop.py")


@dataclass(frozen=True)
class Answer:
    """What one invocation of the command line gave."""

    code: int
    out: str
    err: str


@pytest.fixture
def fake(monkeypatch):
    """The fake loop, in place of the real one and of the report."""
    spec = importlib.util.spec_from_file_location("selfimprove.loop.run", FAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("selfimprove.loop.run", "selfimprove.loop.reproduction"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("selfimprove.app.report.write_report", lambda *args: module.write_report(*args))
    return module


@pytest.fixture
def quiet_logging():
    """Hydra configures the root logger: put it back, close its files."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(before[0]):
        root.removeHandler(handler)
        handler.close()
    root.handlers[:], root.level = before


@pytest.fixture
def cli(fake, quiet_logging, tmp_path, monkeypatch, capsys):
    """Invoke the command line in an empty folder, with the fake loop."""
    from rich import reconfigure

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SELFIMPROVE_DEBUG", raising=False)
    monkeypatch.setenv("SELFIMPROVE_STATE_DIR", str(tmp_path / "state"))

    def invoke(*words):
        from selfimprove.app.cli import main

        capsys.readouterr()
        reconfigure(width=120)  # rich's global console holds on to no stream, but to its first width
        try:
            code = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        caught = capsys.readouterr()
        return Answer(code, caught.out, caught.err)

    return invoke


@pytest.fixture
def finished(cli, tmp_path):
    """The folder of one finished run of the fake loop."""
    answer = cli("run", "debug=micro", "hydra.run.dir=runs/micro/first")
    assert answer.code == 0, answer.err
    return tmp_path / "runs" / "micro" / "first"
