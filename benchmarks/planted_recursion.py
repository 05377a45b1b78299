"""Does the recursion study find a better controller genome where one is planted, and none where it cannot matter?

A closed form stands in the place of training: a proposal has a merit, drawn from a normal distribution around what its
controller is worth, and a controller's word on a proposal is that merit seen through noise, the less the more it is
worth. Everything after that is the study's own: how a history is halved, how contender and incumbent are compared,
who takes over, what a row says, and the whole analysis with its claims. So are the level, the root seeds, generations
and candidates, and, nearly, how many proposals succeed (8% of those that the committed contests were judged by) and how
many are promoted (3.3 a run). Gains are smaller than the study's, by a factor that its tests do not see. Three worlds:

- *planted*: the first promoted genome holds a better controller: more in its architecture, a little in its loss.
  Extra training gives a little, a sham as much or as little as chance. How much better is in the figures: imp@4 is
  about four times what it is without a hand-over.
- *faint*: the same genomes in a world where what a controller is worth matters a third as much: how much the study
  misses. Nothing is expected of it.
- *irrelevant*: genomes differ in what their controllers say, so that hand-overs happen, but what is proposed never
  depends on the controller. Every claim is false.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.recursion_analysis import K, summary_of
from benchmarks.recursion_rows import generation_row
from benchmarks.setting import RESULTS, commit, machine
from selfimprove.controller.config import ARMS, INHERITING
from selfimprove.controller.proposer import Experience, Outcome
from selfimprove.genome.edits import Edit
from selfimprove.loop.recursion import Comparison, compare, decide, halves, succeeded, undecidable
from selfimprove.seeds import derive

FOLDER = RESULTS / "recursion"
STUDIES: Mapping[str, int] = {"planted": 50, "faint": 50, "irrelevant": 200}
FOUND, FALSE = 0.8, 16  # least share of planted studies that must claim, and most studies that may without cause
ROOT_SEEDS, GENERATIONS, CANDIDATES, ALPHA = 12, 6, 16, 0.01
EXPECTED, SCALE = -0.14, 0.1  # gain of a proposal: mean and deviation, in skill
PROMOTED = 0.02  # gain from which the gate promotes the best proposal
HARDER = 0.8  # what remains of every gain after each promotion: better parents are harder to improve
SAID = 1.2  # log odds a deviation of merit, of a controller worth 1
NOISE = 0.5  # of the log odds
READ = {"verdict": "read", "reason": ""}
EDIT = Edit("set", "recipe.batch", 32)


@dataclass(frozen=True)
class World:
    """What a controller's worth does, and how much of it each arm hands over after the first promotion.

    Attributes:
        matters: deviations of merit that a controller worth 1 adds to each of its proposals.
        worth: of the controller that an arm would take over; the first one is worth ``FIRST``.
        sham: deviation of a sham's worth.
    """

    matters: float
    worth: Mapping[str, float]
    sham: float = 0.3


FIRST, TRAINED = 0.5, 0.05  # worth of the first controller, and what extra training adds to it
BETTER = {"architecture": 1.3, "loss": 0.7, "both": 1.6}
WORLDS = {"planted": World(1.2, BETTER), "faint": World(0.4, BETTER), "irrelevant": World(0.0, BETTER)}


@dataclass(frozen=True)
class Standing:
    """Where a simulated run stands: the controller's worth, and the promotions so far."""

    worth: float
    promotions: int = 0


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark and write ``planted.json``; returns 0, or 1 where a figure is not as it must be."""
    parser = argparse.ArgumentParser(prog="selfimprove benchmark planted-recursion", description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the figures")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args(arguments)
    found = figures(STUDIES)
    text = json.dumps(found | {"commit": commit(), "machine": machine()}, indent=1)
    chosen.results.mkdir(parents=True, exist_ok=True)
    (chosen.results / "planted.json").write_text(text + "\n", encoding="utf-8")
    print(text if chosen.json else _in_words(found))
    return 0 if found["as_expected"] else 1


def figures(studies: Mapping[str, int]) -> dict[str, Any]:
    """How many studies of each world claim self-improvement, and whether that is as it must be."""
    found: dict[str, Any] = {}
    for name, count in studies.items():
        done = [study(WORLDS[name], seed) for seed in range(count)]
        found[name] = {
            "studies": count,
            "claimed": sum(bool(one["claims"]) for one in done),
            "promotions_a_run": sum(one["arms"]["none"]["promotions"] for one in done) / (count * ROOT_SEEDS),
            "imp_at_4": {arm: fmean(one["arms"][arm]["quality"][K] for one in done) for arm in ARMS},
            "by_arm": {arm: sum(arm in one["claims"] for one in done) for arm in INHERITING},
            "handovers_a_run": {
                arm: sum(one["arms"][arm]["accepted"] for one in done) / (count * ROOT_SEEDS)
                for arm in ("sham", *INHERITING)
            },
        }
    planted, irrelevant = found["planted"], found["irrelevant"]
    most = FALSE * irrelevant["studies"] / STUDIES["irrelevant"]
    as_expected = planted["claimed"] >= FOUND * planted["studies"] and irrelevant["claimed"] <= most
    return found | {"root_seeds": ROOT_SEEDS, "as_expected": as_expected}


def study(world: World, seed: int) -> dict[str, Any]:
    """One simulated study: the summary that the report would be written from."""
    return summary_of([run(world, arm, derive(seed, root), root) for root in range(ROOT_SEEDS) for arm in ARMS])


def run(world: World, arm: str, seed: int, root: int) -> dict[str, Any]:
    """One simulated run, as a row of the study. Arms of a root seed share their noise until the first promotion."""
    standing, history, merits = Standing(FIRST), list[Experience](), dict[int, float]()
    generations, handovers = [], []
    for n in range(1, GENERATIONS + 1):
        rng = random.Random(derive(seed, n, *((arm,) if standing.promotions else ())))
        gains = _proposed(world, standing, rng, n, history, merits)
        best = max(gains)
        promoted = best > PROMOTED
        fresh = [best - abs(rng.gauss(0, 0.01)) if promoted and gain == best else None for gain in gains]
        generations.append(generation_row(n, promoted, gains, fresh))
        if promoted and n < GENERATIONS:  # nothing would come of a hand-over after the last one
            standing = replace(standing, promotions=standing.promotions + 1)
            standing, handover = _succession(world, arm, standing, rng, n, history, merits)
            handovers += [handover] if handover is not None else []
    return {
        "arm": arm, "seed": root, "generations": generations, "handovers": handovers, "best_skill": None,
        "charged_flops": 0, "paid": {"controller": 0}, "commit": "",
    }  # fmt: skip


def _proposed(
    world: World, standing: Standing, rng: random.Random, n: int, history: list[Experience], merits: dict[int, float]
) -> list[float]:
    """Gains of one generation's proposals; they join the history, with their merits by their place in it."""
    gains = []
    for _ in range(CANDIDATES):
        merit = rng.gauss(world.matters * (standing.worth - FIRST), 1.0)
        gain = (EXPECTED + SCALE * merit) * HARDER**standing.promotions
        outcome: Outcome = "better" if gain > 0 else "worse"
        experience = Experience(n, str(len(history)), (EDIT,), outcome, gain)
        merits[len(history)] = merit
        history.append(experience)
        gains.append(gain)
    return gains


