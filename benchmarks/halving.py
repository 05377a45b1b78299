"""What does successive halving save, and what does it miss?

For each root seed a generation of random candidates of the seed genome is trained to the end, every one of them, and
read on the way as the loop reads them. The same readings then say which candidate halving would have chosen, and at
what cost. The regret is the cross-entropy of its choice minus that of the best of all, in nats, both at the end of
their trainings on instances that neither was chosen on. What the file holds is what was read: how halving judges it
can be varied without training anything again, and a summary varies how far it looks ahead. Roots are independent; an
interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.setting import RESULTS, commit, default_config, machine, machines, tasks_described
from benchmarks.sittings import TIME_UP, append, lines, one_sitting
from benchmarks.trainings import Exam, scores
from selfimprove.containment.policy import assess
from selfimprove.controller.grammar import Grammar
from selfimprove.controller.random_search import draw_edits
from selfimprove.genome.genome import Genome
from selfimprove.genome.space import Space, SpaceConfig
from selfimprove.loop.config import HalvingConfig, RunConfig
from selfimprove.loop.halving import Reported, foreseen, judge, pruner_of
from selfimprove.loop.stages import RUNGS, STAGES
from selfimprove.nets.cost import Quote, quote
from selfimprove.seeds import derive
from selfimprove.tasks.score import Score

FOLDER = RESULTS / "halving"
PARTS = tuple(STAGES.values())
LAST = PARTS[-1]
ROOTS = "root seeds, TO left out; the loop's own numbers were chosen on some below 100 (default 100 140)"
NOTICEABLE = 0.02  # nats of regret
AHEAD = (0.0, 0.1, 0.15, 0.2, 0.25)  # other distances to look ahead that a summary tries


def main(arguments: Sequence[str]) -> int:
    """Train the roots that are not in ``roots.jsonl`` yet; returns 0, or 3 where the time was up first."""
    parser = argparse.ArgumentParser(prog="selfimprove study halving", description=__doc__)
    parser.add_argument("--roots", type=int, nargs=2, default=[100, 140], metavar=("FROM", "TO"), help=ROOTS)
    parser.add_argument("--minutes", type=float, default=55.0, help="start no root after this (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="trainings at once (default %(default)s)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of roots.jsonl and summary.json")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    deadline, path, roots = time.monotonic() + 60 * chosen.minutes, chosen.results / "roots.jsonl", range(*chosen.roots)
    with one_sitting(chosen.results), ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        known = known_roots(path)
        for root in (root for root in roots if root not in known):
            if time.monotonic() > deadline:
                break
            append(path, one_root(root, pool))
            print(f"root {root} is trained", flush=True)
    known = known_roots(path)
    if known:
        summary = summarize([known[root] for root in sorted(known)], default_config())
        (chosen.results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(summary, indent=1))
    return 0 if set(roots) <= set(known) else TIME_UP


def setting() -> dict[str, Any]:
    """All that the readings depend on but the root and the code."""
    config = default_config()
    return {
        "candidates": config.candidates,
        "seeds": config.search_seeds,
        "seed_genome": config.seed_genome.sha256,
        "allowance_flops": config.allowance_flops,
        "tasks": tasks_described(config.tasks),
        "stage_sequences": config.inspection.stage_sequences,
        "rungs": list(STAGES),
        "space": asdict(config.space),
    }


def known_roots(path: Path) -> dict[int, dict[str, Any]]:
    """Roots of earlier sittings in today's setting."""
    today = json.loads(json.dumps(setting()))
    return {row["root"]: row for row in lines(path) if _completed(row["setting"]) == today}


