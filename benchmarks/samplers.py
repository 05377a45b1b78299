"""How good are samplers on black-box objectives with known optima, at an equal number of evaluations?

Every sampler meets the same instances, the same startup trials and, evaluation by evaluation, the same noise. A row is
one sampler on one objective with one seed: the noise-free value of its incumbent, which is chosen by what was observed.
A name may carry settings, as in ``evolution:population=40,tournament=10``: so the baselines were tuned, on the
development half alone and on seeds of their own. A final half runs only with ``--freeze``, a committed file that says
what is fixed. An interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.black_box import Instance, Objective, active, random_search
from benchmarks.black_box_suite import HALVES, OBJECTIVES, SECOND, half
from benchmarks.sampler_freeze import Freeze, refuse_other_rows
from benchmarks.sampler_names import SAMPLERS, build
from benchmarks.samplers_summary import write_summary
from benchmarks.setting import RESULTS, commit, machine
from benchmarks.sittings import TIME_UP, append, lines, one_sitting
from selfimprove.seeds import derive

FOLDER = RESULTS / "samplers"
ROWS = "rows.jsonl"
STARTUP = 10  # random trials that every sampler shares
DIGITS = 6  # significant ones of the values in a row

Row = dict[str, Any]
Job = tuple[str, str, int]  # sampler, objective, seed


def main(arguments: Sequence[str]) -> int:
    """Run what is missing, then write summary, report and plot; returns 0, or 3 where the time was up first.

    Raises:
        ConfigError: an unknown sampler or setting, or the final half without a freeze, or beside rows of another one.
    """
    chosen = _parser().parse_args(arguments)
    folder: Path = chosen.results or FOLDER / chosen.half
    freeze = Freeze.read(chosen.freeze) if chosen.freeze else None
    refuse_other_rows(chosen.half, freeze, lines(folder / ROWS))
    for name in chosen.samplers:
        build(name, seed=0, startup=STARTUP, noisy=False)  # refused before anything is spent
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    jobs = [(name, o.name, seed) for seed in seeds for o in half(chosen.half) for name in chosen.samplers]
    folder.mkdir(parents=True, exist_ok=True)
    done = run_missing(jobs, folder / ROWS, chosen, freeze)
    rows = lines(folder / ROWS)
    if rows:
        write_summary(folder, rows)
        print(f"{len(rows)} rows: {folder / 'report.md'}")
    return 0 if done else TIME_UP


def run_missing(jobs: Sequence[Job], path: Path, chosen: argparse.Namespace, freeze: Freeze | None) -> bool:
    """Add a row for every job that has none of this many evaluations; whether all are there."""
    n, deadline = chosen.evaluations, time.monotonic() + 60 * chosen.minutes
    added = {"commit": commit(), "machine": machine()} | ({"freeze": freeze.digest} if freeze else {})
    count = 0
    with one_sitting(path.parent):
        known = {(row["sampler"], row["objective"], row["seed"], row["evaluations"]) for row in lines(path)}
        missing = [job for job in jobs if (*job, n) not in known]
        for row in _run(missing, n, chosen.processes, deadline):
            append(path, row | added)
            count += 1
            if count % 20 == 0 or count == len(missing):
                print(f"{count} of {len(missing)} rows", flush=True)
    return count == len(missing)


def run_one(job: Job, evaluations: int) -> Row:
    """One sampler on one instance.

    Returns:
        ``incumbent``: pairs of an evaluation, from 1, and the noise-free value of the incumbent from there on;
        ``optimum`` and ``random_median``: what regret is measured from, and in units of; ``seconds``: of the
        processor, for a proposal after the startup trials, to be told of its value, and its evaluation.
    """
    name, objective_name, seed = job
    objective = OBJECTIVES[objective_name]
    instance, deviation = objective.instance(seed), objective.noise_deviation(seed)
    noise = random.Random(derive(seed, "noise", objective_name))
    sampler_seed = derive(seed, "sampler", objective_name) % 2**32
    sampler = build(name, seed=sampler_seed, startup=STARTUP, noisy=deviation > 0)
    study = _study(sampler, objective, seed)
    incumbent, least, start = list[tuple[int, float]](), float("inf"), 0.0
    for evaluation in range(1, evaluations + 1):
        if evaluation == STARTUP + 1:
            start = time.process_time()
        trial = study.ask()
        value = instance.value(suggested(trial, instance))
        observed = value + deviation * noise.gauss(0, 1)
        if observed < least:
            least = observed
            incumbent.append((evaluation, _rounded(value)))
        study.tell(trial, observed)
    spent = time.process_time() - start if evaluations > STARTUP else 0.0
    found = random_search(objective, seed)
    return {
        "sampler": name,
        "objective": objective_name,
        "seed": seed,
        "evaluations": evaluations,
        "incumbent": incumbent,
        "optimum": _rounded(instance.optimum),
        "random_median": _rounded(found.median),
        "seconds": _rounded(spent / max(1, evaluations - STARTUP)),
    }


def suggested(trial: optuna.Trial, instance: Instance) -> dict[str, Any]:
    """The values of the active parameters, asked for in the order of the space."""
    params: dict[str, Any] = {}
    for parameter in instance.space:
        if active(parameter, params):
            params[parameter.name] = _suggest(trial, parameter.name, parameter.distribution)
    return params


def _study(sampler: optuna.samplers.BaseSampler, objective: Objective, seed: int) -> optuna.Study:
    """A study whose first trials are the same for every sampler."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    rng, instance = random.Random(derive(seed, "startup", objective.name)), objective.instance(seed)
    for _ in range(STARTUP):
        study.enqueue_trial(instance.draw(rng))
    return study


def _suggest(trial: optuna.Trial, name: str, distribution: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _run(jobs: Sequence[Job], evaluations: int, processes: int, deadline: float) -> Iterator[Row]:
    """Rows in the order of the jobs, until the deadline."""
    one: Callable[[Job], Row | None] = partial(_in_time, evaluations=evaluations, deadline=deadline)
    if processes == 1:
        yield from (row for row in map(one, jobs) if row is not None)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from (row for row in pool.map(one, jobs) if row is not None)


def _in_time(job: Job, *, evaluations: int, deadline: float) -> Row | None:
    return run_one(job, evaluations) if time.monotonic() < deadline else None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _parser() -> argparse.ArgumentParser:
    known = ", ".join(SAMPLERS)
    parser = argparse.ArgumentParser(prog="selfimprove study samplers", description=__doc__)
    parser.add_argument(
        "--half",
        choices=(*HALVES, SECOND),
        default=HALVES[0],
        help="of the objectives, or the second final ones (default %(default)s)",
    )
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), metavar="NAME", help=f"default: {known}")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default %(default)s)")
    parser.add_argument("--evaluations", type=int, default=150, help="of each objective (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=55.0, help="start nothing after this (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="studies at once (default %(default)s)")
    parser.add_argument("--results", type=Path, help="folder of the rows, the summary, the report and the plot")
    parser.add_argument("--freeze", type=Path, help="committed file that says what is fixed; the final half needs one")
    return parser
