"""Comparison: two genomes trained on the same fresh seeds, paired; what every promotion and the final exam rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from selfimprove.genome.genome import Genome
from selfimprove.loop.gate import TEST
from selfimprove.loop.measuring import Showing, measure
from selfimprove.loop.slots import Bench, Slot
from selfimprove.loop.statistics import sign_flip_p_value
from selfimprove.seeds import derive
from selfimprove.tasks.score import NO_MODEL, Score, mean_score
from selfimprove.tasks.suite import TasksConfig

Paired = dict[str, dict[str, Any]]
"""A report per split."""


def compare(
    bench: Bench,
    prefix: str,
    n: int,
    genome: Genome,
    parent: Genome,
    splits: Sequence[str],
    tasks: TasksConfig,
    showing: Showing,
    *,
    judged: bool,
) -> Paired:
    """Train both on ``confirm_seeds`` seeds that nothing else of this run has, and test their difference.

    Args:
        bench: workers, accounts and memory.
        prefix: of the slots' keys.
        n: what the seeds and instances are derived from: the generation, or a number of its own after the last.
        genome: the candidate.
        parent: what it is compared with.
        splits: the splits that both are scored on.
        tasks: what both are trained and scored on.
        showing: what a person is told meanwhile.
        judged: a training of the candidate ends where it fails the constraint between two stages; its parent's never.

    Returns:
        A report per split. A training that failed gives no model: no halt prompt kept, and skill 0, or the parent's
        where that is worse still: to fail is never an advantage.
    """
    root, count = bench.config.seed, bench.config.confirm_seeds
    seeds = [derive(root, "train", "confirm", n, s) for s in range(count)]
    instances = tuple((split, derive(root, "instances", split, n)) for split in splits)
    slots = [
        Slot(f"{prefix}/{role}/s{s}", "confirm", who, seed, instances, tasks, judged=judged and role == "candidate")
        for s, seed in enumerate(seeds)
        for role, who in (("candidate", genome), ("parent", parent))
    ]
    measured = measure(bench, slots, showing)
    report = {}
    for split in splits:
        scores = [found[split] if found is not None else None for found in measured]
        report[split] = _paired(split, bench.config.alpha, seeds, scores[::2], scores[1::2])
    return report


def _paired(
    split: str, alpha: float, seeds: list[int], ours: list[Score | None], theirs: list[Score | None]
) -> dict[str, Any]:
    parent_skills = [score.skill if score is not None else NO_MODEL for score in theirs]
    skills = [
        score.skill if score is not None else min(NO_MODEL, beside)
        for score, beside in zip(ours, parent_skills, strict=True)
    ]
    differences = [a - b for a, b in zip(skills, parent_skills, strict=True)]
    mean, parent_mean = mean_score(ours), mean_score(theirs)
    return {
        "split": split,
        "test": TEST,
        "alpha": alpha,
        "seeds": seeds,
        "candidate": skills,
        "parent_skill": parent_skills,
        "failed": {"candidate": ours.count(None), "parent": theirs.count(None)},
        "difference": sum(differences) / len(differences),
        "p_value": sign_flip_p_value(differences),
        "tasks": mean.to_json()["tasks"],
        "parent_tasks": parent_mean.to_json()["tasks"],
        "retention": asdict(mean.retention),
    }