def _completed(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting with what spaces have learned since: the default of a key that it lacks is what was done then."""
    return {**setting, "space": asdict(SpaceConfig()) | setting["space"]}


def one_root(root: int, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Train a generation to the end; what was read of each candidate on the way and at the end."""
    config = default_config()
    genomes, seeds = candidates_of(config, root), config.search_seeds
    found = list(pool.map(partial(_scores, root), [(genome, s) for genome in genomes for s in range(seeds)]))
    read = [_readings(found[i * seeds : (i + 1) * seeds]) for i in range(len(genomes))]
    return {
        "root": root,
        "setting": setting(),
        "candidates": [genome.short for genome in genomes],
        "flops": [_price(config, genome).flops for genome in genomes],
        "skills": [skills for skills, _ in read],
        "nats": [nats for _, nats in read],
        "commit": commit(),
        **machine(),
    }


@dataclass(frozen=True)
class Played:
    """What halving would have made of a generation.

    Attributes:
        chosen: candidate that leads at the end.
        regret: its cross-entropy minus that of the best of all, in nats.
        share: FLOPs of halving, as a part of those of training everybody to the end.
        audited: the same share with the audit, on average over its lots.
    """

    chosen: int
    regret: float
    share: float
    audited: float


def replay(row: Mapping[str, Any], halving: HalvingConfig) -> Played:
    """A generation by halving; what it would cost to audit is on top."""
    skills = {index: dict(zip(PARTS, mine, strict=False)) for index, mine in enumerate(row["skills"])}
    trained, chosen = play(skills, halving, row["root"])
    ended = [index for index, readings in skills.items() if LAST in readings]
    best = max(ended, key=lambda i: (skills[i][LAST], -i))
    whole, paid = sum(row["flops"]), sum(float(part) * row["flops"][i] for i, part in trained.items())
    # whoever is cut, at whichever rung, goes on to the end by one lot
    rest = sum(float(1 - trained[i]) * row["flops"][i] for i in ended)
    regret = row["nats"][chosen] - row["nats"][best]
    return Played(chosen, regret, paid / whole, (paid + halving.audit * rest) / whole)


def play(reported: Reported, halving: HalvingConfig, root: int) -> tuple[dict[int, Fraction], int]:
    """How far each candidate is trained, and which one is chosen, by halving without an audit."""
    going, trained = set(reported), dict[int, Fraction]()
    for stage, part in STAGES.items():
        trained |= dict.fromkeys(going, part)
        going = {index for index in going if part in reported[index]}  # the others failed on the way
        if stage in RUNGS:
            read = {i: {p: skill for p, skill in reported[i].items() if p <= part} for i in going}
            worth = {index: foreseen(readings, halving.look_ahead) for index, readings in read.items()}
            pruner, seed = pruner_of(halving, stage, len(reported)), derive(root, "rung", stage)
            going = set(judge(worth, pruner, audit=0.0, exempt=(), seed=seed).kept)
    return trained, max(going, key=lambda index: (reported[index][LAST], -index))


def candidates_of(config: RunConfig, root: int) -> list[Genome]:
    """Distinct random candidates of the seed genome that the loop would have admitted."""
    from selfimprove.nets.screening import screen

    space, rng = Space(config.space), random.Random(derive(root, "halving"))
    grammar, found = Grammar(space), dict[str, Genome]()
    while len(found) < config.candidates:
        _, child = draw_edits(grammar, config.seed_genome, rng)
        price = _price(config, child)
        affordable = price.steps >= 9 and assess(price, config.limits, device="cpu") is None
        if affordable and screen(child.objective.expression, 0).ok:
            found.setdefault(child.sha256, child)
    return list(found.values())


def summarize(rows: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, Any]:
    """Regret and cost as the default experiment halves, and with other looks ahead."""
    halving = config.halving
    others = [_summary(rows, replace(halving, look_ahead=ahead)) for ahead in AHEAD if ahead != halving.look_ahead]
    return {
        "roots": [row["root"] for row in rows],
        "default": _summary(rows, halving),
        "others": [{name: value for name, value in row.items() if name != "regrets"} for row in others],
        "commits": sorted({row["commit"] for row in rows}),
        "machines": machines(rows),
    }


def _summary(rows: Sequence[Mapping[str, Any]], halving: HalvingConfig) -> dict[str, Any]:
    found = [replay(row, halving) for row in rows]
    regrets = [one.regret for one in found]
    return {
        "keep": list(halving.keep),
        "margin": halving.margin,
        "look_ahead": halving.look_ahead,
        "regret_nats": {"mean": fmean(regrets), "median": median(regrets), "most": max(regrets)},
        "missed": sum(regret > NOTICEABLE for regret in regrets),
        "flops_share": fmean(one.share for one in found),
        "flops_share_with_audit": fmean(one.audited for one in found),
        "regrets": [round(regret, 5) for regret in regrets],
    }


def _scores(root: int, job: tuple[Genome, int]) -> list[list[Score]]:
    """Scores of one training at each rung: as it is read there, as it is scored at the end, and on other instances."""
    genome, s = job
    config = default_config()
    short = config.inspection.stage_sequences
    exams = (
        Exam(derive(root, "halving", "stage"), short),
        *(Exam(derive(root, "halving", n), final=True) for n in ("end", "others")),
    )
    seed = derive(root, "halving", "train", s)
    return scores(genome, config.tasks, allowance_flops=config.allowance_flops, seed=seed, exams=exams, parts=PARTS)


def _readings(by_seed: Sequence[list[list[Score]]]) -> tuple[list[float], float | None]:
    """Mean skill by rung, as far as every training seed came, and the cross-entropy at the end on other instances."""
    reached, end = min(len(mine) for mine in by_seed), len(PARTS) - 1
    skills = [fmean(mine[rung][rung == end].skill for mine in by_seed) for rung in range(reached)]
    return skills, fmean(_nats(mine[end][2]) for mine in by_seed) if reached > end else None


def _price(config: RunConfig, genome: Genome) -> Quote:
    tasks = config.tasks
    return quote(genome, vocab_size=tasks.vocab_size, context=tasks.context, allowance_flops=config.allowance_flops)


def _nats(score: Score) -> float:
    return fmean(family.cross_entropy for family in score.tasks.values())
