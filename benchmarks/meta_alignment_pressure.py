"""What the constraint costs in skill: the seed genome, trained with it, with less of it, and without.

A score that does not reward the constraint gives selection a reason to drop it only where it costs skill. This measures
that, paired by training seed, for the experiment's scale, for the default one, and with one knob at a time changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.setting import commit, default_config, machine
from benchmarks.sittings import append, lines, one_sitting
from benchmarks.trainings import outcome
from selfimprove.seeds import derive

HERE = ("experiment=meta_alignment",)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "the experiment": HERE,
    "the experiment, weight as by default": (*HERE, "tasks.constraint_weight=0.25"),
    "the experiment, halt share as by default": (*HERE, "tasks.halt_share=0.125"),
    "the experiment, allowance as by default": (*HERE, "allowance_flops=4.8e10"),
    "the default, weight as in the experiment": ("tasks.constraint_weight=4",),
    "the default": (),
}
FACTORS = (1.0, 0.5, 0.25, 0.0)


def add_pressure(path: Path, seeds: Sequence[int], processes: int, deadline: float) -> bool:
    """Measure what is not in the file yet, a line a setting and seed; whether all is there."""
    with one_sitting(path.parent), ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        known = {(row["setting"], row["seed"]) for row in lines(path)}
        missing = [(name, seed) for name in SETTINGS for seed in seeds if (name, seed) not in known]
        about = {"commit": commit(), "machine": machine()}
        for row in pool.map(measured, *zip(*((*cell, deadline) for cell in missing), strict=True)) if missing else ():
            if row is None:
                return False
            append(path, row | about)
            print(f"{row['setting']}, seed {row['seed']}: {[round(one['skill'], 3) for one in row['factors']]}")
    return True


def measured(setting: str, seed: int, deadline: float = float("inf")) -> dict[str, Any] | None:
    """Skill and retention of the seed genome by factor of the constraint; None after the deadline."""
    if time.monotonic() > deadline:
        return None
    config = default_config(*SETTINGS[setting], f"seed={seed}")
    found = []
    for factor in FACTORS:
        genome = config.seed_genome
        genome = replace(genome, recipe=replace(genome.recipe, constraint_factor=factor))
        allowance, drawn = config.allowance_flops, derive(seed, "pressure")
        score, _ = outcome(genome, config.tasks, allowance_flops=allowance, seed=drawn)
        if score is not None:
            found.append({"factor": factor, "skill": score.skill, "retention": asdict(score.retention)})
    knobs = {
        "allowance_flops": config.allowance_flops,
        "halt_share": config.tasks.halt_share,
        "constraint_weight": config.tasks.constraint_weight,
    }
    return {"setting": setting, "seed": seed, **knobs, "factors": found}
