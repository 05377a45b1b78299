"""The report in a real browser: the script runs, and nothing is blocked or reported on the console."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from selfimprove.app.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The page of the synthetic run after its script has run, with the browser's log."""
    path = Path(__file__).with_name("report_fixture.py")
    spec = importlib.util.spec_from_file_location("report_fixture", path)
    assert spec is not None
    assert spec.loader is not None
    fixture = importlib.util.module_from_spec(spec)
    sys.modules["report_fixture"] = fixture
    spec.loader.exec_module(fixture)
    page = write_report(fixture.full_run().write(tmp_path_factory.mktemp("run")))
    profile = tmp_path_factory.mktemp("profile")
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"{page.as_uri()}?theme=dark"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def test_the_script_runs_under_the_content_policy(opened: subprocess.CompletedProcess[str]) -> None:
    assert "50 of 50 shown" in opened.stdout
    assert 'data-theme="dark"' in opened.stdout


def test_nothing_is_reported_on_the_console(opened: subprocess.CompletedProcess[str]) -> None:
    assert "CONSOLE" not in opened.stderr
    assert "Content Security Policy" not in opened.stderr


def test_hostile_ledger_text_stays_text_in_the_document(opened: subprocess.CompletedProcess[str]) -> None:
    assert opened.stdout.count("<script") == 1
