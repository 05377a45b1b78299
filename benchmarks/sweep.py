"""Tune the seed genome: learning rate and batch, at the default allowance, before any search starts.

An untuned seed would flatter the search: whatever raised its learning rate would look like a discovery. Every pair of
the grid is trained with the same seeds and scored on the search split, by the code that the loop uses. The trials live
in an Optuna journal, so an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.setting import RESULTS, default_config, machine
from benchmarks.trainings import outcome
from selfimprove.genome.fields import FIELDS
from selfimprove.genome.genome import seed_genome
from selfimprove.seeds import derive
from selfimprove.tasks.score import NO_MODEL

# what proposals draw from, where a seed genome of this size could do well
LEARNING_RATES = tuple(v for v in FIELDS["recipe.learning_rate"].choices if isinstance(v, float) and v >= 1e-3)
OFFERED = tuple(v for v in FIELDS["recipe.batch"].choices if isinstance(v, int) and v <= 64)
BATCHES = (4, *OFFERED)  # 4 to know what the space leaves out
FOLDER = RESULTS / "sweep"


def main(arguments: Sequence[str]) -> int:
    """Run or resume the sweep and write ``summary.json``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="selfimprove study sweep", description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="training seeds of every pair (default %(default)s)")
    parser.add_argument("--root", type=int, default=0, help="root of those seeds (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once (default %(default)s)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of journal and summary")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {"learning_rate": LEARNING_RATES, "batch": BATCHES}
    sampler = optuna.samplers.GridSampler(space, seed=chosen.root)
    study = optuna.create_study(
        study_name=f"seed-{chosen.root}-{chosen.seeds}",
        storage=JournalStorage(JournalFileBackend(str(chosen.results / "journal.log"))),
        sampler=sampler,
        direction="maximize",
        load_if_exists=True,
    )
    with ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:

        def objective(trial: optuna.Trial) -> float:
            rate = trial.suggest_categorical("learning_rate", LEARNING_RATES)
            batch = trial.suggest_categorical("batch", BATCHES)
            jobs = [(rate, batch, derive(chosen.root, "sweep", s)) for s in range(chosen.seeds)]
            skills = list(pool.map(skill_of, jobs))
            trial.set_user_attr("skills", skills)
            print(f"lr {rate:<6g} batch {batch:<3d} skill {mean(skills):.4f} ± {stdev(skills):.4f}", flush=True)
            return mean(skills)

        if not sampler.is_exhausted(study):
            study.optimize(objective)
    summary = summarize(study, chosen.seeds, chosen.root)
    path = chosen.results / "summary.json"
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"best: learning rate {summary['learning_rate']:g}, batch {summary['batch']}; written to {path}")
    return 0


def skill_of(job: tuple[float, int, int]) -> float:
    """Mean search-split skill of the seed genome with one learning rate, batch and training seed.

    One torch thread; called in a process of its own.
    """
    rate, batch, seed = job
    genome = seed_genome(learning_rate=rate, batch=batch)
    config = default_config()
    score, _ = outcome(genome, config.tasks, allowance_flops=config.allowance_flops, seed=seed)
    return score.skill if score is not None else NO_MODEL


def summarize(study: optuna.Study, seeds: int, root: int) -> dict[str, Any]:
    """Every pair with its skills, the best by mean skill first."""
    done = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    rows = {
        (t.params["learning_rate"], t.params["batch"]): {
            "learning_rate": t.params["learning_rate"],
            "batch": t.params["batch"],
            "skill": t.value,
            "skills": t.user_attrs["skills"],
        }
        for t in done
    }
    ranked = sorted(rows.values(), key=lambda row: -float(row["skill"] or 0.0))
    best = next(row for row in ranked if row["batch"] in OFFERED)
    config = default_config()
    return {
        "learning_rate": best["learning_rate"],
        "batch": best["batch"],
        "seeds": seeds,
        "root": root,
        "split": "search",
        "batches_of_the_space": list(OFFERED),
        "allowance_flops": config.allowance_flops,
        "tasks": {
            "families": list(config.tasks.families),
            "vocab_size": config.tasks.vocab_size,
            "context": config.tasks.context,
        },
        "machine": machine(),
        "pairs": ranked,
    }
