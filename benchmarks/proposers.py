"""How far each proposer gets on planted objectives of edits, and what asking it takes, without a single training.

A generation is the loop's: 32 proposals for the champion; those that a value denies or breaks have no gain; of the
others the worse two thirds are cut after an early reading, which shows half of the gain with twice the noise; the rest
are measured, the leader is confirmed on eight seeds if it is ahead, and promoted if it is so beyond two standard
errors. Reported is the champion's true skill over the seed genome's, generation by generation. All proposers meet the
same landscapes.

A name may carry settings, as in ``tpe_tuned:gamma=0.1,candidates=24``: so `tpe_tuned` was tuned, on landscapes of its
own (``--first 1000``). An interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.landscape import Landscape
from benchmarks.setting import RESULTS, commit, default_config, machine, origin
from benchmarks.sittings import TIME_UP, lines, measure_all
from selfimprove.controller.config import ControllerConfig
from selfimprove.controller.proposer import ControlResult, Experience, Outcome, Proposal, Proposer
from selfimprove.controller.registry import CONTROLLERS, make
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.genome.space import Space, apply_all
from selfimprove.loop.controlling import called
from selfimprove.loop.statistics import MOST_PAIRS, exact_interval
from selfimprove.seeds import derive

FOLDER = RESULTS / "proposers"
TRIALS, SUMMARY, TABLE = "trials.jsonl", "summary.json", "summary.md"
SCRIPTED = ("adversary",)  # what searches for nothing
NOISE = 0.02  # standard deviation of a skill measured with one seed
MIN_GAIN = 0.01  # as in the loop
KEPT = 1 / 3  # part of the candidates that is not cut
CONFIRMED = 8  # seeds of a confirmation


@dataclass
class Trail:
    """One search, by generation: the champion's true skill, and processor seconds of asking and of telling."""

    skills: list[float]
    asking: list[float]
    telling: list[float]


class Simulation:
    """The loop around one proposer, on a landscape in place of trainings."""

    def __init__(
        self,
        landscape: Landscape,
        champion: Genome,
        *,
        candidates: int,
        seed: int,
        noise: float = NOISE,
        kept: float = KEPT,
    ) -> None:
        self.landscape, self.champion = landscape, champion
        self.history: list[Experience] = []
        self.genomes = {champion.sha256: champion}
        self._candidates, self._seed, self._noise = candidates, seed, noise
        self._kept, self._generation = kept, 0

    def genome_of(self, sha256: str) -> Genome:
        """A parent of this search; raises KeyError for another."""
        return self.genomes[sha256]

    def run(self, proposer: Proposer, generations: int, folder: Path | None = None) -> Trail:
        """So many generations; ``folder``: where the weights of a proposer that has some are kept."""
        trail = Trail([], [], [])
        for _ in range(generations):
            self._generation += 1
            started = time.process_time()
            asked_for = derive(self._seed, "ask", self._generation)
            proposals = proposer.ask([self.champion], self.history, self._candidates, asked_for)
            asked = time.process_time()
            self.judge(proposals)
            judged = time.process_time()
            update = proposer.tell(self.history, derive(self._seed, "tell", self._generation))
            if update.weights is not None and folder is not None:
                stored = folder / f"{self._generation}.safetensors"
                stored.write_bytes(update.weights)
                proposer.restore(stored)
            trail.skills.append(self.landscape.skill(self.champion))
            trail.asking.append(asked - started)
            trail.telling.append(time.process_time() - judged)
        return trail

    def judge(self, proposals: Sequence[Proposal]) -> None:
        """What becomes of the proposals of a generation: new experiences, and perhaps another champion."""
        parent, rng = self.champion, random.Random(derive(self._seed, "noise", self._generation))
        reference = self._measured(parent, rng)
        children = [apply_all(proposal.edits, parent, self.landscape.space) for proposal in proposals]
        fates: list[Outcome | None] = [self.landscape.fate(child) or None for child in children]
        alive = [index for index, fate in enumerate(fates) if fate is None]
        early = {i: (self._true(children[i]) - self._true(parent)) / 2 + rng.gauss(0, 2 * self._noise) for i in alive}
        kept = sorted(alive, key=lambda index: -early[index])[: math.ceil(self._kept * len(proposals))]
        gains = {index: self._measured(children[index], rng) - reference for index in kept}
        leader = max(kept, key=lambda index: gains[index], default=None)
        promoted = leader is not None and gains[leader] > MIN_GAIN and self._confirmed(children[leader], parent, rng)
        most = max(gains.values(), default=math.inf)
        for index, proposal in enumerate(proposals):
            outcome, gain = fates[index], gains.get(index, min(early[index], most) if index in early else None)
            if outcome is None:
                outcome, gain = called(gain)
            if index == leader and gains[leader] > MIN_GAIN:
                outcome, gain = ("promoted", gain) if promoted else ("same", 0.0)
            self.history.append(Experience(self._generation, parent.sha256, proposal.edits, outcome, gain))
        if promoted and leader is not None:
            self.champion = children[leader]
            self.genomes[self.champion.sha256] = self.champion

    def _true(self, genome: Genome) -> float:
        return self.landscape.skill(genome)

    def _measured(self, genome: Genome, rng: random.Random) -> float:
        return self._true(genome) + rng.gauss(0.0, self._noise)

    def _confirmed(self, child: Genome, parent: Genome, rng: random.Random) -> bool:
        error = self._noise * (2 / CONFIRMED) ** 0.5
        gain = self._true(child) - self._true(parent) + rng.gauss(0.0, error)
        return bool(gain > 2 * error)


