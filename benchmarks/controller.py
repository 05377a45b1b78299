"""Meta-train the forecaster that ``ControllerSampler`` comes with, and keep its weights in the package.

First lessons are made: searches on synthetic objectives (``benchmarks.objective_prior``), kept in shards. Then the
forecaster is trained on them by its genome's objective and recipe, and measured on shards that it was not trained on.
Both go on where they were interrupted. How many lessons and steps it took is in ``benchmarks/results/controller``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from benchmarks.lessons_of_forecaster import TRIALS, lesson
from benchmarks.setting import RESULTS, machine
from benchmarks.sittings import TIME_UP
from selfimprove.controller.forecaster import Forecaster
from selfimprove.controller.forecaster_price import BINS, QUERIES, WEIGHTS, forecaster_genome
from selfimprove.genome.genome import Genome
from selfimprove.nets.losses import compile_objective
from selfimprove.training.optimizers import load_memory, make_optimizers, memory
from selfimprove.training.schedule import rate

FOLDER = RESULTS / "controller"
SHARD = 32  # lessons of each length in a shard
SHARDS, STEPS = 50, 6000  # of the weights that come with the package
HELD_OUT = 1_000_000  # first shard that nothing is trained on
SAVE_EVERY = 200  # steps


def main(arguments: Sequence[str]) -> int:
    """Make lessons, train, measure; returns the exit code, 3 where the minutes ran out."""
    parser = argparse.ArgumentParser(prog="selfimprove study controller", description=__doc__)
    parser.add_argument("--shards", type=int, default=SHARDS, help="of 512 lessons each (default %(default)s)")
    parser.add_argument("--held-out", type=int, default=4, help="shards to measure on (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="of 16 lessons each (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="that make lessons (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=55.0, help="stop after this, to go on later")
    parser.add_argument("--work", type=Path, default=Path("runs/study-controller"), help="folder of the lessons")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of the figures")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the weights go")
    chosen = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * chosen.minutes
    chosen.work.mkdir(parents=True, exist_ok=True)
    wanted = [*range(chosen.shards), *range(HELD_OUT, HELD_OUT + chosen.held_out)]
    if not make_shards(chosen.work, wanted, chosen.processes, deadline):
        return TIME_UP
    model = train(chosen.work, chosen.shards, chosen.steps, chosen.seed, deadline)
    if model is None:
        return TIME_UP
    figures = measure(model, [chosen.work / _name(HELD_OUT + one) for one in range(chosen.held_out)])
    chosen.results.mkdir(parents=True, exist_ok=True)
    said = {"lessons": chosen.shards * SHARD * len(TRIALS), "steps": chosen.steps, "seed": chosen.seed}
    said |= {"held_out_lessons": chosen.held_out * SHARD * len(TRIALS), "machine": machine(), **figures}
    (chosen.results / "training.json").write_text(json.dumps(said, indent=2) + "\n")
    safetensors.torch.save_file(model.state_dict(), chosen.weights)
    print(json.dumps({key: said[key] for key in ("loss", "loss_of_experts")}))
    return 0


def make_shards(folder: Path, wanted: Sequence[int], processes: int, deadline: float) -> bool:
    """Make the shards that are not there; returns whether all are."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a process is as much as one of them needs
    missing = [(folder / _name(index), index) for index in wanted if not (folder / _name(index)).exists()]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for at in range(0, len(missing), processes):
            if time.monotonic() > deadline:
                return False
            list(pool.map(_make_shard, missing[at : at + processes]))
            print(f"lessons: shard {min(at + processes, len(missing))} of {len(missing)}", flush=True)
    return True


def _make_shard(job: tuple[Path, int]) -> None:
    path, index = job
    torch.set_num_threads(1)
    tensors = {}
    for place, count in enumerate(TRIALS):
        first = index * SHARD * len(TRIALS) + place
        lessons = [lesson(first + one * len(TRIALS)) for one in range(SHARD)]
        tensors[f"seen{count}"] = torch.stack([one.seen for one in lessons]).half()
        tensors[f"bins{count}"] = torch.stack([one.bins for one in lessons]).to(torch.uint8)
    unfinished = path.with_suffix(".part")
    safetensors.torch.save_file(tensors, unfinished)
    unfinished.replace(path)


