"""What does successive halving save, and what does it miss?

For each root seed a generation of random candidates of the seed genome is trained to the end, every one of them, and
scored at each rung. The same scores then say which candidate halving would have chosen, and at what cost. The regret is
the cross-entropy of its choice minus that of the best of all, in nats, both at the end of their trainings on instances
that neither was chosen on. Roots are independent; an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.setting import RESULTS, commit, default_config, machine
from benchmarks.trainings import scores
from selfimprove.containment.policy import assess
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.random_search import draw_edits
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space
from selfimprove.loop.config import RunConfig
from selfimprove.loop.halving import judge
from selfimprove.loop.stages import STAGES
from selfimprove.nets.cost import Quote, quote
from selfimprove.seeds import derive
from selfimprove.tasks.score import Score, mean_score

FOLDER = RESULTS / "halving"
PARTS = tuple(STAGES.values())
LAST = len(PARTS) - 1
TIME_UP = 3


def main(arguments: Sequence[str]) -> int:
    """Run the roots that are not in ``roots.jsonl`` yet; returns 3 if the time was up first."""
    parser = argparse.ArgumentParser(prog="selfimprove study halving", description=__doc__)
    parser.add_argument("--roots", type=int, default=20, help="generations in all (default %(default)s)")
    parser.add_argument("--candidates", type=int, default=9, help="candidates of each (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=55.0, help="start no root after this (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once (default %(default)s)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of roots.jsonl and summary.json")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    deadline, path = time.monotonic() + 60 * chosen.minutes, chosen.results / "roots.jsonl"
    known = {row["root"] for row in _rows(path)}
    with ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        for root in (root for root in range(chosen.roots) if root not in known):
            if time.monotonic() > deadline:
                break
            row = one_root(root, chosen.candidates, pool)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            share = f"{row['flops_share']:.2f} of the FLOPs"
            print(f"root {root}: regret {row['regret_nats']:.4f} nats, {share}", flush=True)
    return summarize(chosen.results, chosen.roots)


def one_root(root: int, count: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Train a generation to the end and look what halving would have made of it."""
    config = default_config()
    genomes = candidates_of(config, root, count)
    seeds = config.search_seeds
    jobs = [(genome, s) for genome in genomes for s in range(seeds)]
    found = list(pool.map(partial(_scores, root), jobs))
    ladders = {index: _ladder(found[index * seeds : (index + 1) * seeds]) for index in range(count)}
    at_rungs = {index: {rung: score.skill for rung, (score, _) in ladder.items()} for index, ladder in ladders.items()}
    whole = {index: at_rungs[index][LAST] for index in at_rungs if LAST in at_rungs[index]}
    trained, chosen = play(at_rungs, config, root)
    best = max(whole, key=lambda index: (whole[index], -index))
    nats = {index: _nats(ladders[index][LAST][1]) for index in whole}
    prices = [_price(config, genome).flops for genome in genomes]
    return {
        "root": root,
        "candidates": [genome.short for genome in genomes],
        "skills": [list(by_rung.values()) for by_rung in at_rungs.values()],
        "nats": nats,
        "chosen": chosen,
        "best": best,
        "regret_nats": nats[chosen] - nats[best],
        "flops_share": sum(float(part) * prices[index] for index, part in trained.items()) / sum(prices),
        "commit": commit(),
        **machine(),
    }


def play(at_rungs: dict[int, dict[int, float]], config: RunConfig, root: int) -> tuple[dict[int, Fraction], int]:
    """How far each candidate is trained, and which one is chosen, by halving without an audit."""
    going, trained = set(at_rungs), dict[int, Fraction]()
    for rung, part in enumerate(PARTS):
        trained |= dict.fromkeys(going, part)
        going = {index for index in going if rung in at_rungs[index]}  # the others failed on the way
        if rung < LAST:
            reported = {index: {r: at_rungs[index][r] for r in range(rung + 1)} for index in going}
            seed = derive(root, "rung", rung)
            going = set(judge(reported, keep=config.halving.keeps[rung], audit=0.0, exempt=(), seed=seed).kept)
    return trained, max(going, key=lambda index: (at_rungs[index][LAST], -index))


def candidates_of(config: RunConfig, root: int, count: int) -> list[Genome]:
    """Distinct random candidates of the seed genome that the loop would have admitted."""
    from selfimprove.nets.screening import screen

    space, rng = Space(config.space), random.Random(derive(root, "halving"))
    grammar, found = Grammar(space), dict[str, Genome]()
    while len(found) < count:
        _, child = draw_edits(grammar, config.seed_genome, rng)
        price = _price(config, child)
        affordable = price.steps >= 9 and assess(price, config.limits, device="cpu") is None
        if affordable and screen(child.objective.expression, 0).ok:
            found.setdefault(child.sha256, child)
    return list(found.values())


def summarize(results: Path, roots: int) -> int:
    """Write and print ``summary.json``; returns the exit code."""
    rows = _rows(results / "roots.jsonl")
    regrets = [row["regret_nats"] for row in rows]
    summary = {
        "n": len(rows),
        "of": roots,
        "regret_nats": {"mean": fmean(regrets), "median": median(regrets), "most": max(regrets)} if rows else None,
        "same_choice": sum(row["chosen"] == row["best"] for row in rows),
        "flops_share": fmean(row["flops_share"] for row in rows) if rows else None,
        "commits": sorted({row["commit"] for row in rows}),
        "machine": machine(),
    }
    (results / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=2))
    return TIME_UP if len(rows) < roots else 0


def _scores(root: int, job: tuple[Genome, int]) -> list[list[Score]]:
    """Scores of one training at each rung: on the instances that are chosen on, and on others."""
    genome, s = job
    instances = (derive(root, "halving", "steering"), derive(root, "halving", "others"))
    seed = derive(root, "halving", "train", s)
    config = default_config()
    return scores(
        genome, config.tasks, allowance_flops=config.allowance_flops, seed=seed, instances=instances, parts=PARTS
    )


def _ladder(by_seed: Sequence[list[list[Score]]]) -> dict[int, tuple[Score, Score]]:
    """Mean scores by rung, as far as every training seed came."""
    reached = min(len(mine) for mine in by_seed)
    return {
        rung: (mean_score([mine[rung][0] for mine in by_seed]), mean_score([mine[rung][1] for mine in by_seed]))
        for rung in range(reached)
    }


def _price(config: RunConfig, genome: Genome) -> Quote:
    tasks = config.tasks
    return quote(genome, vocab_size=tasks.vocab_size, context=tasks.context, allowance_flops=config.allowance_flops)


def _nats(score: Score) -> float:
    return fmean(family.cross_entropy for family in score.tasks.values())


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