@dataclass(frozen=True)
class Trial:
    """One search: a controller's name, with settings after a colon; the seed of the landscape; its length."""

    proposer: str
    landscape: int
    generations: int
    candidates: int


def main(arguments: Sequence[str]) -> int:
    """Run or resume the benchmark and write its results; returns 0, or 3 where the time was up first."""
    parser = argparse.ArgumentParser(
        prog="selfimprove benchmark proposers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    searching = [name for name in CONTROLLERS if name not in SCRIPTED]
    parser.add_argument("--proposers", nargs="+", default=searching, metavar="NAME", help=f"of {', '.join(searching)}")
    parser.add_argument("--seeds", type=int, default=10, help="landscapes (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first landscape (default %(default)s)")
    parser.add_argument("--generations", type=int, default=8, help="of each search (default %(default)s)")
    parser.add_argument("--candidates", type=int, default=32, help="a generation (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="searches at once (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=120.0, help="start no search after this")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of {TRIALS}, {SUMMARY} and {TABLE}")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 2:
        parser.error(f"--seeds: got {chosen.seeds}; allowed: 2 or more, for an interval")
    chosen.results.mkdir(parents=True, exist_ok=True)
    wanted = [
        Trial(name, seed, chosen.generations, chosen.candidates)
        for seed in range(chosen.first, chosen.first + chosen.seeds)
        for name in chosen.proposers
    ]

    def missing() -> list[Trial]:
        known = _known(chosen.results / TRIALS)
        return [trial for trial in wanted if trial not in known]

    measure_all(chosen.results / TRIALS, measure, missing, chosen)
    known = _known(chosen.results / TRIALS)
    summary = summarize([known[trial] for trial in wanted if trial in known])
    (chosen.results / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (chosen.results / TABLE).write_text(table(summary) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1) if chosen.json else table(summary))
    return 0 if all(trial in known for trial in wanted) else TIME_UP


def configured(proposer: str) -> ControllerConfig:
    """The default settings of a controller, and those that stand after its name."""
    name, _, settings = proposer.partition(":")
    config = ControllerConfig(name=name)
    for setting in settings.split(",") if settings else ():
        key, _, value = setting.partition("=")
        config = replace(config, **{key: type(getattr(config, key))(value)})
    return config


def measure(trial: Trial) -> dict[str, Any]:
    """One search; the line of a trial. Called in a process of its own."""
    import torch

    torch.set_num_threads(1)
    config = default_config()
    space, seed = Space(config.space), derive(trial.landscape, "search")
    simulation = Simulation(
        Landscape(space, trial.landscape), seed_genome(), candidates=trial.candidates, seed=trial.landscape
    )
    with tempfile.TemporaryDirectory() as folder:
        execute = InProcess(Path(folder))
        proposer = make(configured(trial.proposer), space, execute, simulation.genome_of, seed)
        trail = simulation.run(proposer, trial.generations, Path(folder))
    return asdict(trial) | asdict(trail) | {"commit": commit(), "machine": machine()}


class InProcess:
    """Runs controller jobs in this process, in place of the sandbox: through descriptors and JSON, as there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, payload: dict[str, Any], inputs: dict[str, Path], outputs: tuple[str, ...], /) -> ControlResult:
        """See ``Execute``."""
        from selfimprove.controller import worker  # imports torch

        written = {name: self._folder / f"out-{name}" for name in outputs}
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        sources = {name: os.open(path, os.O_RDONLY) for name, path in inputs.items()}
        sinks = {name: os.open(path, flags) for name, path in written.items()}
        try:
            result = worker.run(json.loads(json.dumps(payload)), sources, sinks, lambda event: None)
        finally:
            for descriptor in (*sources.values(), *sinks.values()):
                os.close(descriptor)
        return ControlResult(
            json.loads(json.dumps(result)), {name: path.read_bytes() for name, path in written.items()}
        )


def _known(path: Path) -> dict[Trial, dict[str, Any]]:
    return {Trial(**{name: line[name] for name in Trial.__dataclass_fields__}): line for line in lines(path)}


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By proposer: mean skill by generation, of the last one a 95 % interval, the difference from random, seconds."""
    by_name: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        by_name.setdefault(line["proposer"], {})[line["landscape"]] = line
    rows = []
    for name, trials in by_name.items():
        skills = [line["skills"] for line in trials.values()]
        shared = trials.keys() & by_name.get("random", {}).keys()
        beyond = [trials[seed]["skills"][-1] - by_name["random"][seed]["skills"][-1] for seed in sorted(shared)]
        rows.append(
            {
                "proposer": name,
                "seeds": len(skills),
                "skills": [fmean(values) for values in zip(*skills, strict=True)],
                "interval": _interval([one[-1] for one in skills]),
                "beyond_random": fmean(beyond) if beyond else None,
                "beyond_random_interval": _interval(beyond),
                "better_than_random": sum(value > 0 for value in beyond),
                "ask_cpu_seconds": fmean(second for line in trials.values() for second in line["asking"]),
                "ask_cpu_seconds_max": max(second for line in trials.values() for second in line["asking"]),
                "tell_cpu_seconds": fmean(second for line in trials.values() for second in line["telling"]),
            }
        )
    rows.sort(key=lambda row: -row["skills"][-1])
    return {**origin(lines), "proposers": rows}


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The exact one; None where there are more values than it can enumerate, or too few."""
    return exact_interval(values) if 0 < len(values) <= MOST_PAIRS else None


def table(summary: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    head = ("proposer", "seeds", "half way", "at the end", "95 %", "beyond random", "95 %", "ask, s", "tell, s")
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in summary["proposers"]:
        half, end = row["skills"][(len(row["skills"]) - 1) // 2], row["skills"][-1]
        beyond, near = row["beyond_random"], row["beyond_random_interval"]
        cells = [row["proposer"], str(row["seeds"]), f"{half:.3f}", f"{end:.3f}", _shown(row["interval"])]
        cells += ["" if beyond is None else f"{beyond:+.3f}", _shown(near)]
        cells += [f"{row['ask_cpu_seconds']:.2f}", f"{row['tell_cpu_seconds']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
