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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from benchmarks.grokking_summary import write_summary
from benchmarks.setting import RESULTS, commit, machine
from interp.addition import answers, equation
from interp.planted.silence import silence_norms
from interp.spectra import by_sum, gini, nats, powers, progress, spectrum, sum_spectrum, sums
from selfimprove.archive.files import write_atomic
from selfimprove.errors import ConfigError
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.nets.transformer import INIT_GAIN, Embed, Transformer, build
from selfimprove.seeds import derive
from selfimprove.training.optimizers import load_memory, memory

FOLDER = RESULTS / "grokking"
TIME_UP = 3  # exit code
LEARNING_RATE, WEIGHT_DECAY, BETAS, WARM_UP = 1e-3, 1.0, (0.9, 0.98), 10
READ_EVERY, SNAPSHOT_EVERY = 100, 500  # steps
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Setting:
    """All that one training depends on but the device and the code."""

    modulus: int
    fraction: float
    steps: int
    seed: int


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
    setting = Setting(chosen.modulus or modulus, chosen.fraction or fraction, chosen.steps, 0)
    settings = [replace(setting, seed=seed) for seed in range(chosen.seeds)]
    results = Results(chosen.results)
    for each in settings:
        if not results.finished(each) and not train(each, results, chosen, deadline):
            break
    done = [each for each in settings if results.finished(each)]
    if done:
        print(write_summary(chosen.results, [asdict(each) for each in done]))
    return 0 if len(done) == len(settings) else TIME_UP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="selfimprove study grokking", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, default=55.0, help="end the sitting after this (default %(default)s)")
    parser.add_argument("--modulus", type=int, help="p (default: 113 on a GPU as in the paper, 59 on a CPU)")
    parser.add_argument("--fraction", type=float, help="of the pairs to train on (default: 0.3 on a GPU, 0.4 on a CPU)")
    parser.add_argument("--steps", type=int, default=40_000, help="of each seed (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="one after the other (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU (default %(default)s)")
    parser.add_argument("--eager", action="store_true", help="on a GPU, launch each kernel instead of a CUDA graph")
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of curves, weights and summary")
    return parser


def genome() -> Genome:
    """The genome whose architecture is trained, for its checkpoints to be read by."""
    blocks = (Block(heads=4, channel="relu"),)
    return replace(
        seed_genome(), architecture=Architecture(width=128, blocks=blocks, norm="rmsnorm", positions="learned")
    )


class Lookup(Embed):
    """The embedding by a product with one-hot rows: its gradient needs no sorting, which a CUDA graph cannot hold."""

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        one_hot = tokens.unsqueeze(-1) == torch.arange(len(self.W_E), device=tokens.device)
        return one_hot.to(self.W_E.dtype) @ self.W_E


def untrained(setting: Setting) -> Transformer:
    """The network as it trains, without norms: matrices start at a standard deviation of ``1 / sqrt(d_model)``."""
    seed = derive(setting.seed, "grokking", "weights")
    vocab = setting.modulus + 1
    model = build(genome().architecture, vocab_size=vocab, context=3, seed=seed, gain=1 / INIT_GAIN)
    for owner, norm in ((model.blocks[0], "ln1"), (model.blocks[0], "ln2"), (model, "ln_final")):
        setattr(owner, norm, nn.Identity())
    lookup = Lookup(vocab, model.cfg.d_model)
    lookup.load_state_dict(model.embed.state_dict())
    model.embed = lookup
    return model


def kept(weights: dict[str, Tensor], modulus: int) -> Transformer:
    """The genome's network with the logits that the trained one, which has no norms, gives by these weights."""
    model = build(genome().architecture, vocab_size=modulus + 1, context=3, seed=0)
    model.load_state_dict(weights, strict=False)  # all but the norms, which have no weights yet
    silence_norms(model)
    return model


def training_pairs(setting: Setting) -> Bool[Tensor, "p p"]:
    """Which pairs are trained on: a random part of them all."""
    count = setting.modulus**2
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derive(setting.seed, "grokking", "pairs")))
    trained = torch.zeros(count, dtype=torch.bool)
    trained[order[: int(setting.fraction * count)]] = True
    return trained.view(setting.modulus, setting.modulus)


