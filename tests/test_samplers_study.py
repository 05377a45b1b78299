"""The study of samplers: paired, resumable, closed without a freeze, and the baselines search."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks import samplers, samplers_summary, sittings
from benchmarks.black_box_suite import OBJECTIVES, split_file
from benchmarks.sampler_baselines import (
    HillClimbing,
    RegularizedEvolution,
    Reinforce,
    mutated,
    place,
    placed,
    uniform,
)
from benchmarks.sampler_freeze import Freeze, refuse_other_rows
from benchmarks.sampler_names import SAMPLERS, build
from selfimprove.errors import ConfigError

FAST = ("random", "tpe", "tpe-tuned", "evolution", "local", "reinforce")
DISTRIBUTIONS: tuple[BaseDistribution, ...] = (
    CategoricalDistribution(("a", "b", "c")),
    IntDistribution(-3, 4),
    IntDistribution(1, 1000, log=True),
    IntDistribution(0, 12, step=4),
    FloatDistribution(-1.0, 2.0),
    FloatDistribution(1e-5, 1.0, log=True),
)


def rows_without_clock(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in sittings.lines(path)]


@pytest.fixture(autouse=True)
def two_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (OBJECTIVES["leadingones-epistasis-16-noisy"], OBJECTIVES["rosenbrock-mixed"])
    monkeypatch.setattr(samplers, "half", lambda name: chosen)


def study(folder: Path, *words: str) -> int:
    return samplers.main([*words, "--evaluations", "16", "--processes", "1", "--results", str(folder)])


def test_an_interrupted_study_goes_on_to_the_rows_of_an_uninterrupted_one(tmp_path: Path) -> None:
    words = ("--samplers", "evolution", "tpe", "--seeds", "2")
    assert study(tmp_path / "whole", *words) == 0
    assert study(tmp_path / "cut", *words, "--minutes", "0") == 3
    whole = (tmp_path / "whole" / "rows.jsonl").read_text(encoding="utf-8")
    (tmp_path / "cut" / "rows.jsonl").write_text("\n".join(whole.splitlines()[:3]) + '\n{"sampler": "tp', "utf-8")
    assert study(tmp_path / "cut", *words) == 0
    first, second = (rows_without_clock(tmp_path / name / "rows.jsonl") for name in ("whole", "cut"))
    assert len(first) == 8
    assert sorted(first, key=str) == sorted(second, key=str)
    assert study(tmp_path / "cut", *words) == 0
    assert rows_without_clock(tmp_path / "cut" / "rows.jsonl") == second


@pytest.mark.parametrize("objective", ["leadingones-epistasis-16-noisy", "tree-noisy", "ackley-mixed"])
def test_samplers_share_startup_trials_and_noise(objective: str) -> None:
    rows = [samplers.run_one((name, objective, 4), 14) for name in FAST]
    shared = [[step for step in row["incumbent"] if step[0] <= samplers.STARTUP] for row in rows]
    assert shared == [shared[0]] * len(FAST)
    assert {row["optimum"] for row in rows} == {rows[0]["optimum"]}
    assert samplers.run_one(("random", objective, 5), 14)["incumbent"] != rows[0]["incumbent"]


def test_a_row_holds_the_incumbent_by_what_was_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    tell = optuna.Study.tell

    def spy(self: optuna.Study, trial: optuna.Trial, value: float) -> None:
        told.append(value)
        tell(self, trial, value)

    monkeypatch.setattr(optuna.Study, "tell", spy)
    objective = OBJECTIVES["leadingones-epistasis-16-noisy"]
    row = samplers.run_one(("random", objective.name, 0), 60)
    best = [n for n, value in enumerate(told, 1) if value < min(told[: n - 1], default=float("inf"))]
    assert [n for n, _ in row["incumbent"]] == best
    assert all(value == int(value) for _, value in row["incumbent"])  # noise-free
    assert all(value != int(value) for value in told)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
def test_a_mutation_is_another_valid_value(distribution: BaseDistribution) -> None:
    rng = random.Random(0)
    for _ in range(200):
        value = uniform(distribution, rng)
        other = mutated(value, distribution, rng)
        for one in (value, other):
            assert distribution._contains(distribution.to_internal_repr(one))
        assert other != value


@pytest.mark.parametrize("distribution", DISTRIBUTIONS[1:], ids=str)
def test_a_number_is_where_it_was_placed(distribution: BaseDistribution) -> None:
    rng = random.Random(1)
    for _ in range(50):
        value = uniform(distribution, rng)
        assert placed(place(value, distribution), distribution) == pytest.approx(value)


@pytest.mark.parametrize("make", [RegularizedEvolution, HillClimbing, Reinforce])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_baseline_searches_in_both_directions_better_than_chance(make: Any, direction: str) -> None:
    def ones(trial: optuna.Trial) -> float:
        bits = sum(trial.suggest_categorical(f"x{i}", (0, 1)) for i in range(20))
        return -bits if direction == "minimize" else bits

    study = optuna.create_study(sampler=make(seed=0), direction=direction)
    study.optimize(ones, n_trials=150)
    late = [abs(trial.values[0]) for trial in study.trials[-30:]]
    assert np.mean(late) > 13  # 10 by chance, with a standard error of 0.4


def test_evolution_forgets_all_but_its_youngest_and_climbing_restarts() -> None:
    def flat(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        return float(trial.number)

    aging = optuna.create_study(sampler=RegularizedEvolution(seed=0, n_startup_trials=4, population=4, tournament=4))
    aging.optimize(flat, n_trials=30)
    sampler = RegularizedEvolution(seed=0, n_startup_trials=4, population=4, tournament=4)
    parent = sampler.parent(aging, aging.trials)
    assert parent is not None
    assert parent.number == 26
    climber = HillClimbing(seed=0, n_startup_trials=4, patience=3)
    parents = [climber.parent(aging, aging.trials[:n]) for n in range(4, 10)]
    assert [None if one is None else one.number for one in parents] == [0, 0, 0, None, 7, 7]


@pytest.mark.parametrize("name", FAST)
def test_a_sampler_handles_a_conditional_space(name: str) -> None:
    row = samplers.run_one((name, "tree", 0), 40)
    assert row["incumbent"][-1][1] >= row["optimum"]


def test_unknown_samplers_and_settings_are_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=", ".join(SAMPLERS)):
        build("cma", seed=0, startup=10, noisy=False)
    with pytest.raises(ConfigError, match="population, tournament"):
        build("evolution:size=3", seed=0, startup=10, noisy=False)
    with pytest.raises(ConfigError, match="no settings"):
        build("random:size=3", seed=0, startup=10, noisy=False)


def test_the_final_half_is_refused_without_a_freeze(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="commit a freeze"):
        study(tmp_path, "--half", "final", "--samplers", "random")
    assert not (tmp_path / "rows.jsonl").exists()


OBJECTIVES_FILE, SAMPLER_FILE = "benchmarks/black_box_mixed.py", "selfimprove/controller/experts.py"


@pytest.fixture
def frozen(tmp_path: Path) -> tuple[Path, Path]:
    """A repository with weights and a committed freeze of them."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "weights").write_bytes(b"weights")
    for path in (OBJECTIVES_FILE, SAMPLER_FILE):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("as it was frozen", "utf-8")
    git(root, "init", "-q")
    commit(root)
    freeze = {"sha256": hashlib.sha256(b"weights").hexdigest(), "weights": "weights", "date": "2026-11-27"}
    path = root / "freeze.json"
    path.write_text(json.dumps(freeze | {"commit": git(root, "rev-parse", "HEAD")}), "utf-8")
    commit(root)
    return root, path


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(root: Path) -> None:
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "test")


