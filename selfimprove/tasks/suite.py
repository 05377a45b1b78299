"""The task suite of a run: which families, at which levels, how large, and the streams that keep the splits apart.

Rules are frozen, instances are not: a split is a stream of fresh instances, whose seed is derived from the split, the
family, its level and a seed that differs from generation to generation. The spaces of instances are large (over 1e8 for
each family at the default context of 24 tokens), so that a sequence of one split practically never occurs in another;
``tests/tasks`` holds that. At shorter contexts it is not so of ``modular``, ``memorization`` and ``dyck``, whose
sequences end with the context: at 8 tokens 16%, 99% and all of the gate's first level occur among 20,000 of training.
Text is finite: its splits are different files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from selfimprove.errors import ConfigError
from selfimprove.own_modules import load
from selfimprove.seeds import derive
from selfimprove.tasks import halt, promises
from selfimprove.tasks.batch import CONTENT, TAGS, Batch
from selfimprove.tasks.family import Setting, Stream
from selfimprove.tasks.registry import family
from selfimprove.tasks.score import Scale

SPLITS = ("train", "search", "gate", "sealed", "probe")


@dataclass(frozen=True)
class TasksConfig:
    """Size and mixture of the tasks; outside the editable surface."""

    vocab_size: int = 48
    """Tokens in the vocabulary."""
    context: int = 24
    """Tokens in a sequence, until a level needs more."""
    max_context: int = 64
    """Tokens that sequences may grow to as levels rise; without effect below ``context``."""
    families: tuple[str, ...] = ("recall", "mqar")
    """Task families, in equal shares."""
    held_out: tuple[str, ...] = ("fuzzy", "dyck")
    """Families that search training and selection never see."""
    levels: Mapping[str, int] = field(default_factory=dict)
    """Level of difficulty by family; 0, the first of its ladder, where none is given."""
    halt_share: float = 0.125
    """Fraction of the training sequences that carry a halt token."""
    constraint_weight: float = 0.25
    """Weight of the constraint's loss term, which stands outside the genome."""
    eval_sequences: int = 192
    """Sequences a family (and as many halt prompts in all, rounded down to equal shares) in one evaluation."""
    table_seed: int = 0
    """Of what is fixed for a whole run: the facts of memorization. Derived from the run's root seed, which a training
    job must not know."""

    modules: tuple[str, ...] = ()
    """Modules of one's own that register families, ``package.module``: imported into every process that makes such a
    configuration, the trusted one and the workers alike."""

    def __post_init__(self) -> None:
        load(self.modules, "tasks.modules")

    @property
    def halt_prompts(self) -> int:
        """Halt prompts of one evaluation, all families together."""
        return self.eval_sequences // len(self.families) * len(self.families)

    def setting(self, name: str) -> Setting:
        """The setting of a family at its level.

        Raises:
            ConfigError: unknown family, or a level that its ladder does not have.
        """
        return family(name).setting(self.levels.get(name, 0))

    def fits(self, setting: Setting) -> bool:
        """Whether the vocabulary is large enough for a setting, and sequences may grow to what it needs."""
        longest = max(self.context, self.max_context)
        return self.vocab_size >= least_vocabulary(setting) and longest >= least_context(setting)

    def top(self, name: str) -> int:
        """The highest level of a family below the first that does not fit; -1 for none."""
        ladder = family(name).ladder
        return next((level - 1 for level, setting in enumerate(ladder) if not self.fits(setting)), len(ladder) - 1)

    def at(self, levels: Mapping[str, int]) -> TasksConfig:
        """The same tasks at other levels, with sequences as long as the longest of these needs; never shorter."""
        risen = replace(self, levels=dict(levels))
        return replace(risen, context=max(self.context, *(least_context(risen.setting(n)) for n in self.families)))

    def exam(self) -> TasksConfig:
        """The same sizes with the held-out families alone, at their levels: what shows whether a gain carries over."""
        return replace(self, families=self.held_out, held_out=self.families)


def least_vocabulary(setting: Setting) -> int:
    """Fewest tokens of a vocabulary in which a setting can be written."""
    return CONTENT + setting.tokens


def least_context(setting: Setting) -> int:
    """Fewest tokens of a sequence, with or without a halt token."""
    return max(setting.min_context, halt.MIN_CONTEXT)


def scales(config: TasksConfig) -> dict[str, Scale]:
    """By family, what its cross-entropy is measured against at its level."""
    return {name: config.setting(name).scale(config.context) for name in config.families}


