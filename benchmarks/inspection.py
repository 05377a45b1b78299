"""What a warm inspection costs, from 0.1 to 30 million parameters.

The seed genome is made wider and deeper, its weights are untrained; it is read beside a parent of its own size, on one
core, in a process of its own for each measurement, after the warm-up that a worker gets. Measured is processor time,
which does not count what else the machine does, by instrument in the order in which they run (what several share is
computed by the first), and the memory that the inspection adds to the warm process, at its peak. The tasks' right
answers are set to what the model says anyway: patching looks for what carries an answer, and an untrained model has
none otherwise.

The exponent is the slope of the logarithm of the cost over that of the parameters, with its 95 % t interval; that of
the larger half of the sizes tells what would be hidden by costs that do not grow.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import linregress, t

from benchmarks.setting import RESULTS, ROOT, commit, default_config, machine, own_code
from selfimprove.genome.architecture import Architecture
from selfimprove.genome.genome import seed_genome
from selfimprove.nets.cost import parameter_shapes
from selfimprove.tasks.batch import UNSCORED, Batch
from selfimprove.tasks.suite import TaskSuite

if TYPE_CHECKING:
    from interp.verdict import Verdict
    from selfimprove.nets.transformer import Transformer

FOLDER = RESULTS / "inspection"
SIZES = ((64, 2), (96, 3), (128, 4), (192, 5), (256, 6), (384, 8), (448, 10), (512, 10))  # width and blocks
HEAD = 16  # size of a head below width 256; from there on 8 heads, the most that a genome may have
LEVEL = 0.95  # of intervals
LEAST = 1e-3  # seconds: what takes less is taken for this
LOUD = 8.0  # times the scale of the logits, so that what an untrained model answers stands out


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark, write ``summary.json`` and print it; returns 0."""
    parser = argparse.ArgumentParser(
        prog="selfimprove benchmark inspection", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each size (default %(default)s)")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many, the smaller first (default all)")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the summary")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # a process of its own: print one measurement
    chosen = parser.parse_args(arguments)
    if chosen.one is not None:
        print(json.dumps(measure(chosen.one)))
        return 0
    found = [_median([_apart(size) for _ in range(chosen.repeats)]) for size in range(chosen.sizes)]
    summary = {"commit": commit(), "machine": machine(), "repeats": chosen.repeats, "sizes": found, **growth(found)}
    chosen.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=1) + "\n"
    (chosen.results / "summary.json").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def architecture(width: int, blocks: int) -> Architecture:
    """The seed genome's architecture in another size."""
    small = seed_genome().architecture
    block = replace(small.blocks[0], heads=min(8, width // HEAD))
    return replace(small, width=width, blocks=(block,) * blocks)


@dataclass(frozen=True)
class OwnAnswers:
    """A suite whose right answers are what a model says."""

    model: Transformer
    suite: TaskSuite

    @property
    def families(self) -> tuple[str, ...]:
        return self.suite.families

    def batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        import torch

        batch = self.suite.batch(split, family, count, seed)
        with torch.no_grad():
            answers = self.model(torch.tensor(np.asarray(batch.tokens))).argmax(-1).numpy()
        return replace(batch, targets=np.where(batch.targets == UNSCORED, UNSCORED, answers))

    def halt_batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        return self.suite.halt_batch(split, family, count, seed)


def measure(size: int) -> dict[str, Any]:
    """Inspect one model with every instrument; seconds of processor time by instrument, and bytes of memory.

    The default instruments come first, so that their costs and their peak can be told from the same inspection.
    """
    import torch

    from interp import worker
    from interp.bench import Plan
    from interp.inspection import INSTRUMENTS, inspect
    from selfimprove.nets.transformer import build

    worker.warm_up()
    config = default_config()
    usual = (*config.inspection.instruments, *config.inspection.also)
    wide, deep = SIZES[size]
    shape, vocab, context = architecture(wide, deep), config.tasks.vocab_size, config.tasks.context
    model, parent = (build(shape, vocab_size=vocab, context=context, seed=seed).eval() for seed in (0, 1))
    with torch.no_grad():
        model.get_parameter("unembed.W_U").mul_(LOUD)
    suite = OwnAnswers(model, TaskSuite(config.tasks))
    seconds, peaks, verdicts = dict[str, float](), dict[str, int](), dict[str, str]()
    before, clock = _peak(), [time.process_time()]

    def note(name: str, verdict: Verdict) -> None:
        clock.append(time.process_time())
        seconds[name], peaks[name], verdicts[name] = clock[-1] - clock[-2], _peak() - before, verdict.verdict

    plan = Plan(0, 1, 2, sequences=config.inspection.sequences)
    names = dict.fromkeys([*usual, *INSTRUMENTS])
    inspect(model, suite, plan, parent=parent, names=list(names), on_verdict=note)
    shapes = parameter_shapes(shape, vocab, context)
    return {
        "width": wide,
        "blocks": deep,
        "parameters": sum(math.prod(one) for one in shapes.values()),
        "default_seconds": sum(seconds[name] for name in usual),
        "full_seconds": sum(seconds.values()),
        "default_bytes": peaks[usual[-1]],
        "full_bytes": max(peaks.values()),
        "seconds": seconds,
        "verdicts": verdicts,
    }


def _peak() -> int:
    """Most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _apart(size: int) -> dict[str, Any]:
    """One measurement, in a process with one thread on one core."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-c", f"from benchmarks.inspection import main; main(['--one', '{size}'])"]
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**own_code(), **threads},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _median(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the repeats."""

    def middle(name: str) -> Any:
        values = [one[name] for one in repeats]
        if isinstance(values[0], dict):
            keys = {key: [value[key] for value in values] for key in values[0]}
            return {key: _rounded(found) for key, found in keys.items()}
        return _rounded(values)

    return {name: middle(name) for name in repeats[0]}


def _rounded(values: Sequence[Any]) -> Any:
    if isinstance(values[0], str):
        return values[0] if len(set(values)) == 1 else sorted(set(values))
    return round(median(values), 4) if isinstance(values[0], float) else int(median(values))


def growth(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Exponents of the costs over the parameters, with their intervals, of all sizes and of the larger half."""
    totals = ("default_seconds", "full_seconds", "default_bytes", "full_bytes")
    costs = {name: [one[name] for one in found] for name in totals}
    costs |= {name: [one["seconds"][name] for one in found] for name in found[0]["seconds"]}
    sizes = [one["parameters"] for one in found]
    half = len(sizes) // 2
    return {
        "exponents": {name: exponent(sizes, values) for name, values in costs.items()},
        "exponents_of_the_larger_half": {name: exponent(sizes[half:], v[half:]) for name, v in costs.items()},
    }


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> dict[str, float] | None:
    """Slope of ``log cost`` over ``log size`` with its 95 % t interval; None with fewer than three sizes.

    Likewise of what does not apply and costs less than can be measured.
    """
    if len(sizes) < 3 or max(costs) < LEAST:
        return None
    fit = linregress(np.log(sizes), np.log(np.maximum(costs, LEAST)))
    reach = float(t.ppf((1 + LEVEL) / 2, len(sizes) - 2) * fit.stderr)
    return {name: round(float(fit.slope) + side * reach, 3) for name, side in (("value", 0), ("low", -1), ("high", 1))}
