"""Does modular addition grok here as it did for Nanda et al. 2023 (arXiv 2301.05217), and do our instruments see it?

A one-layer transformer of our own builder learns ``a b = -> (a + b) mod p`` from a part of all pairs, in full batches,
for tens of thousands of steps, as in the paper: width 128, 4 heads of 32, 512 ReLU neurons, AdamW with learning rate
1e-3 (ten steps of warm-up), weight decay 1 on everything, betas 0.9 and 0.98, the loss in float64 at the last position.
It trains without norms, as theirs does; the weights that are kept are those of a genome whose rmsnorms are silent, with
the same logits. What differs from the paper: no biases in the MLP, the outputs of both mixers start
``1 / sqrt(2)`` times as large and the unembedding ``sqrt((p + 1) / 128)`` times, and other random numbers.

Seeds follow each other. A sitting that runs out of minutes ends with exit code 3 and the next one goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from benchmarks.grokking_summary import write_summary
from benchmarks.grokking_training import Setting, Training, genome, kept, training_pairs
from benchmarks.setting import RESULTS, commit, machine
from benchmarks.sittings import TIME_UP
from interp.spectra import sum_spectrum
from selfimprove.archive.files import write_atomic
from selfimprove.errors import ConfigError
from selfimprove.training.optimizers import load_memory, memory

FOLDER = RESULTS / "grokking"
READ_EVERY, SNAPSHOT_EVERY = 100, 500  # steps
SAVE_SECONDS = 60.0


def main(arguments: Sequence[str]) -> int:
    """Train the seeds that are not finished, write the summary; returns 0, or 3 where the time was up first."""
    chosen = _parser().parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("study grokking --device", "cuda", "cpu on this machine", "there is no CUDA GPU")
    if chosen.device == "cpu":
        torch.set_num_threads(chosen.threads)
    chosen.results.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * chosen.minutes
    modulus, fraction = (113, 0.3) if chosen.device == "cuda" else (59, 0.4)
    steps, seeds = (40_000, [0, 3]) if chosen.device == "cuda" else (12_000, [0, 1])
    setting = Setting(chosen.modulus or modulus, chosen.fraction or fraction, chosen.steps or steps, 0)
    settings = [replace(setting, seed=seed) for seed in range(*(chosen.seeds or seeds))]
    results = Results(chosen.results)
    for each in settings:
        if not results.finished(each) and not train(each, results, chosen, deadline):
            break
    print(
        write_summary(
            chosen.results,
            genome=genome(),
            trained=lambda found: training_pairs(Setting(**found)),
            plot=chosen.plot,
        )
    )
    return 0 if all(results.finished(each) for each in settings) else TIME_UP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfimprove study grokking", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, default=55.0, help="end the sitting after this (default %(default)s)")
    parser.add_argument("--modulus", type=int, help="p (default: 113 on a GPU as in the paper, 59 on a CPU)")
    parser.add_argument("--fraction", type=float, help="of the pairs to train on (default: 0.3 on a GPU, 0.4 on a CPU)")
    parser.add_argument("--steps", type=int, help="of each seed (default: 40,000 on a GPU, 12,000 on a CPU)")
    parser.add_argument(
        "--seeds", type=int, nargs=2, metavar=("FROM", "TO"), help="(default: 0 3 on a GPU, 0 1 on a CPU)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU (default %(default)s)")
    parser.add_argument("--eager", action="store_true", help="on a GPU, launch each kernel instead of a CUDA graph")
    parser.add_argument("--plot", action="store_true", help="draw the curves of all that is in the folder, too")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of curves, weights and summary")
    return parser


def train(setting: Setting, results: Results, chosen: argparse.Namespace, deadline: float) -> bool:
    """Train one seed until it is finished or the time is up; returns whether it is finished."""
    training, rows = results.restore(setting, chosen.device)
    began, first = time.monotonic(), training.step
    step, saved = training.stepper(eager=chosen.eager), time.monotonic()
    while training.step < setting.steps and time.monotonic() < deadline:
        step()
        ended = training.step == setting.steps
        if training.step % READ_EVERY == 0 or ended:
            rows.append(training.read())
        if training.step % SNAPSHOT_EVERY == 0 or ended:
            training.snapshots[training.step] = training.weights()
            print(json.dumps(rows[-1]), flush=True)
        if time.monotonic() - saved > SAVE_SECONDS:
            results.save(training, rows)
            saved = time.monotonic()
    speed = {"steps": training.step - first, "seconds": round(time.monotonic() - began, 1), "device": _device(chosen)}
    if training.step < setting.steps:
        results.save(training, rows)
        return False
    results.finish(training, rows, speed)
    return True


def _device(chosen: argparse.Namespace) -> dict[str, Any]:
    on_gpu = {"gpu": torch.cuda.get_device_name(0), "graph": not chosen.eager} if chosen.device == "cuda" else {}
    return {**machine(), **on_gpu}


@dataclass(frozen=True)
class Results:
    """The folder of a study: curves, final weights and, of the training under way, its state."""

    folder: Path

    def _path(self, kind: str, setting: Setting, end: str) -> Path:
        return self.folder / f"{kind}-p{setting.modulus}-{setting.seed}.{end}"

    def finished(self, setting: Setting) -> bool:
        """Whether these weights are there and come from this very setting."""
        path = self._path("weights", setting, "safetensors")
        if not path.exists():
            return False
        with safe_open(path, framework="pt") as file:
            self._require(setting, json.loads(file.metadata()["setting"]))
        return True

    def _require(self, setting: Setting, found: dict[str, Any]) -> None:
        if Setting(**found) != setting:
            raise ConfigError(f"study grokking in {self.folder}", found, str(setting), "choose another --results")

    def save(self, training: Training, rows: list[dict[str, Any]]) -> None:
        """State, snapshots and curves so far, in one file, to go on from."""
        tensors = {f"weights/{name}": value for name, value in training.weights().items()}
        tensors |= {f"memory/{name}": v for name, v in memory(training.model, [training.optimizer]).items()}
        for step, weights in training.snapshots.items():
            tensors |= {f"{step}/{name}": value for name, value in weights.items()}
        told = {"setting": asdict(training.setting), "step": training.step, "rows": rows}
        path = self._path("state", training.setting, "safetensors")
        write_atomic(path, save(tensors, {name: json.dumps(value) for name, value in told.items()}))

    def restore(self, setting: Setting, device: str) -> tuple[Training, list[dict[str, Any]]]:
        """The training that an earlier sitting left, or a new one, and the curves so far."""
        training, path = Training(setting, device), self._path("state", setting, "safetensors")
        if not path.exists():
            return training, [training.read()]
        with safe_open(path, framework="pt") as file:
            told = {name: json.loads(value) for name, value in file.metadata().items()}
            found: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118  # a safetensors file is no mapping
                group, _, name = key.partition("/")
                found.setdefault(group, {})[name] = file.get_tensor(key)
        if Setting(**told["setting"]) != setting:
            raise ConfigError(
                f"study grokking in {self.folder}", told["setting"], str(setting), "choose another folder"
            )
        training.model.load_state_dict(found.pop("weights"))
        load_memory(training.model, [training.optimizer], found.pop("memory", {}))
        training.step = told["step"]
        training.snapshots = {int(step): weights for step, weights in found.items()}
        return training, told["rows"]

    def finish(self, training: Training, rows: list[dict[str, Any]], speed: dict[str, Any]) -> None:
        """Curves, with the progress measures by the finished network's frequencies, and the weights; no state."""
        setting, final = training.setting, training.weights()
        key = sum_spectrum(training.logits()).key
        measured = {}
        for step, weights in training.snapshots.items():
            training.model.load_state_dict(weights)
            measured[step] = training.progress(key)
        about = {"setting": asdict(setting), "speed": speed, "commit": commit()}
        lines = [json.dumps(about), *(json.dumps(row | measured.get(row["step"], {})) for row in rows)]
        self._path("curves", setting, "jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        model = kept(final, setting.modulus)
        data = save(model.state_dict(), {"setting": json.dumps(asdict(setting))})
        write_atomic(self._path("weights", setting, "safetensors"), data)
        self._path("state", setting, "safetensors").unlink(missing_ok=True)