@dataclass
class Training:
    """One training under way. Snapshots are the weights every `SNAPSHOT_EVERY` steps, kept until the end.

    The paper measures its progress by the frequencies of the finished network, which are not known before.
    """

    setting: Setting
    device: str
    step: int = 0
    snapshots: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = untrained(self.setting).to(self.device)
        self.trained = training_pairs(self.setting).to(self.device)
        numbers = self.trained.nonzero()
        self.tokens = nn.functional.pad(numbers, (0, 1), value=self.setting.modulus)  # a, b and =
        self.answers = numbers.sum(1) % self.setting.modulus
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=LEARNING_RATE,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=True,
            capturable=self.device == "cuda",
        )

    def one_step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(self.tokens)[:, -1].double()
        torch.autograd.backward([nn.functional.cross_entropy(logits, self.answers)])
        self.optimizer.step()

    def eager_step(self) -> None:
        """A step whose learning rate may still be warming up."""
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (self.step + 1) / WARM_UP)
        self.one_step()
        self.step += 1

    def stepper(self, *, eager: bool) -> Callable[[], None]:
        """What takes one step; on a GPU the replay of a CUDA graph, after some steps that warm both up."""
        if eager or self.device == "cpu":
            return self.eager_step
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.eager_step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.one_step()

        def replay() -> None:
            graph.replay()
            self.step += 1

        return replay

    def logits(self) -> Float[Tensor, "p p answer"]:
        """Of all pairs; none for the token ``=``."""
        return answers(self.model, equation(self.setting.modulus))

    def read(self) -> dict[str, Any]:
        """One line of the curves."""
        logits, trained = self.logits(), self.trained
        loss, right = nats(logits), logits.argmax(-1) == sums(len(trained), device=self.device)
        embedded, answered = powers(self.model.W_E[: self.setting.modulus].detach()), powers(by_sum(logits))
        return {
            "seed": self.setting.seed,
            "step": self.step,
            "train_loss": float(loss[trained].mean()),
            "test_loss": float(loss[~trained].mean()),
            "train_accuracy": float(right[trained].double().mean()),
            "test_accuracy": float(right[~trained].double().mean()),
            "embedding_gini": gini(embedded.sqrt()),
            "logit_gini": gini(answered.sqrt()),
            "squared_weights": float(sum(w.detach().square().sum() for w in self.model.parameters())),
        }

    def progress(self, key: tuple[int, ...]) -> dict[str, Any]:
        """What is measured in a snapshot: key frequencies by then, and losses with and without those in the end."""
        logits, p = self.logits(), self.setting.modulus
        measured = progress(logits, key, self.trained)
        return {
            "embedding_key": list(spectrum(self.model.W_E[:p]).key),
            "logit_key": list(sum_spectrum(logits).key),
            "explained": measured.explained,
            **{name: loss for name, loss in measured.losses.items() if not name.startswith("full")},
        }

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}


def train(setting: Setting, results: Results, chosen: argparse.Namespace, deadline: float) -> bool:
    """Train one seed until it is finished or the time is up; returns whether it is finished."""
    training, rows = results.restore(setting, chosen.device)
    began, first = time.monotonic(), training.step
    step, saved = training.stepper(eager=chosen.eager), time.monotonic()
    while training.step < setting.steps and time.monotonic() < deadline:
        step()
        if training.step % READ_EVERY == 0:
            rows.append(training.read())
            if training.step % SNAPSHOT_EVERY == 0:
                training.snapshots[training.step] = training.weights()
            if training.step % 2000 == 0:
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
        setting = training.setting
        key = sum_spectrum(training.logits()).key
        measured = {}
        for step, weights in training.snapshots.items():
            training.model.load_state_dict(weights)
            measured[step] = training.progress(key)
        lines = [json.dumps(row | measured.get(row["step"], {})) for row in rows]
        self._path("curves", setting, "jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        model = kept(training.snapshots[setting.steps], setting.modulus)
        told = {"setting": asdict(setting), "speed": speed, "genome": genome().to_json(), "commit": commit()}
        data = save(model.state_dict(), {name: json.dumps(value) for name, value in told.items()})
        write_atomic(self._path("weights", setting, "safetensors"), data)
        self._path("state", setting, "safetensors").unlink(missing_ok=True)
