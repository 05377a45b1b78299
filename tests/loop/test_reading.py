"""A real run folder opens for a person: report, notebook, and the README's line."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from interp import generations, load_generation
from selfimprove.app.report import write_report

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_dir(finished: Any) -> Path:
    """The finished run, to be read only."""
    return Path(finished.folder / "whole")


def test_every_generation_of_a_run_opens_with_its_inspection_and_its_cache(run_dir: Path) -> None:
    kept = generations(run_dir)
    assert kept == (0, 1, 2)
    for number in kept:
        g = load_generation(run_dir, number)
        _, cache = g.model.run_with_cache(g.tokens)
        assert g.inspection is not None
        assert (g.promoted is None) == (not g.edits) == (number == 0)
        assert "ln_final.hook_normalized" in cache.cache_dict


def test_the_tour_runs_on_a_run(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SELFIMPROVE_RUN", os.fspath(run_dir))
    runpy.run_path(os.fspath(ROOT / "interp" / "notebooks" / "tour.py"))
    shown = capsys.readouterr().out
    assert shown.startswith(f"generation 2 of {run_dir}, genome ")
    assert re.search(r"^ +halted +blocks\.\d +all +[01]\.\d\d +[01]\.\d\d ", shown, flags=re.MULTILINE)
    assert re.search(r"^ +mqar +blocks\.\d +[01]\.\d+ +-\d+\.\d+$", shown, flags=re.MULTILINE)


def test_the_line_of_the_readme_runs_as_it_stands(run_dir: Path, tmp_path: Path) -> None:
    [code] = re.findall(r'^python -c "(.*interp.*)"$', (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "latest").symlink_to(run_dir)
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120).stdout
    assert shown.startswith("generation 1 of runs/latest, genome ")


def test_the_report_of_a_run_names_every_candidate_and_draws_every_section(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes((run_dir / "ledger.jsonl").read_bytes())
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert all(f'<tr id="g{generation}c{index:02d}"' in page for generation in (1, 2) for index in (0, 1))
    assert "Nothing recorded yet" not in page
    assert "Probe accuracy: halted" in page
    assert "could not be read" not in page