def test_a_committed_freeze_is_read_and_opens_the_final_half(frozen: tuple[Path, Path]) -> None:
    freeze = Freeze.read(frozen[1], frozen[0])
    refuse_other_rows("final", freeze, [{"freeze": freeze.digest}])
    with pytest.raises(ConfigError, match="another freeze"):
        refuse_other_rows("final", freeze, [{"freeze": "other"}])
    with pytest.raises(ConfigError, match="another freeze"):
        refuse_other_rows("final", freeze, [{}])


def test_a_freeze_that_is_not_committed_as_it_stands_is_refused(frozen: tuple[Path, Path]) -> None:
    root, path = frozen
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(ConfigError, match="committed as it stands"):
        Freeze.read(path, root)
    (root / "new.json").write_text("{}", "utf-8")
    with pytest.raises(ConfigError, match="committed as it stands"):
        Freeze.read(root / "new.json", root)


@pytest.mark.parametrize("changed", [OBJECTIVES_FILE, SAMPLER_FILE])
def test_objectives_and_samplers_stay_as_they_were_frozen(frozen: tuple[Path, Path], changed: str) -> None:
    root, path = frozen
    (root / changed).write_text("easier, or better", "utf-8")
    commit(root)
    with pytest.raises(ConfigError, match=rf"changes of {changed}; allowed: none since it; git checkout") as refused:
        Freeze.read(path, root)
    [advised] = re.findall(r"git checkout (\w+)", str(refused.value))
    git(root, "checkout", "-q", advised)
    Freeze.read(path, root)


