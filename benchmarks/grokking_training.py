"""A one-layer transformer that learns modular addition as in Nanda et al. 2023, and what is read of it on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.addition import answers, equation
from interp.planted.silence import silence_norms
from interp.spectra import by_sum, gini, nats, powers, progress, spectrum, sum_spectrum, sums
from selfimprove.genome.architecture import Architecture, Block
from selfimprove.genome.genome import Genome, seed_genome
from selfimprove.nets.transformer import INIT_GAIN, Embed, Transformer, build
from selfimprove.seeds import derive

LEARNING_RATE, WEIGHT_DECAY, BETAS, WARM_UP = 1e-3, 1.0, (0.9, 0.98), 10


@dataclass(frozen=True)
class Setting:
    """All that one training depends on but the device and the code."""

    modulus: int
    fraction: float
    steps: int
    seed: int


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


class Last(nn.Module):
    """In the place of a norm, the last position alone: nothing that follows is read elsewhere, or worth computing."""

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch 1 d_model"]:
        return x[:, -1:]


def untrained(setting: Setting) -> Transformer:
    """The network as it trains, without norms: matrices start at a standard deviation of ``1 / sqrt(d_model)``.

    Only the last position of its logits means anything: there are no others, or they are wrong.
    """
    seed = derive(setting.seed, "grokking", "weights")
    vocab = setting.modulus + 1
    model = build(genome().architecture, vocab_size=vocab, context=3, seed=seed, gain=1 / INIT_GAIN)
    for owner, norm, instead in (
        (model.blocks[0], "ln1", nn.Identity()),
        (model.blocks[0], "ln2", Last()),
        (model, "ln_final", Last()),
    ):
        setattr(owner, norm, instead)
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
    """One training under way.

    Attributes:
        setting: what is trained.
        device: ``cpu`` or ``cuda``.
        step: steps taken.
        snapshots: weights by step, kept until the end: the paper measures progress by the frequencies of the finished
            network, which are not known before.
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
            "restricted_to": list(key),
            "explained": measured.explained,
            **{name: loss for name, loss in measured.losses.items() if not name.startswith("full")},
        }

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