def _succession(
    world: World, arm: str, standing: Standing, rng: random.Random, n: int, history: Sequence[Experience],
    merits: Mapping[int, float],
) -> tuple[Standing, dict[str, Any] | None]:  # fmt: skip
    """What a promotion does to the controller, decided as the loop decides it."""
    if arm in ("none", "frozen"):
        return standing, None
    if arm == "extra":
        return replace(standing, worth=standing.worth + TRAINED), None
    worth = max(0.0, rng.gauss(FIRST, world.sham)) if arm == "sham" else world.worth[arm]
    _, held_out = halves(history, derive(rng.randrange(1 << 30), n))
    outcomes = [succeeded(one) for one in held_out]
    body = {"generation": n, "accepted": False, "p_value": None}
    if undecidable(outcomes, ALPHA):
        return standing, body
    judged = [merits[int(one.parent)] for one in held_out]
    ours, theirs = ([_said(value, merit, rng) for merit in judged] for value in (worth, standing.worth))
    comparison: Comparison = compare(ours, theirs, outcomes, n)
    accepted = decide(comparison, READ, ALPHA).promoted
    return replace(standing, worth=worth) if accepted else standing, body | {
        "accepted": accepted,
        "p_value": comparison.p_value,
    }


def _said(worth: float, merit: float, rng: random.Random) -> float:
    """A controller's log odds of a proposal."""
    return SAID * worth * merit + rng.gauss(0, NOISE)


def _in_words(found: Mapping[str, Any]) -> str:
    lines = []
    for name in STUDIES:
        world, imp = found[name], found[name]["imp_at_4"]
        much = f"imp@4 {imp['none']:.4f} without a hand-over, {imp['both']:.4f} with both"
        lines.append(f"{name}: {world['claimed']} of {world['studies']} studies claim self-improvement; {much}")
    return "\n".join(lines)