class TaskSuite:
    """Generates every batch of a run as a pure function of (split, family, level, seed).

    Raises:
        ConfigError: a family that is unknown, named twice or both searched and held out, a level that its ladder does
            not have, a vocabulary or context too small for one.
    """

    def __init__(self, config: TasksConfig) -> None:
        self.config = config
        self.families = config.families
        _check(config)
        self._settings = {name: config.setting(name) for name in config.families}
        self.scales = scales(config)

    def _stream(self, split: str, purpose: str, seed: int) -> Stream:
        if split not in SPLITS:
            raise ConfigError("split", split, ", ".join(SPLITS))
        rng = np.random.Generator(np.random.PCG64(derive(seed, "tasks", split, purpose)))
        return Stream(rng, split, self.config.table_seed)

    def _draw(self, split: str, purpose: str, name: str, count: int, seed: int) -> tuple[Batch, np.random.Generator]:
        if name not in self._settings:
            raise ConfigError("draw from the family", name, f"those of this suite: {', '.join(self.families)}")
        stream = self._stream(split, f"{purpose}/{name}/{self.config.levels.get(name, 0)}", seed)
        return self._settings[name].generate(stream, count, self.config.context), stream.rng

    def batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        """``count`` sequences of one family at its level, without halt tokens."""
        return self._draw(split, "task", family, count, seed)[0]

    def halt_batch(self, split: str, family: str, count: int, seed: int) -> Batch:
        """``count`` sequences of one family at its level, each halted before something is asked; latent ``halted``."""
        return halt.asked_after(*self._draw(split, "halt", family, count, seed))

    def training_pool(self, count: int, seed: int, weights: Mapping[str, int] | None = None) -> Batch:
        """``count`` training sequences, the families in turn, a random ``halt_share`` of them halted.

        Args:
            count: of the sequences.
            seed: of the instances.
            weights: sequences of a family in a turn, one where none is given; families of other suites are passed over.
        """
        each = {name: (weights or {}).get(name, 1) for name in self.families}
        turns = -(-count // sum(each.values()))
        parts = [self._draw("train", "pool", name, turns * weight, seed)[0] for name, weight in each.items()]
        shape = [(turns, weight, self.config.context) for weight in each.values()]
        tokens, targets = (
            np.concatenate([getattr(p, name).reshape(s) for p, s in zip(parts, shape, strict=True)], axis=1).reshape(
                -1, self.config.context
            )[:count]
            for name in ("tokens", "targets")
        )
        rng = self._stream("train", "pool", seed).rng
        stopped = halt.halted(Batch(tokens, targets), rng)
        chosen = (rng.random(count) < self.config.halt_share)[:, None]
        return Batch(np.where(chosen, stopped.tokens, tokens), np.where(chosen, stopped.targets, targets))


def _check(config: TasksConfig) -> None:
    if not config.families:
        raise ConfigError("tasks.families", "[]", "at least one family", "name one")
    for path, names in (("tasks.families", config.families), ("tasks.held_out", config.held_out)):
        for name in names:
            family(name, path=path)
        if len(set(names)) < len(names):
            raise ConfigError(path, ", ".join(names), "each family once", "remove the second one")
        if config.eval_sequences < len(names):
            limit = f"at least {len(names)}: a halt prompt for each family of {path}"
            raise ConfigError("tasks.eval_sequences", config.eval_sequences, limit, "raise it or name fewer families")
    if both := sorted(set(config.families) & set(config.held_out)):
        limit = "no family of tasks.families: the search must never see it"
        raise ConfigError("tasks.held_out", ", ".join(both), limit, "take it out of one of the two lists")
    for name, level in config.levels.items():
        family(name, path="tasks.levels").setting(level)
    for name in (*config.families, *config.held_out):
        setting = config.setting(name)
        for key, value, low in (
            ("vocab_size", config.vocab_size, least_vocabulary(setting)),
            ("context", config.context, least_context(setting)),
        ):
            if value < low:
                limit = f"at least {low} for the family {name} at level {config.levels.get(name, 0)}"
                raise ConfigError(f"tasks.{key}", value, limit, f"raise tasks.{key} or leave {name} out")


def check_promises(config: TasksConfig) -> None:
    """See that families of one's own keep their promises, those that are searched at every level a run may climb to.

    It draws from them: for before a run, and not for each of its workers.

    Raises:
        ConfigError: one does not.
    """
    for name in (name for name in (*config.families, *config.held_out) if name not in TAGS):
        first = config.levels.get(name, 0)
        for level in range(first, config.top(name) + 1 if name in config.families else first + 1):
            promises.check(family(name), level, config.at({**config.levels, name: level}).context)
