"""Do small attention models that learn the induction task form induction heads, in the known way?

Models of the seed genome's recipe are trained on the task ``induction`` alone and read at points of their training. The
known signature (Olsson et al. 2022, arXiv 2209.11895): a previous-token head in the first block and an induction head
in a later one, which appear together with the skill; without either kind the skill is gone, and without the former the
latter no longer finds its place. Two blocks of attention alone are the model of the literature; the seed genome has
MLPs as well; one block cannot compose two heads and is the control.

The task has a short cut: in a repeated segment of different tokens the next one is that which was seen longest ago.
*Jumps* tell the two apart. After one round the sequence goes on with a token from within the segment: an induction head
answers the token after it, the short cut the segment's first token.

Heads of one kind often stand in for one another, so that those of a kind are taken away together. A sitting that runs
out of minutes ends with exit code 3, and the next one goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.calibration import Variant, genome_of
from benchmarks.induction_summary import INDUCTION, PREVIOUS, write_summary
from benchmarks.setting import RESULTS, commit, default_config, machine, origin, tasks_described
from benchmarks.sittings import TIME_UP, append, lines, one_sitting
from benchmarks.trainings import checkpoints
from selfimprove.canonical import canonical
from selfimprove.seeds import derive
from selfimprove.tasks.families.induction import Induction
from selfimprove.tasks.suite import TasksConfig, TaskSuite, least_context, least_vocabulary

if TYPE_CHECKING:
    from interp.bench import Bench
    from interp.circuits import HeadScores
    from interp.components import Component

FOLDER = RESULTS / "induction"
TRIALS = "trials.jsonl"
FAMILY = "induction"
PARTS = tuple(Fraction(1, n) for n in (64, 48, 32, 24, 16, 12, 8, 6, 4, 2, 1))
_NO_MLP = ("architecture.blocks.0.channel=none", "architecture.blocks.1.channel=none")
_ONE_BLOCK = ("~architecture.blocks.1", _NO_MLP[0])
JUMPS = 512


@dataclass(frozen=True)
class Arm:
    """A genome at an allowance, and the level of the task."""

    variant: Variant
    level: int


ARMS: dict[str, Arm] = {
    "attention alone": Arm(Variant(_NO_MLP, factor=3), 0),
    "one block of attention": Arm(Variant(_ONE_BLOCK, factor=3), 0),
    "seed genome": Arm(Variant(factor=10), 0),
    "attention alone, longer segments": Arm(Variant(_NO_MLP, factor=3), 4),
    "one block of attention, longer segments": Arm(Variant(_ONE_BLOCK, factor=3), 4),
    "seed genome, longer segments": Arm(Variant(factor=10), 4),
}


def main(arguments: Sequence[str]) -> int:
    """Run or resume the study and write its summary; returns 0, or 3 where the time was up first."""
    parser = argparse.ArgumentParser(prog="selfimprove study induction", description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=4, help="training seeds of each (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="start no training after this (default %(default)s)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the results")
    chosen = parser.parse_args(arguments)
    chosen.results.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * chosen.minutes
    with one_sitting(chosen.results):
        known = known_trials(chosen.results)
        missing = [
            (arm, seed)
            for seed, arm in product(range(chosen.seeds), chosen.arms)
            if canonical(description(arm, seed)) not in known
        ]
        while missing and time.monotonic() < deadline:
            line = measure(*missing.pop(0))
            append(chosen.results / TRIALS, line)
            print(f"{line['arm']}, seed {line['seed']}: {line['seconds']:.0f} s, {line['end']}", flush=True)
    known = known_trials(chosen.results)
    print(write_summary(list(ARMS), list(known.values()), chosen.results, origin(known.values())), end="")
    return TIME_UP if missing else 0


@cache
def tasks(level: int) -> TasksConfig:
    """The default experiment's, with this family alone at a level."""
    base = replace(default_config().tasks, families=(FAMILY,), held_out=(), levels={FAMILY: level})
    setting = base.setting(FAMILY)
    return replace(
        base,
        vocab_size=max(base.vocab_size, least_vocabulary(setting)),
        context=max(base.context, least_context(setting)),
    )


def description(arm: str, seed: int) -> dict[str, Any]:
    """A training and all that its outcome depends on but the code."""
    config, variant = default_config(), ARMS[arm].variant
    return {
        "arm": arm,
        "seed": seed,
        "genome": genome_of(variant, config).sha256,
        "allowance_flops": variant.factor * config.allowance_flops,
        "parts": [str(part) for part in PARTS],
        **tasks_described(tasks(ARMS[arm].level)),
    }


def known_trials(folder: Path) -> dict[bytes, dict[str, Any]]:
    """Lines of earlier sittings that still describe a training of today, by identity."""
    found = dict[bytes, dict[str, Any]]()
    for line in lines(folder / TRIALS):
        if line["arm"] in ARMS:
            mine = description(line["arm"], line["seed"])
            if all(line.get(name) == value for name, value in mine.items()):
                found[canonical(mine)] = line
    return found


