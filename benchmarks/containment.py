"""What containment costs, and how fast it kills.

- ``throughput``: the same training in a contained worker and in a bare one, both at once on one core, which the kernel
  shares out between them every few milliseconds, so that whatever else goes on at the machine strikes both alike. The
  ratio of each pair is taken of the processor time that they needed; the median is reported with its exact 95%
  interval. Each pair starts afresh, in random order, on the next core in turn: where a process's memory happens to lie
  has its own effect on its speed.
- ``start``: from the request to the first optimizer step done, in a contained worker of a warm zygote.
- ``kill``: both workers train when the kill switch is thrown, at a random moment; until every worker is dead and
  reaped, and until nothing at all is left of the zygotes either.
- ``silence``: from a worker's last sign of life until it is dead, where it may be silent for one second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil

from benchmarks.setting import RESULTS, commit, default_config, machine
from selfimprove.containment.sandbox.backend import NoBackend, SandboxBackend
from selfimprove.containment.sandbox.layers import make_backend
from selfimprove.containment.supervisor import Completed, Exceeded, Job, JobLimits, Supervisor, ZygoteSpec
from selfimprove.errors import Halted
from selfimprove.loop.statistics import median_interval
from selfimprove.training.protocol import ENTRY, WEIGHTS, TrainJob

FOLDER = RESULTS / "containment"
LIMITS = JobLimits(wall_seconds=300, cpu_seconds=300, memory_bytes=2 * 2**30, output_bytes=2**26, silence_seconds=60)
CONFIG = default_config()
FOREVER = 10**7  # steps
HUNDRED = 100  # percentiles


def at_least_two(text: str) -> int:
    """A number of measurements that has percentiles."""
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"got {number}; at least 2: percentiles of fewer are none")
    return number


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark, write ``summary.json`` and print it; returns 0."""
    parser = argparse.ArgumentParser(
        prog="selfimprove benchmark containment", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pairs", type=at_least_two, default=100, help="pairs of trainings (default %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="steps of each training (default %(default)s)")
    parser.add_argument("--starts", type=at_least_two, default=50, help="workers started (default %(default)s)")
    parser.add_argument(
        "--kills", type=at_least_two, default=50, help="times the switch is thrown (default %(default)s)"
    )
    parser.add_argument(
        "--silences", type=at_least_two, default=10, help="workers that fall silent (default %(default)s)"
    )
    parser.add_argument("--outer-layer", default="auto", choices=("auto", "off"), help="namespaces around the workers")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the summary")
    chosen = parser.parse_args(arguments)
    backend = make_backend("lockdown", outer_layer=chosen.outer_layer)
    found = {
        "commit": commit(),
        "machine": machine(),
        "backend": {"name": backend.name, **backend.probe()},
        "throughput": throughput(backend, chosen.pairs, chosen.steps),
        "start": starts(backend, chosen.starts),
        "kill": kills(backend, chosen.kills),
        "silence": silences(backend, chosen.silences),
    }
    chosen.results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    (chosen.results / "summary.json").write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


def throughput(backend: SandboxBackend, pairs: int, steps: int) -> dict[str, Any]:
    """Contained over bare steps per second of processor time: above 1 where containment was the faster."""
    found, order, cores = [], random.Random(0), sorted(os.sched_getaffinity(0))
    with _supervisor(backend) as contained, _supervisor(NoBackend()) as bare, ThreadPoolExecutor(2) as both:
        for one in (contained, bare):
            _train(one, steps)  # both warm
        for number in range(pairs):
            for process in psutil.Process().children(recursive=True):  # the workers are born where their zygotes are
                process.cpu_affinity([cores[number % len(cores)]])
            turns = order.sample([contained, bare], 2)
            used = dict(zip(turns, both.map(lambda one: _train(one, steps).usage.cpu_seconds, turns), strict=True))
            found.append(used[bare] / used[contained])
    ordered = [round(ratio, 4) for ratio in sorted(found)]
    return {
        "steps": steps,
        "pairs": pairs,
        "median": round(median(ordered), 4),
        "interval": median_interval(ordered),
        "ratios": ordered,
    }


def starts(backend: SandboxBackend, number: int) -> dict[str, Any]:
    """Milliseconds from the request until the first step is done, as its supervisor hears of it."""
    taken = []
    with _supervisor(backend) as supervisor:
        _train(supervisor, 1)
        for _ in range(number):
            heard: list[float] = []

            def hear(index: int, event: dict[str, Any], heard: list[float] = heard) -> None:
                heard.append(time.monotonic())

            asked = time.monotonic()
            list(supervisor.run([_job(1)], on_event=hear))
            taken.append(heard[0] - asked)
    return _milliseconds(taken)


def kills(backend: SandboxBackend, number: int) -> dict[str, Any]:
    """Milliseconds from the kill switch until all workers are dead, and until their zygotes are."""
    workers, everything = [], []
    moments = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        switch = Path(name) / "HALT"
        for _ in range(number):
            switch.unlink(missing_ok=True)
            with _supervisor(backend, workers=2, halt_file=switch) as supervisor:
                thrown = _throw(supervisor, switch, moments.uniform(0.1, 0.6))
                workers.append(time.monotonic() - thrown)
                supervisor.close()
                everything.append(time.monotonic() - thrown)
    return {"workers": _milliseconds(workers), "workers_and_zygotes": _milliseconds(everything)}


def silences(backend: SandboxBackend, number: int) -> dict[str, Any]:
    """Milliseconds by which a worker outlives one second of silence; it is stopped in the middle of its training."""
    late = []
    limits = replace(LIMITS, silence_seconds=1.0)
    with _supervisor(backend) as supervisor:
        for _ in range(number):
            last: list[float] = []

            def hear(index: int, event: dict[str, Any], last: list[float] = last) -> None:
                last.append(time.monotonic())
                if len(last) == 1:
                    _newest_descendant().suspend()

            [(_, outcome)] = list(supervisor.run([_job(FOREVER, limits=limits)], on_event=hear))
            if not isinstance(outcome, Exceeded) or outcome.limit != "silence_seconds":
                raise RuntimeError(f"a silent worker ended otherwise: {outcome}")
            late.append(time.monotonic() - last[-1] - limits.silence_seconds)
    return _milliseconds(late)


def _newest_descendant() -> psutil.Process:
    """The worker: its zygote, and whatever stands around that, are older."""
    return max(psutil.Process().children(recursive=True), key=lambda process: (process.create_time(), process.pid))


@contextlib.contextmanager
def _supervisor(backend: SandboxBackend, *, workers: int = 1, halt_file: Path | None = None) -> Iterator[Supervisor]:
    zygotes = {"torch": ZygoteSpec((ENTRY,))}
    with Supervisor(
        zygotes, backend=backend, workers=workers, halt_file=halt_file, should_stop=lambda: False
    ) as supervisor:
        supervisor.prove()
        yield supervisor


_numbers = count()


def _job(steps: int, *, limits: JobLimits = LIMITS) -> Job:
    job = TrainJob(CONFIG.seed_genome, CONFIG.tasks, steps, seed=0, device="cpu")
    return Job(f"job-{next(_numbers)}", "torch", ENTRY, job.to_json(), {}, (WEIGHTS,), limits)


def _train(supervisor: Supervisor, steps: int) -> Completed:
    [(_, outcome)] = list(supervisor.run([_job(steps)]))
    if not isinstance(outcome, Completed):
        raise RuntimeError(f"a training of {steps} steps did not complete: {outcome}")
    return outcome


def _throw(supervisor: Supervisor, switch: Path, wait: float) -> float:
    """Train in two workers, throw the switch while both are at it; returns when it was thrown."""
    thrown: list[float] = []
    heard: set[int] = set()

    def throw() -> None:
        thrown.append(time.monotonic())
        switch.touch()

    timer = threading.Timer(wait, throw)

    def hear(index: int, event: dict[str, Any]) -> None:
        heard.add(index)
        if len(heard) == 2 and not timer.is_alive() and not thrown:
            timer.start()

    with contextlib.suppress(Halted):
        list(supervisor.run([_job(FOREVER), _job(FOREVER)], on_event=hear))
        raise RuntimeError("the kill switch was not obeyed")
    return thrown[0]


def _milliseconds(taken: Sequence[float]) -> dict[str, Any]:
    cuts = quantiles(taken, n=HUNDRED, method="inclusive")
    return {
        "n": len(taken),
        "median_ms": round(1000 * median(taken), 1),
        "p99_ms": round(1000 * cuts[98], 1),
        "most_ms": round(1000 * max(taken), 1),
    }