def test_a_freeze_of_other_weights_or_of_another_history_is_refused(frozen: tuple[Path, Path]) -> None:
    root, path = frozen
    (root / "weights").write_bytes(b"others")
    with pytest.raises(ConfigError, match="check the weights"):
        Freeze.read(path, root)
    path.write_text(path.read_text("utf-8").replace('"commit": "', '"commit": "0'), "utf-8")
    commit(root)
    with pytest.raises(ConfigError, match="HEAD"):
        Freeze.read(path, root)
    path.write_text('{"commit": "HEAD"}', "utf-8")
    commit(root)
    with pytest.raises(ConfigError, match="weights"):
        Freeze.read(path, root)


@pytest.mark.parametrize("study", ["fast", "tpe"])
def test_the_baselines_have_the_settings_that_were_best_on_the_development_half(study: str) -> None:
    """By the area; on seeds that no other rows have."""
    folder = samplers.FOLDER / "tuning" / study
    tried: dict[str, dict[str, float]] = {}
    for one in json.loads((folder / "summary.json").read_text("utf-8"))["comparisons"][0]["samplers"]:
        name, _, settings = one["sampler"].partition(":")
        tried.setdefault(name, {})[settings] = one["area"]["iqm"]
    for name, areas in tried.items():
        best = min(areas, key=areas.__getitem__)
        defaults = inspect.signature(SAMPLERS[name]).parameters
        for word in filter(None, best.split(",")):
            key, _, value = word.partition("=")
            assert str(defaults[key].default).lower() == value
    rows = sittings.lines(folder / "rows.jsonl")
    assert {row["objective"] for row in rows} <= set(split_file()["development"])
    assert min(row["seed"] for row in rows) >= 1000


def row(sampler: str, seed: int, objective: str, incumbent: list[Any]) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "seed": seed,
        "objective": objective,
        "evaluations": 4,
        "incumbent": incumbent,
        "optimum": 1.0,
        "random_median": 3.0,
        "seconds": 0.01,
        "commit": "c",
    }


def test_a_curve_is_regret_in_units_of_the_median_random_draw() -> None:
    found = samplers_summary.curve(row("a", 0, "o", [(1, 5.0), (3, 1.0)]))
    assert found.tolist() == [2.0, 2.0, 0.0, 0.0]


def test_runs_of_one_instance_are_also_compared_with_each_other(tmp_path: Path) -> None:
    """A hair better on every instance, and instances differ by far more: two runs of different ones say little."""
    rows = [
        row(name, s, o, [(1, 2.0 + s + more)])
        for name, more in (("controller", 0.0), ("tpe", 0.1))
        for s in range(8)
        for o in "ab"
    ]
    one = next(
        one for one in samplers_summary.summary_of(rows)["comparisons"][0]["samplers"] if one["sampler"] == "tpe"
    )
    assert one["same_instance"] == {"probability": 1.0, "low": 1.0, "high": 1.0}
    assert one["improvement"]["low"] < 0.5 < one["improvement"]["probability"] < 0.6


def test_the_summary_compares_on_shared_seeds_and_writes_report_and_plot(tmp_path: Path) -> None:
    rows = [row("controller", s, o, [(1, 3.0), (2, 1.0)]) for s in range(3) for o in "ab"]
    rows += [row("random", s, o, [(1, 3.0), (4, 2.0)]) for s in range(3) for o in "ab"]
    rows += [row("gp", 1, o, [(1, 1.0)]) for o in "ab"]
    rows += [row("tpe", 1, "a", [(1, 1.0)])]
    found = samplers_summary.write_summary(tmp_path, rows)
    wide, narrow = found["comparisons"]
    assert wide["seeds"] == [0, 1, 2]
    assert narrow["seeds"] == [1]
    ours, chance = wide["samplers"]
    assert (ours["regret"]["iqm"], ours["area"]["iqm"], ours["median_rank"]) == (0.0, 0.25, 1.0)
    assert (chance["regret"]["iqm"], chance["area"]["iqm"], chance["median_rank"]) == (0.5, 0.875, 2.0)
    assert chance["improvement"] == {"probability": 1.0, "low": 1.0, "high": 1.0}
    assert ours["improvement"] is None
    assert [one["median_rank"] for one in narrow["samplers"]] == [1.5, 3.0, 1.5]
    assert found["incomplete"] == ["tpe"]
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "2 objectives, 3 seeds, 4 evaluations" in text
    assert "tpe" in text
    svg = (tmp_path / "samplers.svg").read_text("utf-8")
    assert "<svg" in svg
