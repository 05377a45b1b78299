"""A family of one's own that breaks a promise is refused by name, before a run begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from selfimprove.errors import ConfigError
from selfimprove.tasks import promises, registry
from selfimprove.tasks.batch import CONTENT, GO, PAD, UNSCORED, Batch, IntArray
from selfimprove.tasks.family import Family, Latent, Setting, Stream
from selfimprove.tasks.registry import register
from selfimprove.tasks.suite import TasksConfig, TaskSuite, check_promises

SYMBOLS = 4


@dataclass(frozen=True)
class First(Setting):
    """Which symbol came first? It keeps every promise."""

    items: int

    @property
    def answers(self) -> int:
        return SYMBOLS

    @property
    def tokens(self) -> int:
        return SYMBOLS + 1

    @property
    def min_context(self) -> int:
        return self.items + 2

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        return rng.integers(0, SYMBOLS, (count, self.items))

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        drawn, go = CONTENT + self.draw(stream.rng, count), self.items + 1
        tokens, targets, latent, source = np.full((4, count, context), UNSCORED)
        tokens[:] = PAD
        tokens[:, 0], tokens[:, 1:go], tokens[:, go] = CONTENT + SYMBOLS, drawn, GO
        targets[:, go], latent[:, go], source[:, go] = drawn[:, 0], drawn[:, 0] - CONTENT, 1
        return Batch(tokens, targets, {"first_symbol": latent}, source)


class Unseeded(First):
    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        return super().generate(replace(stream, rng=np.random.default_rng()), count, context)


class Fixed(First):
    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        return super().generate(replace(stream, rng=np.random.default_rng(0)), count, context)


class Counted(First):
    """So many sequences, equally likely."""

    count = 0

    def draw(self, rng: np.random.Generator, count: int) -> IntArray:
        return rng.integers(0, self.count, (count, 1)) // SYMBOLS ** np.arange(self.items) % SYMBOLS


class ThirtyThousand(Counted):
    count = 30_000


class TwoHundredThousand(Counted):
    count = 200_000


class FewAnswers(First):
    @property
    def answers(self) -> int:
        return SYMBOLS - 1


class OneAnswer(First):
    @property
    def answers(self) -> int:
        return 1


class ManyAnswers(First):
    """Thirty are stated, four occur."""

    @property
    def answers(self) -> int:
        return 30


class Skewed(First):
    """Nearly all begin with the same symbol."""

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        batch = super().generate(stream, count, context)
        usual = stream.rng.random(count) < 0.95
        batch.tokens[usual, 1] = CONTENT
        batch.targets[usual, self.items + 1] = CONTENT
        return batch


class FewTokens(First):
    @property
    def tokens(self) -> int:
        return SYMBOLS


class Raising(First):
    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        raise KeyError("symbols")


class NoBatch(First):
    def generate(self, stream: Stream, count: int, context: int) -> Any:
        batch = super().generate(stream, count, context)
        return batch.tokens, batch.targets


class Changed(First):
    """Its batches with other parts."""

    def generate(self, stream: Stream, count: int, context: int) -> Batch:
        batch = super().generate(stream, count, context)
        return replace(batch, **self.parts(batch))

    def parts(self, batch: Batch) -> dict[str, Any]:
        raise NotImplementedError


class Narrow(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"targets": batch.targets[:, :-1]}


class Fractional(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"tokens": batch.tokens.astype(float)}


class Silent(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"targets": np.full_like(batch.targets, UNSCORED)}


class OddTarget(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"targets": np.where(batch.targets == UNSCORED, UNSCORED, -7)}


class ListLatent(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"latents": {"first_symbol": batch.latents["first_symbol"].tolist()}}


class OtherLatent(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"latents": {"symbol": batch.latents["first_symbol"]}}


class NoSource(Changed):
    def parts(self, batch: Batch) -> dict[str, Any]:
        return {"source": None}


EACH_LEVEL = [(name, level) for name, one in registry.FAMILIES.items() for level in range(len(one.ladder))]


@pytest.fixture(autouse=True)
def families(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered is not kept."""
    monkeypatch.setattr(registry, "FAMILIES", dict(registry.FAMILIES))


