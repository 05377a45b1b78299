"""The study of grokking: it goes on where it stopped, keeps what it trained, and what is committed bears its claims."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import grokking
from benchmarks.grokking_summary import PAPER, read, read_curves, table
from benchmarks.grokking_training import Setting, Training, genome, kept, training_pairs
from benchmarks.setting import RESULTS
from interp.addition import answers, equation
from selfimprove.errors import ConfigError
from selfimprove.genome.space import Space

FOLDER = RESULTS / "grokking"
TINY = ["--modulus", "11", "--fraction", "0.5", "--steps", "40"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings and snapshots after few steps, and a clock that moves by a second whenever it is asked."""
    monkeypatch.setattr(grokking, "READ_EVERY", 10)
    monkeypatch.setattr(grokking, "SNAPSHOT_EVERY", 20)
    monkeypatch.setattr(grokking, "time", SimpleNamespace(monotonic=count().__next__))


def study(folder: Path, minutes: str) -> int:
    return grokking.main([*TINY, "--minutes", minutes, "--results", str(folder)])


@pytest.mark.usefixtures("few")
def test_a_study_in_two_sittings_is_the_one_that_was_not_interrupted(tmp_path: Path) -> None:
    name, sittings = "curves-p11-0.jsonl", 1
    while study(tmp_path / "twice", "0.8") == grokking.TIME_UP:
        sittings += 1
    assert sittings == 2
    assert study(tmp_path / "once", "60") == 0
    (_, once), (_, twice) = (read_curves(tmp_path / which / name) for which in ("once", "twice"))
    assert once == twice
    assert [row["step"] for row in once] == [0, 10, 20, 30, 40]
    assert sorted(path.name for path in (tmp_path / "twice").iterdir()) == [
        name,
        "summary.json",
        "summary.md",
        "weights-p11-0.safetensors",
    ]
    assert study(tmp_path / "once", "0") == 0  # nothing is left to do


@pytest.mark.usefixtures("few")
def test_results_of_another_setting_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    assert study(tmp_path, "60") == 0
    with pytest.raises(ConfigError, match="--results"):
        grokking.main([*TINY, "--fraction", "0.4", "--results", str(tmp_path)])


def test_the_weights_that_are_kept_give_the_logits_that_were_trained() -> None:
    training = Training(Setting(11, 0.5, 40, 0), "cpu")
    step = training.stepper(eager=False)
    for _ in range(20):
        step()
    model = kept(training.weights(), 11)
    trained = training.logits()
    assert trained.abs().max() > 1
    assert torch.allclose(answers(model, equation(11)), trained, atol=1e-5)


def test_the_genome_is_one_of_the_space() -> None:
    Space().validate(genome())


def test_without_a_gpu_the_study_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA GPU"):
        grokking.main(["--device", "cuda", "--results", str(tmp_path)])


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))
    return found


def runs(modulus: int) -> list[dict[str, Any]]:
    return [run for run in committed()["runs"] if run["setting"]["modulus"] == modulus]


def test_at_the_papers_setting_all_seeds_memorize_first_and_generalize_much_later() -> None:
    found = runs(PAPER["modulus"])
    assert len(found) == 3
    for run in found:
        assert (run["setting"]["fraction"], run["setting"]["steps"]) == (PAPER["fraction"], PAPER["steps"])
        assert run["grokked"] > 10 * run["memorized"]
        assert run["test_accuracy"] == 1.0
        assert run["losses"]["full_test"] < 1e-4


def test_a_few_key_frequencies_alone_do_better_than_the_whole_network() -> None:
    found = [run for run in committed()["runs"] if run["read_from"] == "weights"]
    assert {run["setting"]["modulus"] for run in found} == {59, 113}
    for run in found:
        losses = run["losses"]
        assert 2 <= len(run["key"]) <= 6
        assert run["explained"] > 0.9
        assert losses["restricted_test"] < losses["full_test"]
        assert losses["restricted_all"] < losses["full_all"]
        assert losses["excluded_train"] > 1e6 * losses["full_train"]


@pytest.mark.parametrize("name", ["p59-0", "p113-0"])
def test_the_committed_weights_bear_the_committed_figures(name: str) -> None:
    [run] = [run for run in committed()["runs"] if run["name"] == name]
    data = (FOLDER / f"weights-{name}.safetensors").read_bytes()
    setting = Setting(**run["setting"])
    spectra, measured = read(data, genome(), setting.modulus, training_pairs(setting))
    assert list(spectra["logits"].key) == list(measured.frequencies) == run["key"]
    assert list(spectra["embedding"].key) == run["embedding_key"]
    assert measured.explained == pytest.approx(run["explained"], rel=1e-3)
    for name, loss in run["losses"].items():
        assert measured.losses[name] == pytest.approx(loss, rel=0.05), name


def test_the_restricted_loss_falls_before_the_test_loss_does() -> None:
    """Where it was read by the frequencies of the finished network at every snapshot."""
    _, rows = read_curves(FOLDER / "curves-p59-0.jsonl")
    read_rows = [row for row in rows if "restricted_test" in row]
    early = next(row for row in read_rows if row["restricted_test"] < 0.5 * read_rows[0]["restricted_test"])
    late = next(row for row in read_rows if row["test_loss"] < 0.5 * read_rows[0]["test_loss"])
    assert early["step"] < late["step"]


def test_the_committed_table_is_that_of_the_committed_summary() -> None:
    assert (FOLDER / "summary.md").read_text(encoding="utf-8") == table(committed())