def measure(arm: str, seed: int) -> dict[str, Any]:
    """Train one model and read it as it learns; the line of a trial."""
    from interp.bench import Bench, Plan

    started, about, root = time.monotonic(), description(arm, seed), derive(0, "induction study", seed)
    plan = Plan(derive(root, "train"), derive(root, "test"), derive(root, "control"))
    genome, asked = genome_of(ARMS[arm].variant, default_config()), tasks(ARMS[arm].level)
    suite = TaskSuite(asked)
    points: list[dict[str, Any]] = []
    end: dict[str, Any] = {"diverged": True}
    trained = checkpoints(genome, asked, allowance_flops=about["allowance_flops"], seed=root, parts=PARTS)
    for step, model in trained:
        bench = Bench(model, suite, plan)
        points.append({"step": step, **point(bench), "jumps": jumps(bench)})
        if len(points) == len(PARTS):
            end = last_reading(bench)
    seconds = round(time.monotonic() - started, 1)
    return about | {"points": points, "end": end, "seconds": seconds, "commit": commit(), "machine": machine()}


def point(bench: Bench) -> dict[str, Any]:
    """Accuracy, and the heads' scores by kind."""
    from interp.circuits import bench_scores
    from selfimprove.tasks.batch import UNSCORED

    reading, scores = bench.task("test", FAMILY), bench_scores(bench)
    scored = reading.targets != UNSCORED
    right = (reading.logits.argmax(-1) == reading.targets)[scored].double().mean().item()
    return {"accuracy": right, "scores": {kind: scores.of(kind) for kind in scores.patterns}}


def jumps(bench: Bench) -> dict[str, float]:
    """Of `JUMPS` sequences that jump after one round, the share answered by induction and by the short cut."""
    import torch

    from selfimprove.tasks.batch import CONTENT, PAD, TAGS

    assert isinstance(bench.suite, TaskSuite)
    setting = bench.suite.config.setting(FAMILY)
    assert isinstance(setting, Induction)
    generator = torch.Generator().manual_seed(bench.plan.test)
    segment = CONTENT + torch.rand(JUMPS, setting.symbols, generator=generator).argsort(1)[:, : setting.longest]
    size = torch.randint(setting.shortest, setting.longest + 1, (JUMPS, 1), generator=generator)
    place = 1 + (torch.rand(JUMPS, 1, generator=generator) * (size - 2)).long()  # neither the first nor the last
    tokens = torch.full((JUMPS, setting.longest + 2), PAD)
    tokens[:, 0], tokens[:, 1:-1] = TAGS[FAMILY], segment
    tokens.scatter_(1, size + 1, segment.gather(1, place))  # what stands behind it is not seen
    with torch.no_grad():
        logits = bench.hooked(tokens)
    answer = logits.argmax(-1).gather(1, size + 1)
    right = {"induction": segment.gather(1, place + 1), "short_cut": segment[:, :1]}
    return {name: (answer == token).double().mean().item() for name, token in right.items()}


def last_reading(bench: Bench) -> dict[str, Any]:
    """Which heads are of a kind, what the task loses without them, and what the second kind does without the first."""
    from interp.ablation import ablate
    from interp.circuits import bench_scores
    from interp.components import HEADS, components
    from interp.patching import patch_family
    from interp.verdict import NotApplicable

    scores, reading = bench_scores(bench), bench.task("test", FAMILY)
    kinds, parts = scores.kinds(), components(bench.hooked, HEADS)
    named = {kind: [part for part in parts if part.label in kinds[kind]] for kind in (PREVIOUS, INDUCTION)}
    others = [part for part in parts if part.label not in (*kinds[PREVIOUS], *kinds[INDUCTION])]
    groups = {name: group for name, group in (*named.items(), ("others", others)) if group}
    lost = ablate(bench.hooked, reading.tokens, reading.targets, groups)
    left = (lost.accuracy - drop for drop in lost.accuracy_drop["mean"])
    try:
        needed = list(patch_family(bench, FAMILY).needed())
    except NotApplicable:  # it has learned nothing
        needed = []
    return {
        "heads": {kind: list(kinds[kind]) for kind in (PREVIOUS, INDUCTION)},
        "signature": signature(scores),
        "accuracy": lost.accuracy,
        "accuracy_without": dict(zip(lost.labels, left, strict=True)),
        "needed": needed,
        "induction_score": max(scores.of(INDUCTION).values()),
        "induction_score_without_previous": induction_score_without(bench, named[PREVIOUS]),
    }


def signature(scores: HeadScores) -> bool:
    """Whether there is a previous-token head with an induction head in a later block."""
    first, second = (
        [int(head[1 : head.index("H")]) for head in scores.kinds()[kind]] for kind in (PREVIOUS, INDUCTION)
    )
    return bool(first and second) and min(first) < max(second)


def induction_score_without(bench: Bench, parts: Sequence[Component]) -> float | None:
    """The highest induction score on repeated tokens where these heads give their mean; None for no heads."""
    from interp import circuits
    from interp.components import activations, hooks

    if not parts:
        return None
    model, tokens = bench.hooked, circuits.bench_tokens(bench)
    source = {name: value.mean(0, keepdim=True) for name, value in activations(model, tokens, parts)[1].items()}
    with model.hooks(fwd_hooks=hooks(parts, source)):
        return max(circuits.repeated_scores(model, tokens).of(INDUCTION).values())