def tasks(*ladder: Setting) -> TasksConfig:
    """A configuration with a family of this ladder."""
    register(Family("first", "", ladder, (Latent("first_symbol", "asked", "which"),)))
    return TasksConfig(families=("recall", "first"))


def test_one_that_keeps_them_is_accepted_at_every_level() -> None:
    config = tasks(First(12), First(22), First(30))
    assert TaskSuite(config).batch("train", "first", 3, 0).tokens.shape == (3, config.context)
    check_promises(config)


@pytest.mark.parametrize(("name", "level"), EACH_LEVEL)
def test_a_shipped_family_keeps_them_at_every_level(name: str, level: int) -> None:
    setting = registry.FAMILIES[name].setting(level)
    promises.check(registry.FAMILIES[name], level, max(24, setting.min_context))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (Unseeded, "got different ones; allowed: the same sequences of the same stream; draw from stream.rng"),
        (Fixed, "got 100% that training has seen; allowed: at most 5%"),
        (FewAnswers, r"got 4 different answers; allowed: Setting\.answers = 3"),
        (OneAnswer, "ValueError: floor 0.0 of 1 answers"),
        (ManyAnswers, r"got skill 0\.59 of a uniform guess over the 4 answers that occur; allowed: at most 0\.25"),
        (Skewed, r"got skill 0\.8\d of an answer that never changes; allowed: at most 0\.6, .*answers = 4; state the"),
        (FewTokens, "got the token 20; allowed: 0 to 19"),
        (Raising, "KeyError: 'symbols'"),
        (NoBatch, "got tuple; allowed: a Batch"),
        (Narrow, r"got targets as int64 of shape \(512, 23\); allowed: an array of int64 of shape \(512, 24\)"),
        (Fractional, "got tokens as float64"),
        (Silent, "got no position that is scored"),
        (OddTarget, "got the target -7"),
        (ListLatent, "got first_symbol as list; allowed: an array"),
        (OtherLatent, r"got the latents symbol; allowed: those of Family\.latents: first_symbol"),
        (NoSource, "got no source; allowed: one if planted=True"),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else "",
)
def test_one_that_breaks_a_promise_is_refused_by_name_before_a_run_begins(broken: type[First], says: str) -> None:
    with pytest.raises(ConfigError, match=f"draw from the family first at level 0: .*{says}") as caught:
        check_promises(tasks(broken(12)))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_one_with_few_sequences_is_refused_with_the_share_that_training_sees() -> None:
    with pytest.raises(ConfigError, match=r"first at level 0: got \d+% .*at most 5% of 512 .*100,000 different"):
        check_promises(tasks(First(5)))


def test_one_with_thirty_thousand_sequences_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 1\d% that training has seen; .*100,000 different"):
        check_promises(tasks(ThirtyThousand(12)))


def test_one_with_two_hundred_thousand_sequences_is_accepted() -> None:
    check_promises(tasks(TwoHundredThousand(12)))


def test_a_later_level_that_breaks_a_promise_is_refused_before_a_run_begins() -> None:
    config = tasks(First(12), Silent(13))
    with pytest.raises(ConfigError, match="first at level 1: got no position that is scored"):
        check_promises(config)


def test_a_held_out_family_is_held_to_its_promises_too() -> None:
    config = replace(tasks(First(5)), families=("recall",), held_out=("first",))
    with pytest.raises(ConfigError, match=r"first at level 0: got .*100,000 different"):
        check_promises(config)


def test_a_suite_of_a_worker_draws_nothing_that_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config, drawn = tasks(First(14)), []
    monkeypatch.setattr(First, "generate", lambda *given: drawn.append(1))
    TaskSuite(config)
    assert drawn == []
