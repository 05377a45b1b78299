"""The bench that instruments work at: a model, its hooked copy, a task suite, and activations computed once for all.

Probes learn on one set of sequences and are scored on another. The two come from different seeds, and a test sequence
that also occurs among the training ones is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.cache import LayerwiseCache
from interp.hooked import HookedModel, to_hooked
from interp.verdict import NotApplicable
from selfimprove.errors import ConfigError
from selfimprove.nets.transformer import Transformer
from selfimprove.seeds import derive
from selfimprove.tasks.batch import Batch

MIN_SEQUENCES = 3
Role = Literal["train", "test"]
_T = TypeVar("_T")


class Suite(Protocol):
    """The part of ``selfimprove.tasks.suite.TaskSuite`` that inspection needs; a planted suite may stand in for it."""

    @property
    def families(self) -> tuple[str, ...]: ...
    def batch(self, split: str, family: str, count: int, seed: int) -> Batch: ...
    def halt_batch(self, split: str, family: str, count: int, seed: int) -> Batch: ...


@dataclass(frozen=True)
class Plan:
    """Seeds and sizes of one inspection.

    Attributes:
        train: seed of the sequences that probes learn on.
        test: seed of the sequences that everything is scored on.
        control: seed of the control task's labels and of the choice of rows.
        split: split of the suite that all sequences come from.
        sequences: sequences of each family, two thirds of them to learn on and one third to score on.
        rows: most positions that one probe learns on, and is scored on.
    """

    train: int
    test: int
    control: int
    split: str = "probe"
    sequences: int = 192
    rows: int = 1024

    def __post_init__(self) -> None:
        if self.train == self.test:
            raise ConfigError("inspection seeds", self.train, "train and test seeds that differ")
        for name in ("sequences", "rows"):
            if getattr(self, name) < MIN_SEQUENCES:
                raise ConfigError(f"inspection {name}", getattr(self, name), f"at least {MIN_SEQUENCES}")

    @property
    def train_sequences(self) -> int:
        return self.sequences - self.test_sequences

    @property
    def test_sequences(self) -> int:
        return self.sequences // 3

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Strict: unknown keys raise `ConfigError` and list the known ones."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise ConfigError("inspection plan", unknown, ", ".join(known))
        return cls(**data)


@dataclass(frozen=True)
class Reading:
    """One set of sequences, and what the model made of them.

    Attributes:
        tokens, targets: ``[n pos]``.
        latents: name -> ``[n pos]``, `UNSCORED` where the variable has no value.
        source: ``[n pos]`` position that each answer can be read from, `UNSCORED` where there is none; None for a
            family without such places.
        logits: ``[n pos vocab]``.
        residual: the stream after each of `Bench.layers`, ``[layer n pos d_model]``.
        cache: the residual hooks only, for TransformerLens's own tools.
    """

    tokens: Int[Tensor, "n pos"]
    targets: Int[Tensor, "n pos"]
    latents: dict[str, Int[Tensor, "n pos"]]
    source: Int[Tensor, "n pos"] | None
    logits: Float[Tensor, "n pos vocab"]
    residual: Float[Tensor, "layer n pos d_model"]
    cache: LayerwiseCache


def residual_names(n_layers: int) -> tuple[str, ...]:
    """Hooks at which the stream is read: the embedding, then the output of every block."""
    return ("blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers)))


class Bench:
    """A model on the bench. Readings are computed on first use and kept; nothing here changes the model.

    Sequences longer than the bench's context are cut to it: what a model makes of their beginning is the same either
    way.

    Args:
        model: a trained network, whichever mode it is in.
        suite: where sequences come from.
        plan: seeds and sizes.
        parent: the model that this one's genome was edited from; None: it is not at hand, or there is none. It is put
            on a bench of its own, with the same suite and plan, so that both read the same sequences.
        context: most positions that are read; the model's own by default, and never more.
    """

    def __init__(
        self,
        model: Transformer,
        suite: Suite,
        plan: Plan,
        parent: Transformer | None = None,
        context: int | None = None,
    ) -> None:
        self.model, self.suite, self.plan = model, suite, plan
        self.context = model.cfg.n_ctx if context is None else min(context, model.cfg.n_ctx)
        self.parent = None if parent is None else Bench(parent, suite, plan)
        self._readings: dict[tuple[str, Role, bool], Reading] = {}
        self._kept: dict[tuple[object, ...], Any] = {}

    @cached_property
    def hooked(self) -> HookedModel:
        return to_hooked(self.model)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the places in the stream: ``embed``, then ``blocks.0``, ``blocks.1`` and so on for its outputs."""
        return ("embed", *(f"blocks.{layer}" for layer in range(self.model.cfg.n_layers)))

    def within(self, context: int) -> Bench:
        """This bench, or, where it reads longer sequences, one with the same model that reads so many positions."""
        return self if self.context <= context else Bench(self.model, self.suite, self.plan, context=context)

    def task(self, role: Role, family: str) -> Reading:
        """Sequences of one family as it is."""
        return self._reading(role, family, halt=False)

    def halted(self, role: Role, family: str) -> Reading:
        """Sequences of one family with the halt token in them."""
        return self._reading(role, family, halt=True)

    def once(self, key: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """``make()``, computed once for this bench: what several instruments share."""
        if key not in self._kept:
            self._kept[key] = make()
        found: _T = self._kept[key]
        return found

    def _reading(self, role: Role, family: str, *, halt: bool) -> Reading:
        key = (family, role, halt)
        if key not in self._readings:
            self._readings[key] = self._read(_cut(self._draw(role, family, halt), self.context))
        return self._readings[key]

    def _draw(self, role: Role, family: str, halt: bool) -> dict[str, Any]:
        plan = self.plan
        make = self.suite.halt_batch if halt else self.suite.batch
        purpose = (family, "halt" if halt else "task")
        train = _tensors(make(plan.split, family, plan.train_sequences, derive(plan.train, *purpose)))
        if role == "train":
            return train
        test = _tensors(make(plan.split, family, plan.test_sequences, derive(plan.test, *purpose)))
        seen = {row.tobytes() for row in train["tokens"].numpy()}
        fresh = torch.tensor([row.tobytes() not in seen for row in test["tokens"].numpy()])
        if not fresh.any():
            raise NotApplicable(f"test sequences of {family}", 0, "sequences that training has not seen")
        latents = {name: value[fresh] for name, value in test["latents"].items()}
        source = None if test["source"] is None else test["source"][fresh]
        return {name: test[name][fresh] for name in ("tokens", "targets")} | {"latents": latents, "source": source}

    def _read(self, drawn: dict[str, Any]) -> Reading:
        wanted = residual_names(self.hooked.cfg.n_layers)
        device = self.hooked.W_E.device
        with torch.no_grad():
            logits, cache = self.hooked.run_with_cache(
                drawn["tokens"].to(device), names_filter=lambda name: name in wanted or name.endswith("hook_resid_pre")
            )
        residual = torch.stack([cache[name] for name in wanted])
        places = {cache[name].data_ptr(): at for at, name in enumerate(wanted)}  # what is in the stack is held once
        for name, value in cache.cache_dict.items():
            if (at := places.get(value.data_ptr())) is not None:
                cache.cache_dict[name] = residual[at]
        return Reading(**drawn, logits=logits, residual=residual, cache=cache)


def at_common_positions(parent: Bench, child: Bench) -> tuple[Bench, Bench]:
    """Both benches, reading no more of their sequences than both can: row for row the same positions."""
    context = min(parent.context, child.context)
    return parent.within(context), child.within(context)


def _tensors(batch: Batch) -> dict[str, Any]:
    """A suite's batch as tensors of our own: arrays may be read-only."""

    def tensor(values: Any) -> Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.int64)

    return {
        "tokens": tensor(batch.tokens),
        "targets": tensor(batch.targets),
        "latents": {name: tensor(values) for name, values in batch.latents.items()},
        "source": None if batch.source is None else tensor(batch.source),
    }


def _cut(drawn: dict[str, Any], context: int) -> dict[str, Any]:
    """The first ``context`` positions of drawn sequences."""
    latents = {name: values[:, :context] for name, values in drawn["latents"].items()}
    source = None if drawn["source"] is None else drawn["source"][:, :context]
    return {name: drawn[name][:, :context] for name in ("tokens", "targets")} | {"latents": latents, "source": source}


Instrument = Callable[[Bench], dict[str, Any]]