def train(folder: Path, shards: int, steps: int, seed: int, deadline: float) -> Forecaster | None:
    """The trained forecaster; None where time ran out, to go on from what was saved."""
    torch.set_num_threads(1)
    genome, path = forecaster_genome(), folder / f"training-{seed}-{shards}-{steps}.safetensors"
    model = Forecaster(genome, seed=seed)
    optimizers = make_optimizers(model, genome.recipe)
    first = 0
    if path.exists():
        saved = safetensors.torch.load_file(path)
        first = int(saved.pop("step"))
        model.load_state_dict({name[2:]: value for name, value in saved.items() if name.startswith("w/")})
        load_memory(model, optimizers, {name[2:]: value for name, value in saved.items() if name.startswith("m/")})
    objective, seen, started = compile_objective(genome.objective.expression), 0.0, time.monotonic()
    for step, (inputs, bins) in _batches(folder, shards, genome, steps, seed, first):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = genome.recipe.learning_rate * rate(genome.recipe, step, steps)
        logits = model(inputs)[:, -QUERIES:].reshape(-1, BINS)
        loss = objective({0: logits}, {1: bins.reshape(-1)}, step / steps).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), genome.recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen += loss.item()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            state = {f"w/{name}": value.clone() for name, value in model.state_dict().items()}
            state |= {f"m/{name}": value.clone() for name, value in memory(model, optimizers).items()}
            safetensors.torch.save_file(state | {"step": torch.tensor(step + 1)}, path)
            print(f"step {step + 1} loss {seen / SAVE_EVERY:.4f} {time.monotonic() - started:.0f} s", flush=True)
            seen = 0.0
            if time.monotonic() > deadline and step + 1 < steps:
                return None
    return model.eval()


def _batches(
    folder: Path, shards: int, genome: Genome, steps: int, seed: int, first: int
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Step and batch: lessons of one length from one shard, in an order that the seed gives."""
    kept: dict[int, dict[str, Tensor]] = {}
    for step in range(first, steps):
        draw = random.Random(f"{seed} {step}")
        index, count = draw.randrange(shards), draw.choice(TRIALS)
        if index not in kept:
            kept[index] = safetensors.torch.load_file(folder / _name(index))
        rows = draw.sample(range(SHARD), genome.recipe.batch)
        seen, bins = (kept[index][f"{name}{count}"][rows] for name in ("seen", "bins"))
        yield step, (_shuffled(seen.float(), count, draw), bins.long())


def _shuffled(seen: Tensor, count: int, draw: random.Random) -> Tensor:
    """The trials in another order: none has a meaning."""
    order = list(range(count))
    draw.shuffle(order)
    return torch.cat([seen[:, order], seen[:, count:]], dim=1)


@torch.inference_mode()
def measure(model: Forecaster, paths: Sequence[Path]) -> dict[str, Any]:
    """Mean cross-entropy (nats) on lessons that were not trained on, over all lengths and by length."""
    by_length = {}
    for count in TRIALS:
        losses = []
        for path in paths:
            shard = safetensors.torch.load_file(path)
            logits = model(shard[f"seen{count}"].float())[:, -QUERIES:].reshape(-1, BINS)
            losses.append(torch.nn.functional.cross_entropy(logits, shard[f"bins{count}"].long().reshape(-1)).item())
        by_length[str(count)] = round(sum(losses) / len(losses), 4)
    mean = sum(by_length.values()) / len(by_length)
    return {"loss": round(mean, 4), "loss_of_experts": round(float(torch.tensor(float(BINS)).log()), 4)} | {
        "loss_by_trials": by_length
    }


def _name(index: int) -> str:
    return f"lessons-{index:07d}.safetensors"
