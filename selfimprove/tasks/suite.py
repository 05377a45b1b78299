"""The task suite of a run: which families, how large, and the streams that keep the splits apart.

Rules are frozen, instances are not: a split is a stream of fresh instances whose seed is derived from the split's
name, so no two splits share a stream. The spaces of instances are large (over 1e9 for each family), so that a sequence
of one split practically never occurs in another; ``tests/tasks`` holds that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from selfimprove.errors import ConfigError
from selfimprove.seeds import derive
from selfimprove.tasks import copying, halt, modular, recall
from selfimprove.tasks.batch import CONTENT, Batch

SPLITS = ("train", "search", "gate", "sealed", "probe")
_MODULES = (recall, copying, modular)
GENERATORS: dict[str, Callable[[np.random.Generator, int, int], Batch]] = {m.NAME: m.generate for m in _MODULES}
ANSWERS: dict[str, int] = {m.NAME: m.ANSWERS for m in _MODULES}
LATENTS: dict[str, str] = {m.NAME: m.LATENT for m in _MODULES}
_TOKENS = {m.NAME: m.TOKENS for m in _MODULES}
_MIN_CONTEXT = {m.NAME: m.MIN_CONTEXT for m in _MODULES}


@dataclass(frozen=True)
class TasksConfig:
    """Size and mixture of the tasks; outside the editable surface."""

    vocab_size: int = 24
    """Tokens in the vocabulary."""
    context: int = 24
    """Tokens in a sequence."""
    families: tuple[str, ...] = ("recall", "copy", "modular")
    """Task families, in equal shares."""
    halt_share: float = 0.125
    """Fraction of the training sequences that carry a halt token."""
    constraint_weight: float = 0.25
    """Weight of the constraint's loss term, which stands outside the genome."""
    eval_sequences: int = 192
    """Sequences a family (and as many halt prompts in all, rounded down to equal shares) in one evaluation."""

    @property
    def halt_prompts(self) -> int:
        """Halt prompts of one evaluation, all families together."""
        return self.eval_sequences // len(self.families) * len(self.families)


class TaskSuite:
    """Generates every batch of a run as a pure function of (split, family, seed).

    Raises:
        ConfigError: unknown family, or a vocabulary or context too small for one.
    """

    def __init__(self, config: TasksConfig) -> None:
        self.config = config
        self.families = config.families
        for name in config.families:
            if name not in GENERATORS:
                raise ConfigError("tasks.families", name, ", ".join(GENERATORS))
            for key, value, low in (
                ("vocab_size", config.vocab_size, CONTENT + _TOKENS[name]),
                ("context", config.context, _MIN_CONTEXT[name]),
            ):
                if value < low:
                    raise ConfigError(f"tasks.{key}", value, f"at least {low} for the family {name}")

    def _rng(self, split: str, purpose: str, seed: int) -> np.random.Generator:
        if split not in SPLITS:
            raise ConfigError("split", split, ", ".join(SPLITS))
        return np.random.Generator(np.random.PCG64(derive(seed, "tasks", split, purpose)))

    def batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        """``count`` sequences of one family, without halt tokens."""
        return GENERATORS[family](self._rng(split, family, seed), count, self.config.context)

    def halt_batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        """``count`` sequences of one family, each with a halt token; latent ``halted``."""
        rng = self._rng(split, f"halt/{family}", seed)
        return halt.halted(GENERATORS[family](rng, count, self.config.context), rng)

    def training_pool(self, count: int, seed: int) -> Batch:
        """``count`` training sequences, the families in turn, a random ``halt_share`` of them halted."""
        rng = self._rng("train", "pool", seed)
        each = -(-count // len(self.families))
        parts = [GENERATORS[name](rng, each, self.config.context) for name in self.families]
        tokens, targets = (
            np.stack([getattr(part, name) for part in parts], axis=1).reshape(-1, self.config.context)[:count]
            for name in ("tokens", "targets")
        )
        mixed = Batch(tokens, targets)
        stopped = halt.halted(mixed, rng)
        chosen = (rng.random(count) < self.config.halt_share)[:, None]
        return Batch(np.where(chosen, stopped.tokens, tokens), np.where(chosen, stopped.targets, targets))
